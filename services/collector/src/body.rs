//! The body of a request: unpacked, and never larger than it may be.

use std::io::{self, Read};

use axum::http::{HeaderMap, header::CONTENT_ENCODING};
use flate2::read::MultiGzDecoder;

/// Why a body can't be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// A packing that is not known here.
    #[error("Content-Encoding {0} is not known here: send it plain, or packed by gzip or zstd")]
    Encoding(String),
    /// It is longer unpacked.
    #[error("it has more than {0} bytes unpacked (COLLECT_BODY_BYTES_MAX): send less at a time")]
    TooLong(usize),
    /// It is not what its header says.
    #[error("it can't be unpacked: {0}")]
    Damaged(#[from] io::Error),
}

/// The body without its packing, at most of a length in bytes.
///
/// # Errors
///
/// [`BodyError`]; nothing longer is ever held in memory.
pub(crate) fn unpacked(
    headers: &HeaderMap,
    body: &[u8],
    bytes_max: usize,
) -> Result<Vec<u8>, BodyError> {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
    match encoding.unwrap_or("identity").trim() {
        "identity" | "" => bounded(body, bytes_max),
        "gzip" | "x-gzip" => bounded(MultiGzDecoder::new(body), bytes_max),
        "zstd" => bounded(zstd::Decoder::new(body)?, bytes_max),
        other => Err(BodyError::Encoding(other.to_owned())),
    }
}

fn bounded(reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    let one_more = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(BodyError::TooLong(bytes_max)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn packed(by: &'static str, body: &[u8]) -> Result<Vec<u8>, BodyError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, by.parse().unwrap());
        unpacked(&headers, body, 1_000)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_is_unpacked_by_its_header() {
        let body = b"{\"Records\":[]}";
        assert_eq!(unpacked(&HeaderMap::new(), body, 1_000).unwrap(), body);
        assert_eq!(packed("gzip", &gzip(body)).unwrap(), body);
        assert_eq!(packed("zstd", &zstd::encode_all(&body[..], 1).unwrap()).unwrap(), body);
        assert!(matches!(packed("br", body), Err(BodyError::Encoding(_))));
        assert!(matches!(packed("gzip", body), Err(BodyError::Damaged(_))));
        assert!(matches!(packed("zstd", body), Err(BodyError::Damaged(_))));
        assert!(matches!(packed("gzip", &gzip(body)[..20]), Err(BodyError::Damaged(_))));
    }

    #[test]
    fn a_body_that_grows_beyond_its_bound_is_refused_however_small_it_came() {
        let bomb = vec![0; 10_000_000];
        for (by, body) in [("gzip", gzip(&bomb)), ("zstd", zstd::encode_all(&bomb[..], 1).unwrap())]
        {
            assert!(matches!(packed(by, &body), Err(BodyError::TooLong(1_000))), "{by}");
        }
        assert!(unpacked(&HeaderMap::new(), &[0; 1_000], 1_000).is_ok());
        assert!(unpacked(&HeaderMap::new(), &[0; 1_001], 1_000).is_err());
    }
}
