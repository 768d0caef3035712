//! The connection: login, the server's version, and whether there is a connection now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::{AuthError, ConnectOptions, Event, ServerError, connection::State, jetstream};
use domain::PipelineId;
use service_kit::Clock;
use tokio::sync::watch;
use wire::PAYLOAD_BYTES_MIN;

use crate::{
    error::BusError,
    login::LoginState,
    outage::{Outage, Outages},
    settings::BusSettings,
};

/// The oldest server that refuses unknown options instead of ignoring them.
const SERVER_NEEDED: (u32, u32) = (2, 12);
const SERVER_NEEDED_TEXT: &str = "2.12";

/// Bytes of headers within the server's limit for one message: type and id, and what a bucket adds
/// for compare-and-set.
const HEADERS_BYTES_MAX: usize = 512;

/// Messages whose acknowledgements the client tracks. Above every window of a
/// [`crate::Publisher`], so that the client's own limit, which deadlocks, is never reached.
const ACK_INFLIGHT_MAX: usize = 65_536;

/// Refused subjects that are remembered; a service publishes to a handful.
const DENIALS_MAX: usize = 64;

/// Time after which a connection that is down is checked again, in addition to the client's events.
const CONNECTION_POLL: Duration = Duration::from_millis(250);

/// A connection to NATS. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) context: jetstream::Context,
    client: async_nats::Client,
    state: Arc<ConnectionState>,
    settings: Arc<BusSettings>,
}

/// What the client's events reported.
#[derive(Debug)]
struct ConnectionState {
    /// Increased at each (re)connection.
    generation: watch::Sender<u64>,
    /// The server's messages, by subject that this user may not publish or subscribe to.
    denials: Mutex<BTreeMap<String, String>>,
    /// The first pipeline that this connection saw.
    pipeline: OnceLock<PipelineId>,
    /// Why there is no connection.
    outages: Outages,
}

impl Bus {
    /// Connects, logs in and checks the server's version. Afterwards the client reconnects by
    /// itself, without a limit, and reads the login again at each attempt.
    ///
    /// # Errors
    ///
    /// [`BusError::Unreachable`] while there is no server (worth a retry); [`BusError::Refused`],
    /// [`BusError::Setting`] and [`BusError::OldServer`] for what only a person can correct.
    pub async fn connect(settings: &BusSettings) -> Result<Self, BusError> {
        Self::connect_first(settings, true).await
    }

    /// The first connection of a process, or a further one, which does not log outages again.
    async fn connect_first(settings: &BusSettings, is_first: bool) -> Result<Self, BusError> {
        let state = Arc::new(ConnectionState {
            generation: watch::Sender::new(0),
            denials: Mutex::new(BTreeMap::new()),
            pipeline: OnceLock::new(),
            outages: Outages::new(Clock::system(), LoginState::of(settings), is_first),
        });
        let addresses =
            settings.addresses().map_err(|detail| BusError::Setting { key: "NATS_URL", detail })?;
        let options = options(settings, Arc::clone(&state))?;
        let client = options
            .connect(addresses.servers)
            .await
            .map_err(|error| connect_error(&error, settings))?;
        let found = client.server_info().version;
        if !new_enough(&found) {
            return Err(BusError::OldServer {
                server: settings.shown_url(),
                found,
                needed: SERVER_NEEDED_TEXT,
            });
        }
        if let Some(detail) = small_payload(client.max_payload()) {
            return Err(BusError::SmallPayload { server: settings.shown_url(), detail });
        }
        // The event of this first connection arrives later. Readers take every event after that for
        // a reconnect, so wait for the first one.
        let mut generation = state.generation.subscribe();
        let first = generation.wait_for(|generation| *generation > 0);
        let _told_or_lost = tokio::time::timeout(settings.connect_timeout, first).await;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(settings.request_timeout)
            .max_ack_inflight(ACK_INFLIGHT_MAX)
            .build(client.clone());
        Ok(Self { context, client, state, settings: Arc::new(settings.clone()) })
    }

    /// Another connection to the same server with the same login, for a task that may break its
    /// connection.
    ///
    /// # Errors
    ///
    /// The errors of [`Bus::connect`]. A login that is refused or can't be read is worth a retry
    /// here, because the login was valid before and is probably being rotated.
    pub(crate) async fn another(&self, purpose: &str) -> Result<Self, BusError> {
        let mut settings = BusSettings::clone(&self.settings);
        settings.name = format!("{}: {purpose}", settings.name);
        Self::connect_first(&settings, false).await.map_err(|error| {
            if matches!(error, BusError::Refused { .. } | BusError::Setting { .. }) {
                let what = format!("another connection, for {purpose}");
                BusError::NoAnswer { what, detail: error.to_string() }
            } else {
                error
            }
        })
    }

    /// The version that the server reports.
    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }

    /// Size of the largest message that is created, in bytes: less than [`wire::MESSAGE_BYTES_MAX`]
    /// if the server accepts less. The server reports its limit at each connection.
    pub fn message_bytes_max(&self) -> usize {
        wire::MESSAGE_BYTES_MAX.min(self.taken_bytes_max())
    }

    /// Size of the largest message that the server accepts, in bytes, headers included
    /// (`max_payload`).
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// The same without our headers.
    pub(crate) fn taken_bytes_max(&self) -> usize {
        self.max_payload().saturating_sub(HEADERS_BYTES_MAX)
    }

    /// Whether there is a connection now, as far as the client knows.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Why there is no connection; `None` while there is one.
    pub fn outage(&self) -> Option<Outage> {
        self.state.outages.now().filter(|_| !self.is_connected())
    }

    /// A number that increases with each reconnection: what was known about streams may be
    /// outdated.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.state.generation.subscribe()
    }

    /// The name of a stream on the server, with the prefix, for logs and people.
    pub fn server_name(&self, stream: &str) -> String {
        server_name(&self.settings.subject_prefix, stream)
    }

    /// A subject with the prefix.
    pub fn subject(&self, subject: &str) -> String {
        prefixed_subject(&self.settings.subject_prefix, subject)
    }

    /// What the server refused on this connection so far, in its own words, which contain the
    /// subject. To the caller, a refused request looks like one without an answer.
    pub fn denials(&self) -> Vec<String> {
        let denials = self.state.denials.lock().unwrap_or_else(PoisonError::into_inner);
        denials.values().cloned().collect()
    }

    pub(crate) fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// A name that nothing else has.
    pub(crate) fn unique_name(&self) -> String {
        let inbox = self.client.new_inbox();
        inbox.rsplit('.').next().unwrap_or_default().to_owned()
    }

    /// The first pipeline that this connection saw.
    pub(crate) fn first_pipeline(&self) -> &OnceLock<PipelineId> {
        &self.state.pipeline
    }

    pub(crate) fn settings(&self) -> &BusSettings {
        &self.settings
    }

    /// Returns when there is a connection.
    pub(crate) async fn connected(&self) {
        let mut generation = self.state.generation.subscribe();
        while !self.is_connected() {
            // The client may drop events, so check the state too.
            let _changed_or_not = tokio::time::timeout(CONNECTION_POLL, generation.changed()).await;
        }
    }

    /// Why the server refuses this subject, if it reported that.
    pub(crate) fn denial(&self, subject: &str) -> Option<String> {
        self.state.denials.lock().unwrap_or_else(PoisonError::into_inner).get(subject).cloned()
    }
}

impl ConnectionState {
    fn note(&self, event: &Event) {
        self.outages.note(event);
        match event {
            Event::Connected => {
                // Permissions may have changed while the connection was down.
                self.denials.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.generation.send_modify(|generation| *generation += 1);
                tracing::info!("connected to NATS");
            }
            Event::ServerError(ServerError::Other(text)) => {
                if let Some(subject) = denied(text) {
                    let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
                    if denials.len() < DENIALS_MAX {
                        denials.insert(subject, text.clone());
                    }
                }
                tracing::warn!(error = text, "NATS reported an error");
            }
            Event::Disconnected => tracing::warn!("lost the connection to NATS; reconnecting"),
            // Only this program ends a connection for good, and failed attempts are reported by the
            // outage.
            Event::Draining | Event::Closed | Event::ClientError(_) => {
                tracing::debug!(%event, "NATS connection");
            }
            Event::LameDuckMode
            | Event::SlowConsumer(_)
            | Event::ServerError(
                ServerError::AuthorizationViolation | ServerError::SlowConsumer(_),
            ) => tracing::warn!(%event, "NATS connection"),
        }
    }
}

fn options(
    settings: &BusSettings,
    state: Arc<ConnectionState>,
) -> Result<ConnectOptions, BusError> {
    if let Some(problem) = settings.problems().into_iter().next() {
        return Err(BusError::Setting { key: problem.key, detail: problem.detail });
    }
    let login = LoginState::of(settings);
    // A problem with a file is reported with the file's name, not as a refused login.
    login
        .read(&[])
        .map_err(|problem| BusError::Setting { key: problem.key, detail: problem.detail })?;
    let told = Arc::clone(&state);
    let mut options = ConnectOptions::with_auth_callback(move |nonce| {
        let read = login.read(&nonce);
        told.outages.read(&read);
        std::future::ready(read.map_err(|problem| AuthError::new(problem.detail)))
    })
    .name(&settings.name)
    .custom_inbox_prefix(&settings.inbox_prefix)
    .connection_timeout(settings.connect_timeout)
    .request_timeout(Some(settings.request_timeout))
    .ping_interval(settings.ping_interval)
    .event_callback(move |event| {
        state.note(&event);
        std::future::ready(())
    });
    // The client reads these files again at each attempt.
    if let Some(path) = &settings.ca_file {
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate_file, &settings.key_file) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

fn connect_error(error: &async_nats::ConnectError, settings: &BusSettings) -> BusError {
    use async_nats::ConnectErrorKind;
    let server = settings.shown_url();
    let detail = error.to_string();
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            BusError::Refused { server, detail, remedy: LoginState::of(settings).remedy() }
        }
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Tls
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => BusError::Unreachable { server, detail },
    }
}

/// Describes a server's limit for one message if it is too small.
pub(crate) fn small_payload(max_payload: usize) -> Option<String> {
    (max_payload < PAYLOAD_BYTES_MIN).then(|| {
        format!(
            "takes messages of at most {max_payload} bytes (max_payload), which is less than one \
             event can need; set max_payload in nats-server.conf to {PAYLOAD_BYTES_MIN} or more \
             (1MB is its default) and reload or restart nats-server"
        )
    })
}

/// `true` for versions from 2.12 on. A version that can't be read is refused.
fn new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches('v')
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found >= SERVER_NEEDED
}

/// The subject in `Permissions Violation for Publish to "lake.access.0.x"`, or in the same message
/// about a subscription.
fn denied(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let start = ["publish", "subscription"]
        .iter()
        .find_map(|verb| lower.find(&format!("permissions violation for {verb} to \"")))?;
    let mut quoted = text.get(start..)?.split('"');
    quoted.next()?;
    quoted.next().map(str::to_owned)
}

pub(crate) fn server_name(prefix: &str, stream: &str) -> String {
    if prefix.is_empty() {
        stream.to_owned()
    } else {
        format!("{}_{stream}", prefix.replace('.', "_"))
    }
}

pub(crate) fn prefixed_subject(prefix: &str, subject: &str) -> String {
    if prefix.is_empty() { subject.to_owned() } else { format!("{prefix}.{subject}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_2_12_are_too_old() {
        for version in ["2.12.0", "2.15.1", "v2.12.0", "2.15.0-dev", "3.0.0"] {
            assert!(new_enough(version), "{version}");
        }
        for version in ["2.9.10", "2.11.9", "1.4", "", "unknown"] {
            assert!(!new_enough(version), "{version}");
        }
    }

    #[test]
    fn the_refused_subject_is_found_in_the_servers_words() {
        let text = "Permissions Violation for Publish to \"lake.access.0.x\"";
        assert_eq!(denied(text), Some("lake.access.0.x".to_owned()));
        let text = "Permissions Violation for Subscription to \"_INBOX.x.*\"";
        assert_eq!(denied(text), Some("_INBOX.x.*".to_owned()));
        assert_eq!(denied("Stale Connection"), None);
    }

    #[test]
    fn a_prefix_stands_before_streams_and_subjects() {
        assert_eq!(server_name("", "LAKE_0"), "LAKE_0");
        assert_eq!(server_name("acme.eu", "LAKE_0"), "acme_eu_LAKE_0");
        assert_eq!(prefixed_subject("acme.eu", "lake.late.0"), "acme.eu.lake.late.0");
    }
}
