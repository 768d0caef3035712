//! Reads the body of a request. The limit is on the decompressed size, so that a small compressed
//! body can't fill the memory.

use std::io;
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header::CONTENT_ENCODING};
use futures_util::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::StreamReader;

use super::answer::NotTaken;

/// The longest time in which a body must arrive completely. After that time the request is answered
/// with an error, and the sender repeats it.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// The largest zstd window for which memory is reserved, as a power of two. RFC 9659 allows senders
/// this size over HTTP. Without the limit, a compressed body could demand 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The decompressed bytes of a body, at most `bytes_max` of them.
///
/// # Errors
///
/// The answer to a request whose body is too large, too slow, damaged or in an unknown encoding.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Vec<u8>, NotTaken> {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    let packed = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let reading = async {
        match encoding.unwrap_or("identity").trim() {
            "identity" | "" => bounded(packed, bytes_max).await,
            "gzip" | "x-gzip" => {
                let mut decoder = GzipDecoder::new(packed);
                decoder.multiple_members(true);
                bounded(decoder, bytes_max).await
            }
            "zstd" => {
                let window = DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX);
                let mut decoder = ZstdDecoder::with_params(packed, &[window]);
                decoder.multiple_members(true);
                bounded(decoder, bytes_max).await
            }
            other => Err(NotTaken(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "Content-Encoding {other} is not known here: send it plain, or packed by gzip \
                     or zstd"
                ),
            )),
        }
    };
    tokio::time::timeout(BODY_WAIT, reading).await.unwrap_or_else(|_| {
        let why = format!("the body did not come within {} s", BODY_WAIT.as_secs());
        Err(NotTaken(StatusCode::REQUEST_TIMEOUT, why))
    })
}

async fn bounded(reader: impl AsyncRead, bytes_max: usize) -> Result<Vec<u8>, NotTaken> {
    let mut bytes = Vec::new();
    let one_more = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut reader = std::pin::pin!(reader.take(one_more));
    reader.read_to_end(&mut bytes).await.map_err(|error| {
        NotTaken(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}"))
    })?;
    if bytes.len() > bytes_max {
        return Err(NotTaken(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "it has more than {bytes_max} bytes unpacked (COLLECT_BODY_BYTES_MAX): send less \
                 at a time"
            ),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::{Router, extract::Request, response::IntoResponse as _, routing::post};
    use flate2::{Compression, write::GzEncoder};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    const BYTES_MAX: usize = 1_000;

    /// Status and text of the answer to a body. If the body could be read, the text is the body.
    async fn answer(encoding: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let echo =
            async |headers: HeaderMap, body: Body| match read(&headers, body, BYTES_MAX).await {
                Ok(bytes) => bytes.into_response(),
                Err(not_taken) => not_taken.into_response(),
            };
        let router = Router::new().route("/", post(echo));
        let request = Request::post("/").header(CONTENT_ENCODING, encoding);
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    #[tokio::test]
    async fn a_body_is_unpacked_by_its_header() {
        let body = b"{\"Records\":[]}";
        let two_members = [gzip(&body[..5]), gzip(&body[5..])].concat();
        for (encoding, packed) in [
            ("identity", body.to_vec()),
            ("gzip", gzip(body)),
            ("gzip", two_members),
            ("x-gzip", gzip(body)),
            ("zstd", zstd(body)),
            ("zstd", [zstd(&body[..5]), zstd(&body[5..])].concat()),
        ] {
            assert_eq!(answer(encoding, &packed).await, (200, body.to_vec()), "{encoding}");
        }
        let (status, why) = answer("br", body).await;
        assert_eq!(status, 415);
        assert!(String::from_utf8(why).unwrap().contains("packed by gzip or zstd"));
        for (encoding, damaged) in
            [("gzip", &body[..]), ("gzip", &gzip(body)[..20]), ("zstd", &body[..])]
        {
            assert_eq!(answer(encoding, damaged).await.0, 400, "{encoding}");
        }
    }

    #[tokio::test]
    async fn a_window_that_takes_more_memory_than_http_allows_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"{}").unwrap();
        let (status, why) = answer("zstd", &encoder.finish().unwrap()).await;
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&why));
    }

    #[tokio::test]
    async fn a_body_that_grows_beyond_its_bound_is_refused_however_small_it_came() {
        let bomb = vec![0; 10_000_000];
        for (encoding, packed) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
            let (status, why) = answer(encoding, &packed).await;
            let why = String::from_utf8(why).unwrap();
            assert!(
                status == 413 && why.contains("more than 1000 bytes unpacked"),
                "{encoding} {why}"
            );
        }
        assert_eq!(answer("identity", &[0; BYTES_MAX]).await.0, 200);
        assert_eq!(answer("identity", &[0; BYTES_MAX + 1]).await.0, 413);
    }
}
