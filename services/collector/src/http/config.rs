//! The settings of `collect http`, the receiver.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use bus::service::BusConfig;
use service_kit::Secret;

use super::tls::Tls;
use crate::sources::S3Sources;

service_kit::settings! {
    /// The settings of the receiver.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub(crate) bus: BusConfig = bus::service::load("collector"),
        /// Address and port where other systems post what they report. Beyond this machine set
        /// COLLECT_TLS_CERT_FILE, or put a proxy before it that speaks TLS: the token goes over the
        /// wire as it is.
        #[setting(COLLECT_HTTP_ADDR, "http-addr", default = "127.0.0.1:8020")]
        pub(crate) http_addr: SocketAddr,
        /// PEM file with the certificate of the port and those that it is signed by; with it the port
        /// speaks TLS. New connections take a renewed file.
        #[setting(COLLECT_TLS_CERT_FILE, "tls-cert-file")]
        pub(crate) tls_certificate_file: Option<PathBuf> = optional,
        /// PEM file with the private key of COLLECT_TLS_CERT_FILE.
        #[setting(COLLECT_TLS_KEY_FILE, "tls-key-file")]
        pub(crate) tls_key_file: Option<PathBuf> = optional,
        /// Token that every request must bring (Authorization: Bearer …). Without one only an address
        /// of this machine may be listened on.
        #[secret(COLLECT_TOKEN, "token")]
        pub(crate) token: Option<Secret> = secret,
        /// Name of the source: part of the subject, and who sent an event in the archive.
        #[setting(COLLECT_SOURCE, "source", default = "s3")]
        pub(crate) source: String = parse_by(wire::source_name),
        /// What S3 stores report through: events (notifications only), events-and-audit (changes by
        /// notifications, reads and failures by audit records), audit (everything by audit records;
        /// used space is then not known of uploads in parts and of copies).
        #[setting(COLLECT_S3_REPORTS, "s3-reports", default = "events")]
        pub(crate) s3_reports: S3Sources = choice(&S3Sources::CHOICES),
        /// Bytes that a request may have, unpacked.
        #[setting(COLLECT_BODY_BYTES_MAX, "body-bytes-max", default = "8388608")]
        pub(crate) body_bytes_max: usize,
        /// How long a request waits until the broker has stored what it brought; then it is answered
        /// with 503, and the sender tries again.
        #[setting(COLLECT_ACK_WAIT_MS, "ack-wait-ms", default = "5000")]
        pub(crate) ack_wait: Duration = duration_ms,
    }
}

impl Config {
    /// Checks that the receiver may listen on the configured address.
    ///
    /// # Errors
    ///
    /// Other machines can reach the address, but no token is set.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.token.is_some() || self.http_addr.ip().is_loopback(),
            "COLLECT_HTTP_ADDR: {} can be reached from other machines, so set COLLECT_TOKEN (or \
             COLLECT_TOKEN_FILE) as well",
            self.http_addr
        );
        Ok(())
    }

    /// Whether a setting is set that only a receiver needs.
    pub fn is_set(&self) -> bool {
        self.token.is_some() || self.tls_certificate_file.is_some() || self.tls_key_file.is_some()
    }

    /// Checks that the token, if one is set, can be read now.
    ///
    /// # Errors
    ///
    /// The token's file can't be read.
    pub fn check_token(&self) -> anyhow::Result<()> {
        let Some(token) = &self.token else { return Ok(()) };
        token.read().map(drop).map_err(|error| anyhow::anyhow!("COLLECT_TOKEN_FILE: {error}"))
    }

    /// The address on which the receiver listens.
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The certificate and its key; `None` if the port has no TLS.
    ///
    /// # Errors
    ///
    /// Only one of the two files is set, or the files can't be used.
    pub fn tls(&self) -> anyhow::Result<Option<Tls>> {
        match (&self.tls_certificate_file, &self.tls_key_file) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Tls::read(certificate, key).context("COLLECT_TLS_CERT_FILE").map(Some)
            }
            (Some(_), None) | (None, Some(_)) => {
                anyhow::bail!("COLLECT_TLS_CERT_FILE and COLLECT_TLS_KEY_FILE must be set together")
            }
        }
    }
}
