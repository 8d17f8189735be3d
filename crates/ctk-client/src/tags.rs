//! Lists of tags.

use ctk_distribution::{ANSWER_LIMIT_BYTES, Actions, PAGES_LIMIT, Scope, next_link, tags_path};
use ctk_oci::Reference;
use ctk_plan::Cancel;
use reqwest::Method;
use reqwest::header::LINK;
use serde::Deserialize;

use crate::call::{Call, read_limited};
use crate::retry::patiently;
use crate::{Client, ClientError, block};

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// Every tag of the reference's repository, in the registry's order; all pages.
    pub fn tags(&self, repository: &Reference, cancel: &Cancel) -> Result<Vec<String>, ClientError> {
        block(cancel, async {
            let target = self.target(repository).await?;
            let scopes = [Scope::repository(&target.name, Actions::Pull)];
            let mut path = tags_path(&target.name);
            let mut tags = Vec::new();
            for _ in 0..PAGES_LIMIT {
                let page = patiently(self.options().retry, async || {
                    let sent = self.send(&target, Call::new(Method::GET, &path, &scopes)).await?;
                    if sent.status() != 200 {
                        return Err(self.complain(&target, &Method::GET, sent).await);
                    }
                    let next = sent.header(LINK).and_then(|link| sent.url.join(next_link(&link)?).ok());
                    let host = target.host.name.clone();
                    let body = read_limited(sent.response, ANSWER_LIMIT_BYTES).await.map_err(|cause| {
                        ClientError::NoAnswer { host: host.clone(), method: "GET", path: path.clone(), cause }
                    })?;
                    let what = format!("the tags of `{}`", target.reference);
                    let body = body.ok_or(ClientError::TooLarge { host, what, limit_bytes: ANSWER_LIMIT_BYTES })?;
                    let page: Page = serde_json::from_slice(&body).map_err(|error| ClientError::Manifest {
                        reference: target.reference.clone(),
                        reason: format!("its list of tags is malformed: {error}"),
                    })?;
                    Ok((page, next))
                });
                let (page, next) = page.await?;
                tags.extend(page.tags.unwrap_or_default());
                match next {
                    Some(next) => path = next.into(),
                    None => break,
                }
            }
            Ok(tags)
        })
    }
}
