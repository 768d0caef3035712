//! The receiver's settings.

use std::{net::SocketAddr, time::Duration};

use bus::service::BusConfig;
use service_kit::Secret;

use crate::sources::S3Sources;

service_kit::settings! {
    /// What the receiver is told.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub(crate) bus: BusConfig = bus::service::load("collector"),
        /// Address and port where other systems post what they report. Beyond this machine put it
        /// behind a proxy that speaks TLS: the token goes over the wire as it is.
        #[setting(COLLECT_HTTP_ADDR, "http-addr", default = "127.0.0.1:8020")]
        pub(crate) http_addr: SocketAddr,
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
