//! Lists: tags, repositories, referrers. All in the order of their bytes, in pages.

use axum::body::Body;
use ctk_distribution::{Code, PAGE_LIMIT_ENTRIES, page_link};
use ctk_oci::{Digest, Index, media_type};
use http::{Response, header};

use super::answer::{FILTERS_APPLIED, Failure, bytes, json, set};
use super::{App, Asked};
use crate::gate::Action;

/// What a page asks for.
struct Page {
    n: usize,
    last: String,
}

impl Page {
    fn parse(asked: &Asked) -> Result<Page, Failure> {
        let n = match asked.query.get("n") {
            None => PAGE_LIMIT_ENTRIES,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
                // A number too large to read is as good as the limit.
                text.parse::<usize>().unwrap_or(PAGE_LIMIT_ENTRIES)
            }
            Some(text) => return Err(Failure::of(Code::PaginationNumberInvalid).detail(text)),
        };
        let last = asked.query.get("last").unwrap_or_default().to_owned();
        Ok(Page { n: n.min(PAGE_LIMIT_ENTRIES), last })
    }

    /// The entries of this page out of one more, and the key that the next one starts after.
    fn cut<T>(&self, mut entries: Vec<T>, key: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
        let more = entries.len() > self.n;
        entries.truncate(self.n);
        let next = entries.last().filter(|_| more).map(key);
        (entries, next)
    }
}

impl App {
    pub(super) async fn tags(&self, asked: &Asked, name: String) -> Result<Response<Body>, Failure> {
        let page = Page::parse(asked)?;
        let (repository, last, limit) = (name.clone(), page.last.clone(), page.n + 1);
        let tags = self.stored(move |storage| storage.meta().tags(&repository, &last, limit)).await?;
        let tags = tags.ok_or_else(|| Failure::of(Code::NameUnknown).detail(name.clone()))?;
        let (tags, next) = page.cut(tags, String::clone);
        let mut response = json(200, &serde_json::json!({ "name": name, "tags": tags }));
        if let Some(next) = next {
            set(&mut response, header::LINK, &page_link(&asked.path, page.n, &next));
        }
        Ok(response)
    }

    /// The repositories that the caller may read, and no others.
    pub(super) async fn catalog(&self, asked: &Asked) -> Result<Response<Body>, Failure> {
        let page = Page::parse(asked)?;
        let mut names: Vec<String> = Vec::new();
        let mut last = page.last.clone();
        // A token for the catalogue is for all of it that its holder may read.
        let who = asked.who.unlimited();
        while names.len() <= page.n {
            let after = last.clone();
            let found = self.stored(move |storage| storage.meta().repositories(&after, PAGE_LIMIT_ENTRIES + 1)).await?;
            let Some(end) = found.last() else { break };
            last = end.clone();
            let whole = found.len() > PAGE_LIMIT_ENTRIES;
            names.extend(found.into_iter().filter(|name| self.may(&who, Action::Pull, name)));
            if !whole {
                break;
            }
        }
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
        let wanted = asked.query.get("artifactType").filter(|t| !t.is_empty()).map(str::to_owned);
        let (kind, last, limit) = (wanted.clone(), page.last.clone(), page.n + 1);
        let found =
            self.stored(move |storage| storage.referrers(&name, &digest, kind.as_deref(), &last, limit)).await?;
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
