//! TLS with a certificate and a key from two files. Certificates are renewed by replacing the
//! files, so each new connection uses the current files.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};

/// The longest time for a client's TLS handshake. After that time the connection is dropped.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// A certificate and its private key, in two files.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

/// The result of the last successful read.
#[derive(Debug)]
struct Current {
    acceptor: TlsAcceptorOf,
    stamp: Stamp,
}

/// The acceptor, wrapped because it does not implement `Debug`.
#[derive(Clone)]
struct TlsAcceptorOf(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// Time of the last change and length of each file. They show whether a file has changed, without
/// reading the file.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// A file can't be read, contains no certificate or no key, or the two don't belong together.
    pub fn read(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let stamp = stamp(certificate, key);
        let acceptor = acceptor(certificate, key)?;
        let current = Mutex::new(Current { acceptor, stamp });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Performs the TLS handshake on a connection, with the current files.
    ///
    /// # Errors
    ///
    /// The handshake with the client failed or took too long.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let TlsAcceptorOf(acceptor) = self.acceptor();
        let accepting = acceptor.accept(stream);
        tokio::time::timeout(HANDSHAKE_WAIT, accepting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The acceptor for the newest files that belong together. If the files can't be used, for
    /// example while they are being written, the previous acceptor remains, and the files are read
    /// again at the next connection.
    fn acceptor(&self) -> TlsAcceptorOf {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.certificate, &self.key);
        if stamp != current.stamp {
            match acceptor(&self.certificate, &self.key) {
                Ok(acceptor) => {
                    tracing::info!(certificate = %self.certificate.display(), "new certificate");
                    *current = Current { acceptor, stamp };
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the certificate that was read before is still used");
                }
            }
        }
        current.acceptor.clone()
    }
}

fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptorOf> {
    let open =
        |path: &Path| File::open(path).with_context(|| format!("{} can't be read", path.display()));
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_reader_iter(open(certificate)?)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} holds no certificate in PEM", certificate.display()))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "{} holds no certificate in PEM",
        certificate.display()
    );
    let private = PrivateKeyDer::from_pem_reader(open(key)?)
        .with_context(|| format!("{} holds no private key in PEM", key.display()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .with_context(|| {
            format!("{} and {} don't belong together", certificate.display(), key.display())
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptorOf(TlsAcceptor::from(Arc::new(config))))
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let of = |metadata: Metadata| Some((metadata.modified().ok()?, metadata.len()));
    [certificate, key].map(|path| fs::metadata(path).ok().and_then(of))
}
