//! Answers plain HTTP requests from a function; enough for metrics, health and a page.

mod patience;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use patience::Patient;

/// Text that is no metrics.
pub const PLAIN: &str = "text/plain; charset=utf-8";
/// Prometheus' text format. Prometheus 3 refuses an answer without it.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page.
pub const HTML: &str = "text/html; charset=utf-8";
/// A style sheet.
pub const CSS: &str = "text/css; charset=utf-8";
/// A script.
pub const SCRIPT: &str = "text/javascript; charset=utf-8";
/// A drawing.
pub const SVG: &str = "image/svg+xml";
/// For programs.
pub const JSON: &str = "application/json";
/// Server-sent events.
pub const EVENTS: &str = "text/event-stream";

/// What a browser may do with an answer: show what this port serves, and nothing of anybody else.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                              img-src 'self'; connect-src 'self'; base-uri 'none'; \
                              form-action 'none'; frame-ancestors 'none'";

/// Open connections at one time; one more waits in the kernel's queue. A scraper needs one.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes that wait in a connection before its reader takes them; what a stream gives beyond waits
/// where it comes from.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// A reader that takes nothing for this long is gone, or may come back for a fresh answer.
const TAKING_WAIT: Duration = Duration::from_secs(30);
/// A client that does not send its headers within this time is dropped, so that idle connections
/// can't use up the places.
const HEADERS_WAIT: Duration = Duration::from_secs(10);
/// Pause after the kernel refused a connection (no file handles): they may be freed again.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// What is answered to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type, such as [`PLAIN`] or [`METRICS`].
    pub content_type: &'static str,
    /// What is sent, whole.
    pub body: String,
}

impl Answer {
    /// 200 with plain text.
    pub fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, content_type: PLAIN, body: body.into() }
    }

    /// 200 with metrics in the text format.
    pub fn metrics(body: String) -> Self {
        Self { status: 200, content_type: METRICS, body }
    }

    /// 503 with the reason.
    pub fn unavailable(body: impl Into<String>) -> Self {
        Self { status: 503, content_type: PLAIN, body: body.into() }
    }

    /// 404.
    pub fn not_found() -> Self {
        Self { status: 404, content_type: PLAIN, body: "no such page\n".to_owned() }
    }
}

/// A body whose parts are sent as they come.
///
/// The next part is asked for only when the reader has taken enough of those before it.
pub type Parts = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// What is answered: whole, or as it comes.
pub enum Reply {
    /// At once.
    Whole(Answer),
    /// 200, of this media type, until the parts end or the reader goes.
    Stream(&'static str, Parts),
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(answer) => f.debug_tuple("Whole").field(answer).finish(),
            Self::Stream(kind, _) => f.debug_tuple("Stream").field(kind).finish_non_exhaustive(),
        }
    }
}

/// The path and query of a GET or HEAD request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path with its leading slash.
    pub path: String,
    /// What follows the question mark, undecoded; empty without one.
    pub query: String,
}

/// Binds an address, so that a port that is taken is an error at start.
///
/// # Errors
///
/// The operating system's, with the address and what it is for.
pub async fn bind(purpose: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let kind = error.kind();
        let advice = if kind == io::ErrorKind::AddrInUse {
            ": the port is taken, choose another or stop its owner"
        } else if kind == io::ErrorKind::PermissionDenied {
            ": ports below 1024 need privileges"
        } else {
            ""
        };
        anyhow::anyhow!("can't listen on {address} for {purpose}{advice} ({error})")
    })
}

/// Answers requests on the listener by the function until the process ends.
///
/// It is not tracked by the lifecycle: a service that drains must still be observable.
pub fn serve<F, R>(listener: TcpListener, answer: F)
where
    F: Fn(&Asked) -> R + Send + Sync + 'static,
    R: Into<Reply> + 'static,
{
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        // The semaphore is never closed, so the loop ends with the runtime only.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let answer = Arc::clone(&answer);
                    tokio::spawn(async move {
                        serve_connection(stream, answer).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
    });
}

async fn serve_connection<F, R>(stream: TcpStream, answer: Arc<F>)
where
    F: Fn(&Asked) -> R + Send + Sync + 'static,
    R: Into<Reply> + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = respond(request.method(), request.uri(), &*answer);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .max_buf_size(WAITING_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, TAKING_WAIT)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn respond<R: Into<Reply>>(
    method: &Method,
    uri: &hyper::Uri,
    answer: &(impl Fn(&Asked) -> R + ?Sized),
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let reply = if method == Method::GET || method == Method::HEAD {
        let query = uri.query().unwrap_or_default().to_owned();
        answer(&Asked { path: uri.path().to_owned(), query }).into()
    } else {
        let body = "GET and HEAD only\n".to_owned();
        Answer { status: 405, content_type: PLAIN, body }.into()
    };
    let (status, content_type, body) = match reply {
        Reply::Whole(answer) => {
            let status = StatusCode::from_u16(answer.status);
            let body = Full::new(Bytes::from(answer.body)).boxed_unsync();
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), answer.content_type, body)
        }
        Reply::Stream(content_type, parts) => {
            let frames = parts.map(|part| Ok(Frame::data(part)));
            (StatusCode::OK, content_type, StreamBody::new(frames).boxed_unsync())
        }
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn request(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn a_request_is_answered_by_the_function() {
        let listener = bind("tests", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, |asked| match asked.path.as_str() {
            "/here" => Answer::metrics(format!("query={}\n", asked.query)),
            _ => Answer::not_found(),
        });
        let close = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let found = request(address, &format!("GET /here?a=b {close}")).await;
        assert!(found.starts_with("HTTP/1.1 200"), "{found}");
        assert!(found.contains("content-type: text/plain; version=0.0.4"), "{found}");
        assert!(found.ends_with("query=a=b\n"), "{found}");
        let missing = request(address, &format!("GET /there {close}")).await;
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
        let refused = request(address, &format!("DELETE /here {close}")).await;
        assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
    }

    #[tokio::test]
    async fn parts_are_sent_as_they_come_and_a_browser_may_ask_nobody_else() {
        let listener = bind("tests", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (give, given) = tokio::sync::mpsc::channel::<Bytes>(1);
        let given = std::sync::Mutex::new(Some(given));
        serve(listener, move |_| {
            let given = given.lock().unwrap().take().unwrap();
            let parts = futures_util::stream::unfold(given, |mut given| async move {
                Some((given.recv().await?, given))
            });
            Reply::Stream(EVENTS, Box::pin(parts))
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut read = String::new();
        // The second part does not exist yet when the first arrives.
        for part in ["first", "second"] {
            give.send(Bytes::from_static(part.as_bytes())).await.unwrap();
            while !read.contains(part) {
                let mut bytes = [0; 512];
                let count = stream.read(&mut bytes).await.unwrap();
                assert_ne!(count, 0, "it ended after {read}");
                read.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        }
        assert!(read.contains("content-type: text/event-stream"), "{read}");
        assert!(read.contains("content-security-policy: default-src 'none'"), "{read}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_says_so() {
        let first = bind("tests", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("metrics", address).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{address} for metrics: the port is taken")), "{error}");
    }
}
