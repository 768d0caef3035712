//! Answers plain HTTP requests from a function; enough for metrics and health.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Lifecycle;

/// Text that is no metrics.
pub const PLAIN: &str = "text/plain; charset=utf-8";
/// Prometheus' text format. Prometheus 3 refuses an answer without it.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Open connections at one time; one more waits in the kernel's queue. A scraper needs one.
const CONNECTIONS_MAX: usize = 64;
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
    /// Media type, [`PLAIN`] or [`METRICS`].
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
pub fn serve<F>(listener: TcpListener, answer: F)
where
    F: Fn(&Asked) -> Answer + Send + Sync + 'static,
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

async fn serve_connection<F>(stream: TcpStream, answer: Arc<F>)
where
    F: Fn(&Asked) -> Answer + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = respond(request.method(), request.uri(), &*answer);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn respond(
    method: &Method,
    uri: &hyper::Uri,
    answer: &(impl Fn(&Asked) -> Answer + ?Sized),
) -> Response<Full<Bytes>> {
    let answer = if method == Method::GET || method == Method::HEAD {
        let query = uri.query().unwrap_or_default().to_owned();
        answer(&Asked { path: uri.path().to_owned(), query })
    } else {
        Answer { status: 405, content_type: PLAIN, body: "GET and HEAD only\n".to_owned() }
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(answer.content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

/// Serves until the service drains; for a port that must not answer while it ends.
pub fn serve_until_draining<F>(listener: TcpListener, lifecycle: &Lifecycle, answer: F)
where
    F: Fn(&Asked) -> Answer + Send + Sync + 'static,
{
    let lifecycle = lifecycle.clone();
    serve(listener, move |asked| {
        if lifecycle.is_draining() { Answer::unavailable("draining\n") } else { answer(asked) }
    });
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
    async fn a_port_that_is_taken_is_an_error_that_says_so() {
        let first = bind("tests", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("metrics", address).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{address} for metrics: the port is taken")), "{error}");
    }
}
