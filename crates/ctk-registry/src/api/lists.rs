//! Lists: tags, repositories, referrers. All in the order of their bytes, in pages.

use axum::body::Body;
use ctk_distribution::{Code, PAGE_LIMIT_ENTRIES, page_link};
use ctk_oci::{Digest, Index, media_type};
use http::{Response, header};

use super::answer::{FILTERS_APPLIED, Failure, bytes, json, set};
use super::{App, Asked};

/// What a page asks for.
struct Page<'a> {
    n: usize,
    last: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn parse(asked: &'a Asked) -> Result<Page<'a>, Failure> {
        let n = match asked.query.get("n") {
            None => PAGE_LIMIT_ENTRIES,
            Some(text) => text.parse::<usize>().map_err(|_| Failure::of(Code::PaginationNumberInvalid).detail(text))?,
        };
        Ok(Page { n: n.min(PAGE_LIMIT_ENTRIES), last: asked.query.get("last") })
    }

    /// The entries of this page, and the key that the next one starts after.
    fn cut<T>(&self, entries: Vec<T>, key: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
        let mut rest: Vec<T> = match self.last {
            None => entries,
            Some(last) => entries.into_iter().filter(|entry| key(entry).as_str() > last).collect(),
        };
        let more = rest.len() > self.n;
        rest.truncate(self.n);
        let next = rest.last().filter(|_| more).map(key);
        (rest, next)
    }
}

impl App {
    pub(super) async fn tags(&self, asked: &Asked, name: String) -> Result<Response<Body>, Failure> {
        let page = Page::parse(asked)?;
        let repository = name.clone();
        let tags = self.stored(move |storage| storage.tags(&repository)).await?;
        let tags = tags.ok_or_else(|| Failure::of(Code::NameUnknown).detail(name.clone()))?;
        let (tags, next) = page.cut(tags, String::clone);
        let mut response = json(200, &serde_json::json!({ "name": name, "tags": tags }));
        if let Some(next) = next {
            set(&mut response, header::LINK, &page_link(&asked.path, page.n, &next));
        }
        Ok(response)
    }

    pub(super) async fn catalog(&self, asked: &Asked) -> Result<Response<Body>, Failure> {
        let page = Page::parse(asked)?;
        let names = self.stored(|storage| storage.repositories()).await?;
        let (names, next) = page.cut(names, String::clone);
        let mut response = json(200, &serde_json::json!({ "repositories": names }));
        if let Some(next) = next {
            set(&mut response, header::LINK, &page_link(&asked.path, page.n, &next));
        }
        Ok(response)
    }

    pub(super) async fn referrers(
        &self,
        asked: &Asked,
        name: String,
        digest: Digest,
    ) -> Result<Response<Body>, Failure> {
        let page = Page::parse(asked)?;
        let mut found = self.stored(move |storage| storage.referrers(&name, &digest)).await?;
        let wanted = asked.query.get("artifactType").filter(|t| !t.is_empty());
        if let Some(wanted) = wanted {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
        }
        let (found, next) = page.cut(found, |d| d.digest.to_string());
        let body = serde_json::to_vec(&Index::new(found)).expect("plain data serialises");
        let mut response = bytes(200, media_type::INDEX, body);
        if wanted.is_some() {
            set(&mut response, FILTERS_APPLIED, "artifactType");
        }
        if let Some(next) = next {
            let mut link = page_link(&asked.path, page.n, &next);
            if let Some(wanted) = wanted {
                // The filter goes with the page.
                let filter: String = wanted.bytes().map(|b| format!("%{b:02X}")).collect();
                link = link.replacen('?', &format!("?artifactType={filter}&"), 1);
            }
            set(&mut response, header::LINK, &link);
        }
        Ok(response)
    }
}
