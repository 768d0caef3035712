//! What can go wrong on the bus, and what to do about it.

use domain::Mismatch;

/// What the caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The same call may succeed later: try again with backoff.
    Retry,
    /// This one thing can't be had; go on without it.
    Skip,
    /// Only a person can change this: stop and say so.
    Stop,
}

/// Why a call to the bus failed. No text contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No connection could be made.
    #[error("can't reach NATS at {server}: {detail}; is the server running and the address right?")]
    Unreachable {
        /// The address, without user and password.
        server: String,
        /// What the client said.
        detail: String,
    },
    /// The server refused who we are.
    #[error("NATS at {server} refused the login ({detail}): {remedy}")]
    Refused {
        /// The address, without user and password.
        server: String,
        /// What the client said.
        detail: String,
        /// What to do, with the setting's name.
        remedy: String,
    },
    /// A setting can't be used.
    #[error("{key}: {detail}")]
    Setting {
        /// The setting's key.
        key: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The server is older than what this crate needs.
    #[error(
        "NATS server {server} is version {found}, at least {needed} is needed: older ones ignore \
         stream options without a word; upgrade nats-server"
    )]
    OldServer {
        /// The address, without user and password.
        server: String,
        /// Its version.
        found: String,
        /// The oldest version that will do.
        needed: &'static str,
    },
    /// The server takes too little as one message.
    #[error("NATS at {server} {detail}")]
    SmallPayload {
        /// The address, without user and password.
        server: String,
        /// How much it takes, how much is needed, and what to do.
        detail: String,
    },
    /// The server or the account has no JetStream.
    #[error(
        "JetStream did not answer {what}: enable it in nats-server.conf (jetstream {{ … }}) and for \
         the account, and permit $JS.API.> to this user"
    )]
    NoJetStream {
        /// What was asked.
        what: String,
    },
    /// There is no such stream.
    #[error("stream {stream} does not exist; `lakegauge doctor` says what is there")]
    NoStream {
        /// Its name on the server.
        stream: String,
    },
    /// An existing stream can't serve, and changing it is not for us.
    #[error("stream {stream} can't be used: {detail}")]
    UnfitStream {
        /// Its name on the server.
        stream: String,
        /// Which option, and what to do.
        detail: String,
    },
    /// The server took a configuration and does not have it.
    #[error(
        "stream {stream}: the server ignored option {option}: asked for {asked}, got {got}; \
         upgrade nats-server"
    )]
    IgnoredOption {
        /// Its name on the server.
        stream: String,
        /// The option's name in the declaration.
        option: String,
        /// The value asked for, as JSON.
        asked: String,
        /// The value the server has, as JSON.
        got: String,
    },
    /// A stream does not fit into the space that the account or the server has.
    #[error("no room for stream {stream} ({detail}): {todo}")]
    NoRoom {
        /// Its name on the server.
        stream: String,
        /// What it asks for and what there is, or what the server said.
        detail: String,
        /// The settings that help.
        todo: String,
    },
    /// The server answered with an error.
    #[error("{what}: the server says: {detail} (code {code}, error code {error_code})")]
    Server {
        /// What was asked, with the stream or subject.
        what: String,
        /// The server's words.
        detail: String,
        /// In the manner of HTTP.
        code: u16,
        /// JetStream's own number.
        error_code: u64,
    },
    /// No answer in time, or the connection broke before it.
    #[error("{what}: no answer from NATS ({detail})")]
    NoAnswer {
        /// What was asked, with the stream or subject.
        what: String,
        /// What the client said.
        detail: String,
    },
    /// A message that the server will never take.
    #[error("message {message_id} for {subject} can't be published: {detail}")]
    Unpublishable {
        /// Where it was to go.
        subject: String,
        /// Its `Nats-Msg-Id`.
        message_id: String,
        /// Why.
        detail: String,
    },
    /// The user may not do this.
    #[error("NATS permissions: {detail}; permit it to this user in the server's configuration")]
    Forbidden {
        /// The server's words, with the subject.
        detail: String,
    },
    /// Sides that don't belong together.
    #[error("{0}")]
    Mismatch(Mismatch),
    /// Somebody else changed the value first.
    #[error("{what} was changed by another process: {detail}")]
    Superseded {
        /// Which value.
        what: String,
        /// What was expected and what is there.
        detail: String,
    },
    /// Bytes or an answer that can't be understood.
    #[error("{what} can't be understood: {detail}")]
    Garbled {
        /// What it is.
        what: String,
        /// Where it breaks.
        detail: String,
    },
    /// The reader or publisher has ended.
    #[error("{what} has ended")]
    Ended {
        /// Which, with its stream.
        what: String,
    },
}

impl From<Mismatch> for BusError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl BusError {
    /// Whether it passes by itself, so that the same may be tried again.
    pub fn is_transient(&self) -> bool {
        self.recovery() == Recovery::Retry
    }

    /// What to do about it.
    pub fn recovery(&self) -> Recovery {
        match self {
            // A stream can be missing because another service is still making it, and a store that
            // is full gets room when the archiver trims.
            Self::Unreachable { .. }
            | Self::NoJetStream { .. }
            | Self::NoStream { .. }
            | Self::NoAnswer { .. } => Recovery::Retry,
            Self::Server { code, .. } => server_recovery(*code),
            Self::Garbled { .. } | Self::Unpublishable { .. } => Recovery::Skip,
            Self::Refused { .. }
            | Self::Setting { .. }
            | Self::OldServer { .. }
            | Self::SmallPayload { .. }
            | Self::UnfitStream { .. }
            | Self::IgnoredOption { .. }
            | Self::NoRoom { .. }
            | Self::Forbidden { .. }
            | Self::Mismatch(_)
            | Self::Superseded { .. }
            | Self::Ended { .. } => Recovery::Stop,
        }
    }

    /// JetStream's own number, if the server answered with one.
    pub(crate) fn server_code(&self) -> Option<u64> {
        if let Self::Server { error_code, .. } = self { Some(*error_code) } else { None }
    }
}

/// Codes in the manner of HTTP: the server's troubles pass (a full stream is a 503, an overrun
/// queue a 429, a request timeout a 408), ours don't.
pub(crate) const fn server_recovery(code: u16) -> Recovery {
    match code {
        408 | 429 | 500..=599 => Recovery::Retry,
        _ => Recovery::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_retried_and_what_does_not_stops() {
        for (code, recovery) in [
            (503, Recovery::Retry),
            (429, Recovery::Retry),
            (500, Recovery::Retry),
            (400, Recovery::Stop),
            (404, Recovery::Stop),
        ] {
            let error = BusError::Server {
                what: "publish to lake.access.0.x".to_owned(),
                detail: "maximum bytes exceeded".to_owned(),
                code,
                error_code: 10_077,
            };
            assert_eq!(error.recovery(), recovery, "{code}");
        }
    }
}
