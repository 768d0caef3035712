//! Serves routes over plain HTTP to clients that may be many, slow or idle.
//!
//! axum's own server limits neither connections nor waiting, so connections are accepted here.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

/// The media type of Prometheus' text format. Prometheus 3 refuses responses without it.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a browser may do with a page: load only what this port serves.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                              img-src 'self'; connect-src 'self'; base-uri 'none'; \
                              form-action 'none'; frame-ancestors 'none'";
/// Headers of every response.
const HEADERS: [(header::HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// The most open connections; further ones wait in the kernel's queue. A scraper needs one.
pub const CONNECTIONS_MAX: usize = 64;
/// Bytes that may wait in a connection for a slow client. The rest waits at its source.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// A client that accepts no data for this long is considered gone; it may reconnect.
const TAKING_WAIT: Duration = Duration::from_secs(30);
/// A client that does not send its headers within this time is dropped, so that idle connections
/// can't use up all places.
const HEADERS_WAIT: Duration = Duration::from_secs(10);
/// Pause after the kernel refused a connection (no file handles), because handles may be freed.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// A response with status 200 and metrics in Prometheus' text format.
pub fn metrics(text: String) -> Response {
    ([(header::CONTENT_TYPE, METRICS)], text).into_response()
}

/// Binds an address, so that a used port is an error at the start.
///
/// # Errors
///
/// The operating system's error, with the address and its purpose.
pub async fn bind(purpose: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let kind = error.kind();
        let advice = if kind == io::ErrorKind::AddrInUse {
            ": the port is in use, choose another or stop its owner"
        } else if kind == io::ErrorKind::PermissionDenied {
            ": ports below 1024 need privileges"
        } else {
            ""
        };
        anyhow::anyhow!("can't listen on {address} for {purpose}{advice} ({error})")
    })
}

/// Serves the routes on the listener until the process ends. Responses are compressed for clients
/// that ask for it; other paths get 404, and other methods than GET and HEAD get 405.
///
/// The server is not tracked by the lifecycle, because a draining service must still be observable.
pub fn serve(listener: TcpListener, routes: Router) {
    serve_as_given(listener, complete(routes));
}

/// Serves routes that bring their own answers where no route fits, with the same limits for slow and
/// idle clients.
pub fn serve_as_given(listener: TcpListener, routes: Router) {
    serve_opened(listener, routes, |stream| ready(Ok(stream)));
}

/// The same on connections that something is done to first, as a handshake of TLS. One that can't be
/// opened is dropped; `open` bounds how long that takes.
pub fn serve_opened<S, F>(
    listener: TcpListener,
    routes: Router,
    open: impl Fn(TcpStream) -> F + Send + 'static,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let service = TowerToHyperService::new(routes);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        // The semaphore is never closed, so the loop ends only with the runtime.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (service, opening) = (service.clone(), open(stream));
                    tokio::spawn(async move {
                        match opening.await {
                            Ok(stream) => serve_connection(stream, service).await,
                            Err(error) => tracing::debug!(%error, "a connection was not opened"),
                        }
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

/// Adds what all routes have in common.
fn complete(routes: Router) -> Router {
    routes
        .fallback(refuse)
        .method_not_allowed_fallback(refuse)
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(map_response(|mut response: Response| {
            response.headers_mut().extend(HEADERS);
            ready(response)
        }))
}

/// The response if no route matches.
fn refuse(method: Method) -> impl Future<Output = (StatusCode, &'static str)> {
    ready(if method == Method::GET || method == Method::HEAD {
        (StatusCode::NOT_FOUND, "no such page\n")
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n")
    })
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    service: TowerToHyperService<Router>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(TAKING_WAIT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT)
        .max_buf_size(WAITING_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::{Body, Bytes};
    use axum::extract::RawQuery;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::*;

    const CLOSE: &str = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    async fn serve_here(routes: Router) -> SocketAddr {
        let listener = bind("tests", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(listener, routes);
        address
    }

    async fn request(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }

    #[tokio::test]
    async fn a_request_is_answered_by_its_route() {
        let address = serve_here(Router::new().route(
            "/here",
            get(|RawQuery(query)| ready(metrics(format!("query={}\n", query.unwrap())))),
        ))
        .await;
        let found = request(address, &format!("GET /here?a=b {CLOSE}")).await;
        assert!(found.starts_with("HTTP/1.1 200"), "{found}");
        assert!(found.contains("content-type: text/plain; version=0.0.4"), "{found}");
        assert!(found.ends_with("query=a=b\n"), "{found}");
        let head = request(address, &format!("HEAD /here?a=b {CLOSE}")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let missing = request(address, &format!("GET /there {CLOSE}")).await;
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
        assert!(missing.ends_with("\r\n\r\nno such page\n"), "{missing}");
        for path in ["/here", "/there"] {
            let refused = request(address, &format!("DELETE {path} {CLOSE}")).await;
            assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
            assert!(refused.ends_with("\r\n\r\nGET and HEAD only\n"), "{refused}");
        }
        for answer in [found, head, missing] {
            assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
            assert!(answer.contains("cache-control: no-store"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_compressed_only_for_a_client_that_asks_for_it() {
        let text = "lakegauge 1\n".repeat(1_000);
        let length = text.len();
        let routes = Router::new().route("/", get(move || ready(metrics(text))));
        let address = serve_here(routes).await;
        let plain = request(address, &format!("GET / {CLOSE}")).await;
        assert!(plain.len() > length && !plain.contains("content-encoding"), "{plain}");
        let asking = CLOSE.replacen("host: x", "host: x\r\naccept-encoding: gzip", 1);
        let packed = request(address, &format!("GET / {asking}")).await;
        assert!(packed.contains("content-encoding: gzip\r\n"), "{packed}");
        assert!(packed.contains("content-type: text/plain; version=0.0.4"), "{packed}");
        assert!(packed.len() < length / 4, "{}", packed.len());
    }

    #[tokio::test]
    async fn parts_are_sent_as_they_come() {
        let (give, given) = tokio::sync::mpsc::channel::<Bytes>(1);
        let given = Arc::new(std::sync::Mutex::new(Some(given)));
        let routes = Router::new().route(
            "/",
            get(async move || {
                let given = given.lock().unwrap().take().unwrap();
                let parts = futures_util::stream::unfold(given, |mut given| async move {
                    Some((Ok::<_, Infallible>(given.recv().await?), given))
                });
                ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(parts))
            }),
        );
        let mut stream = TcpStream::connect(serve_here(routes).await).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut read = String::new();
        // The second part does not exist yet when the first one arrives.
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
    }

    /// Sends a request over a connection that stays open.
    async fn ask_again(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_answer(stream).await;
    }

    async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) {
        let mut response = Vec::new();
        while !response.ends_with(b"answer") {
            assert_ne!(stream.read_buf(&mut response).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn one_client_more_than_there_are_places_for_waits_until_another_leaves() {
        let address = serve_here(Router::new().route("/", get("answer"))).await;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut client = TcpStream::connect(address).await.unwrap();
            ask_again(&mut client).await;
            clients.push(client);
        }
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        for client in &mut clients {
            ask_again(client).await;
        }
        let read = waiting.try_read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(io::ErrorKind::WouldBlock));
        clients.pop();
        read_answer(&mut waiting).await;
    }

    /// The client's end of a connection with a small buffer, and the server's future for the other
    /// end.
    fn connect() -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = duplex(16);
        let routes = complete(Router::new().route("/", get("answer")));
        (ours, tokio::spawn(serve_connection(theirs, TowerToHyperService::new(routes))))
    }

    /// Waits until a connection is closed by the server, which must happen after this time.
    async fn given_up_after(wait: Duration, mut served: JoinHandle<()>) {
        let second = Duration::from_secs(1);
        assert!(timeout(wait - second, &mut served).await.is_err(), "earlier");
        timeout(2 * second, served).await.expect("later").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_send_its_headers_is_given_up() {
        let (mut stream, served) = connect();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        given_up_after(HEADERS_WAIT, served).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_idle_after_an_answer_is_given_up() {
        let (mut stream, served) = connect();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_answer(&mut stream).await;
        given_up_after(HEADERS_WAIT, served).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_given_up_and_one_that_takes_slowly_is_not() {
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let (mut stream, served) = connect();
        stream.write_all(request).await.unwrap();
        given_up_after(TAKING_WAIT, served).await;

        let (mut stream, served) = connect();
        stream.write_all(request).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"answer") {
            sleep(TAKING_WAIT - Duration::from_secs(1)).await;
            assert_ne!(stream.read_buf(&mut response).await.unwrap(), 0);
        }
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_says_so() {
        let first = bind("tests", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("metrics", address).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{address} for metrics: the port is in use")), "{error}");
    }
}
