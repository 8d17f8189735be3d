//! How much of anything either side takes.

/// Largest manifest or index, in bytes. The specification asks for at least 4 MiB (distribution-spec 1.1, "Pushing
/// Manifests"); everybody stops there, since manifests are held in memory.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// Largest error, token or list body a client reads, in bytes: real ones are some kilobytes.
pub const ANSWER_LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// Most error entries kept of one answer: more would hide the first.
pub const ERROR_ENTRIES_LIMIT: usize = 16;
/// Most entries in one page of tags, repositories or referrers. Larger `n` are answered with this many.
pub const PAGE_LIMIT_ENTRIES: usize = 1000;
/// Most pages a client follows; 10 000 pages of 1000 tags is beyond any repository, a loop of links is not.
pub const PAGES_LIMIT: usize = 10_000;
/// Longest text of scopes in one token request, in bytes: a name has 255 at most.
pub const SCOPES_LIMIT_BYTES: usize = 16 * 1024;
/// Most scopes in one token request; clients ask for one or two.
pub const SCOPES_LIMIT: usize = 64;
/// Most actions in one scope; three are known.
pub const SCOPE_ACTIONS_LIMIT: usize = 16;
/// Most bytes of one `Warning` header that are read; the specification allows 4096 in all of an answer's.
pub const WARNING_LIMIT_BYTES: usize = 4096;
/// Most referrers read of one manifest, over all pages: whoever may push can attach as many as they like.
pub const REFERRERS_LIMIT: usize = 10_000;
