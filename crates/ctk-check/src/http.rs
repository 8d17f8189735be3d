//! One HTTP/1.1 request over a connection that somebody else opened, e.g. inside a private network.

use std::net::TcpStream;
use std::time::Duration;

use ctk_plan::Cancel;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use crate::limits;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub method: http::Method,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// `http://host[:port][/path]`, the only kind that a test can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub host: String,
    pub port: u16,
    /// With its query; begins with `/`.
    pub path: String,
}

impl Url {
    /// Reads `text`, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let uri: http::Uri = text.parse().map_err(|e| format!("`{text}` is no URL: {e}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(format!("scheme `{other}` is not supported; expected `http://`")),
            None => return Err(format!("`{text}` has no scheme; expected `http://host[:port]/path`")),
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| format!("`{text}` names no host"))?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Url { host: host.into(), port: uri.port_u16().unwrap_or(80), path: path.into() })
    }

    /// `host` or `host:port`, as the `Host` header wants it.
    fn authority(&self) -> String {
        if self.port == 80 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    /// At most [`limits::HTTP_BODY_BYTES`].
    pub body: Vec<u8>,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("cannot use the connection")]
    Socket(#[source] std::io::Error),
    #[error("cannot put the request together")]
    Request(#[source] http::Error),
    #[error("no HTTP answer")]
    Exchange(#[source] hyper::Error),
    #[error("no whole answer within {}", crate::spell(*.0))]
    TimedOut(Duration),
    #[error("cancelled")]
    Cancelled,
}

/// Sends `request` over `stream` and reads the whole answer within `timeout`.
pub(crate) fn exchange(
    stream: TcpStream,
    request: &Request,
    timeout: Duration,
    cancel: &Cancel,
) -> Result<Answer, HttpError> {
    ctk_http::runtime().block_on(async {
        let heard = async {
            while !cancel.is_cancelled() {
                tokio::time::sleep(limits::CANCEL_POLL).await;
            }
        };
        tokio::select! {
            answer = talk(stream, request) => answer,
            () = tokio::time::sleep(timeout) => Err(HttpError::TimedOut(timeout)),
            () = heard => Err(HttpError::Cancelled),
        }
    })
}

async fn talk(stream: TcpStream, request: &Request) -> Result<Answer, HttpError> {
    stream.set_nonblocking(true).map_err(HttpError::Socket)?;
    let stream = tokio::net::TcpStream::from_std(stream).map_err(HttpError::Socket)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(HttpError::Exchange)?;
    let mut message = http::Request::builder().method(request.method.clone()).uri(&request.url.path);
    let named = |wanted: &str| request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if !named("host") {
        message = message.header(http::header::HOST, request.url.authority());
    }
    if !named("user-agent") {
        message = message.header(http::header::USER_AGENT, concat!("ctk/", env!("CARGO_PKG_VERSION")));
    }
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    let message = message.body(Full::new(Bytes::from(request.body.clone()))).map_err(HttpError::Request)?;
    let answer = async {
        let response = sender.send_request(message).await.map_err(HttpError::Exchange)?;
        let (head, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(HttpError::Exchange)?;
            if let Some(data) = frame.data_ref() {
                body.extend_from_slice(data);
            }
            if body.len() >= limits::HTTP_BODY_BYTES {
                body.truncate(limits::HTTP_BODY_BYTES);
                break;
            }
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    tokio::pin!(answer);
    // The connection has to be driven beside the exchange, and may end before the last byte was handed over.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(HttpError::Exchange(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn urls() {
        let url = |host: &str, port, path: &str| Ok(Url { host: host.into(), port, path: path.into() });
        assert_eq!(Url::parse("http://image:8080/healthz?a=b"), url("image", 8080, "/healthz?a=b"));
        assert_eq!(Url::parse("http://db"), url("db", 80, "/"));
        assert!(Url::parse("https://image/").unwrap_err().contains("expected `http://`"));
        assert!(Url::parse("image:8080").is_err());
        assert!(Url::parse("/healthz").unwrap_err().contains("no scheme"));
    }

    /// A server that reads a request's head, writes `answer` and closes.
    fn serve(answer: &'static [u8]) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"GET /x HTTP/1.1\r\n"));
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                std::thread::sleep(Duration::from_secs(5));
            }
        });
        TcpStream::connect(address).unwrap()
    }

    fn ask(answer: &'static [u8], timeout: Duration) -> Result<Answer, HttpError> {
        let url = Url { host: "image".into(), port: 80, path: "/x".into() };
        let request = Request { method: http::Method::GET, url, headers: Vec::new(), body: String::new() };
        exchange(serve(answer), &request, timeout, &Cancel::new())
    }

    #[test]
    fn answers_are_read_whole() {
        let long = Duration::from_secs(5);
        let sized = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok", long).unwrap();
        assert_eq!((sized.status, sized.body.as_slice()), (200, b"ok".as_slice()));
        assert_eq!(sized.headers["x-a"], "b");
        let chunked = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        let chunked = ask(chunked, long).unwrap();
        assert_eq!((chunked.status, chunked.body.as_slice()), (404, b"no".as_slice()));
        assert_eq!(ask(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", long).unwrap().body, b"until the end");
    }

    #[test]
    fn bad_answers_are_errors() {
        let long = Duration::from_secs(5);
        assert!(matches!(ask(b"220 smtp ready\r\n", long), Err(HttpError::Exchange(_))));
        assert!(matches!(ask(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", long), Err(HttpError::Exchange(_))));
        assert!(matches!(ask(b"", Duration::from_millis(50)), Err(HttpError::TimedOut(_))));
    }
}
