//! TLS by two files, as certificates are renewed: what is written there later is taken by the next
//! connection.

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

/// A client that does not finish its handshake within this time is dropped.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// A certificate and its key, in two files.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

/// What was read last.
#[derive(Debug)]
struct Current {
    acceptor: TlsAcceptorOf,
    stamp: Stamp,
}

/// The acceptor, which says nothing of itself.
#[derive(Clone)]
struct TlsAcceptorOf(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// What tells other bytes in the two files without reading them.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// A file can't be read, holds no certificate or no key, or the two don't belong together.
    pub fn read(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let stamp = stamp(certificate, key);
        let acceptor = acceptor(certificate, key)?;
        let current = Mutex::new(Current { acceptor, stamp });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Speaks TLS on a connection, by the files as they are now.
    ///
    /// # Errors
    ///
    /// The client's handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let TlsAcceptorOf(acceptor) = self.acceptor();
        let accepting = acceptor.accept(stream);
        tokio::time::timeout(HANDSHAKE_WAIT, accepting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The acceptor of the newest files that belong together. Files that are being written are read
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
