//! The registry protocol without sockets: what to ask, how to read the answer, what to answer.
//!
//! Both sides share it: the client drives [`Upload`] and reads [`Challenge`]s, the server splits paths with
//! [`Route`] and answers with [`Code`]s. Nothing here touches a socket, a file or a clock. The texts are the
//! OCI distribution specification 1.1 and the token specification of the `distribution` project.

mod challenge;
mod code;
mod limits;
mod link;
mod path;
mod range;
mod retry;
mod route;
mod scope;
mod token;
mod upload;
mod warning;

pub use challenge::{Challenge, parse_challenges};
pub use code::{Code, ErrorBody, ErrorEntry};
pub use limits::*;
pub use link::{next_link, page_link};
pub use path::{blob_path, manifest_path, referrers_path, referrers_tag, tags_path, uploads_path};
pub use range::{ByteRange, ContentRange, RangeRequest, chunk_start, parse_content_range, parse_range, upload_offset};
pub use retry::{is_transient, parse_retry_after};
pub use route::{Query, Route, RouteError, Target};
pub use scope::{Actions, Scope, ScopeError};
pub use token::{TokenError, TokenReply, TokenRequest};
pub use upload::{Answer, Next, Upload, UploadRefused};
pub use warning::parse_warnings;
