//! What can go wrong on the bus, and what to do about it.

use domain::Mismatch;

/// What the caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The same call may succeed later: try again with backoff.
    Retry,
    /// This one thing is not available; continue without it.
    Skip,
    /// Only a person can correct this: stop and report it.
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
        /// The client's error.
        detail: String,
    },
    /// The server refused our login.
    #[error("NATS at {server} refused the login ({detail}): {remedy}")]
    Refused {
        /// The address, without user and password.
        server: String,
        /// The client's error.
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
    /// The server is older than this crate needs.
    #[error(
        "NATS server {server} is version {found}, at least {needed} is needed: older servers \
         silently ignore stream options; upgrade nats-server"
    )]
    OldServer {
        /// The address, without user and password.
        server: String,
        /// The server's version.
        found: String,
        /// The oldest version that is sufficient.
        needed: &'static str,
    },
    /// The server's limit for one message is too small.
    #[error("NATS at {server} {detail}")]
    SmallPayload {
        /// The address, without user and password.
        server: String,
        /// The limit, how much is needed, and what to do.
        detail: String,
    },
    /// The server or the account has no JetStream.
    #[error(
        "JetStream did not answer {what}: enable it in nats-server.conf (jetstream {{ … }}) and for \
         the account, and permit $JS.API.> to this user"
    )]
    NoJetStream {
        /// The request.
        what: String,
    },
    /// There is no such stream.
    #[error("stream {stream} does not exist; `lakegauge doctor` shows what exists")]
    NoStream {
        /// The stream's name on the server.
        stream: String,
    },
    /// An existing stream can't be used, and this program must not change it.
    #[error("stream {stream} can't be used: {detail}")]
    UnfitStream {
        /// The stream's name on the server.
        stream: String,
        /// Which option, and what to do.
        detail: String,
    },
    /// The server accepted a configuration but did not apply it.
    #[error(
        "stream {stream}: the server ignored option {option}: asked for {asked}, got {got}; \
         upgrade nats-server"
    )]
    IgnoredOption {
        /// The stream's name on the server.
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
        /// The stream's name on the server.
        stream: String,
        /// The size asked for and the space that exists, or the server's error.
        detail: String,
        /// The settings that help.
        todo: String,
    },
    /// The server answered with an error.
    #[error("{what}: the server says: {detail} (code {code}, error code {error_code})")]
    Server {
        /// The request, with the stream or subject.
        what: String,
        /// The server's message.
        detail: String,
        /// A code like HTTP's.
        code: u16,
        /// JetStream's own number.
        error_code: u64,
    },
    /// The answer did not arrive in time, or the connection broke.
    #[error("{what}: no answer from NATS ({detail})")]
    NoAnswer {
        /// The request, with the stream or subject.
        what: String,
        /// The client's error.
        detail: String,
    },
    /// A message that the server will never accept.
    #[error("message {message_id} for {subject} can't be published: {detail}")]
    Unpublishable {
        /// The subject of the message.
        subject: String,
        /// The `Nats-Msg-Id` of the message.
        message_id: String,
        /// Why.
        detail: String,
    },
    /// The user lacks a permission.
    #[error("NATS permissions: {detail}; grant them to this user in the server's configuration")]
    Forbidden {
        /// The server's message, with the subject.
        detail: String,
    },
    /// Two sides that don't belong together.
    #[error("{0}")]
    Mismatch(Mismatch),
    /// Somebody else changed the value first.
    #[error("{what} was changed by another process: {detail}")]
    Superseded {
        /// Which value.
        what: String,
        /// What was expected and what was found.
        detail: String,
    },
    /// Bytes or an answer that can't be understood.
    #[error("{what} can't be understood: {detail}")]
    Garbled {
        /// What can't be understood.
        what: String,
        /// Why not.
        detail: String,
    },
    /// The reader or publisher has ended.
    #[error("{what} has ended")]
    Ended {
        /// Which one, with its stream.
        what: String,
    },
}

impl From<Mismatch> for BusError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl BusError {
    /// Whether the problem ends by itself, so that the call can be repeated.
    pub fn is_transient(&self) -> bool {
        self.recovery() == Recovery::Retry
    }

    /// What to do about the error.
    pub fn recovery(&self) -> Recovery {
        match self {
            // A stream may be missing because another service is still creating it.
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

    pub(crate) fn publisher_ended() -> Self {
        Self::Ended { what: "the publisher".to_owned() }
    }

    /// JetStream's own number, if the server answered with one.
    pub(crate) fn server_code(&self) -> Option<u64> {
        if let Self::Server { error_code, .. } = self { Some(*error_code) } else { None }
    }
}

/// Codes like HTTP's: the server's problems end by themselves (a full stream is a 503, an overrun
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
