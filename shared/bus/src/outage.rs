//! Why there is no connection, and since when: logged once per change, shown as long as it lasts.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::{ClientError, ConnectErrorKind, Event};
use domain::Timestamp;
use service_kit::{Clock, secret::LOGIN_REFUSED};
use wire::json::format_second;

use crate::{login::LoginState, settings::Problem};

/// A time without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when, in microseconds since 1970.
    pub since_us: i64,
    /// Since when the login is refused by the server, or can't be read, at every attempt; `None` if
    /// something else prevents the connection.
    pub login_since_us: Option<i64>,
    /// The error of the last attempt, in the client's or the system's words.
    pub why: String,
    /// What a person should do about a refused login.
    remedy: String,
}

/// For people: what is wrong, since when, and what to do.
impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.login_since_us {
            Some(since_us) => {
                let since = shown(since_us);
                write!(f, "{LOGIN_REFUSED} {since} ({}): {}", self.why, self.remedy)
            }
            None => {
                let since = shown(self.since_us);
                write!(f, "no connection since {since} ({}); connecting again by itself", self.why)
            }
        }
    }
}

/// With seconds: more digits do not help people.
fn shown(at_us: i64) -> String {
    format_second(Timestamp(at_us)).unwrap_or_else(|| at_us.to_string())
}

/// What the client reported about the connection.
#[derive(Debug)]
pub(crate) struct Outages {
    clock: Clock,
    login: LoginState,
    /// Whether outages are logged. They are not for a further connection, which has the same
    /// outages.
    is_logged: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    /// Why the last attempt had no login to send.
    unreadable: Option<String>,
}

impl Outages {
    pub(crate) fn new(clock: Clock, login: LoginState, is_logged: bool) -> Self {
        Self { clock, login, is_logged, state: Mutex::default() }
    }

    /// The outage; `None` while there is a connection.
    pub(crate) fn now(&self) -> Option<Outage> {
        self.state().outage.clone()
    }

    /// Records that an attempt read the login, or could not.
    pub(crate) fn read<T>(&self, read: &Result<T, Problem>) {
        let unreadable =
            read.as_ref().err().map(|problem| format!("{}: {}", problem.key, problem.detail));
        self.state().unreadable = unreadable;
    }

    /// Records an event of the client.
    pub(crate) fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                let ended = self.state().outage.take();
                let was_refused = ended.is_some_and(|outage| outage.login_since_us.is_some());
                if was_refused && self.is_logged {
                    // A warning like the problem that it ends, for people who read warnings only.
                    tracing::warn!("NATS accepts the login again");
                }
            }
            Event::Disconnected => drop(self.failed("the connection was lost", false)),
            Event::ClientError(ClientError::Other(text)) => {
                let unreadable = self.state().unreadable.clone();
                let is_login = is_login(text);
                let why = unreadable.filter(|_| is_login).unwrap_or_else(|| text.clone());
                let news = self.failed(&why, is_login);
                if let Some(outage) = news.filter(|_| self.is_logged) {
                    tracing::error!(
                        why = outage.why,
                        remedy = outage.remedy,
                        "NATS refuses the login; it will be tried again"
                    );
                }
            }
            Event::ClientError(_)
            | Event::ServerError(_)
            | Event::LameDuckMode
            | Event::SlowConsumer(_)
            | Event::Draining
            | Event::Closed => {}
        }
    }

    /// Records a failure. Returns the outage if the login is at fault now, or for a new reason.
    fn failed(&self, why: &str, is_login: bool) -> Option<Outage> {
        let now_us = self.clock.now_us();
        let mut state = self.state();
        let before = state.outage.take();
        let since_us = before.as_ref().map_or(now_us, |outage| outage.since_us);
        let login_before = before.as_ref().and_then(|outage| outage.login_since_us);
        let login_since_us = is_login.then(|| login_before.unwrap_or(now_us));
        let outage =
            Outage { since_us, login_since_us, why: why.to_owned(), remedy: self.login.remedy() };
        let is_news = is_login
            && (login_before.is_none() || before.is_some_and(|before| before.why != outage.why));
        state.outage = Some(outage.clone());
        is_news.then_some(outage)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the client reports that the login was refused, or that there was no login to send. Of a
/// failed attempt it reports only the kind.
fn is_login(text: &str) -> bool {
    [ConnectErrorKind::AuthorizationViolation, ConnectErrorKind::Authentication]
        .iter()
        .any(|kind| kind.to_string() == text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use service_kit::Secret;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refused(kind: ConnectErrorKind) -> Event {
        Event::ClientError(ClientError::Other(kind.to_string()))
    }

    fn outages() -> (Outages, Clock) {
        // 2026-11-28T10:00:00.25Z
        let clock = Clock::manual(1_795_860_000_250_000);
        let password = Secret::File { key: "NATS_PASSWORD", path: "/run/secrets/nats".into() };
        let login = LoginState::Password { user: "lake".to_owned(), password };
        (Outages::new(clock.clone(), login, true), clock)
    }

    #[test]
    fn a_refused_login_is_told_with_its_beginning_and_its_remedy_until_the_connection_stands() {
        let (outages, clock) = outages();
        outages.note(&Event::Disconnected);
        clock.advance(SECOND);
        outages.note(&refused(ConnectErrorKind::AuthorizationViolation));
        clock.advance(SECOND);
        outages.note(&refused(ConnectErrorKind::AuthorizationViolation));
        let outage = outages.now().unwrap();
        assert_eq!(outage.login_since_us, Some(1_795_860_001_250_000));
        let text = outage.to_string();
        assert_eq!(
            text,
            "login refused since 2026-11-28T10:00:01Z (authorization violation): the password of \
             user lake: put the right one into /run/secrets/nats (NATS_PASSWORD_FILE), which is read \
             again at each attempt"
        );
        outages.note(&Event::Connected);
        assert_eq!(outages.now(), None);
    }

    #[test]
    fn only_the_first_of_many_refusals_is_news() {
        let (outages, _) = outages();
        assert!(outages.failed("authorization violation", true).is_some());
        assert!(outages.failed("authorization violation", true).is_none());
        assert!(outages.failed("NATS_PASSWORD_FILE is empty", true).is_some());
        assert!(outages.failed("IO error", false).is_none());
        assert!(outages.failed("NATS_PASSWORD_FILE is empty", true).is_some());
    }

    #[test]
    fn a_server_that_is_away_is_no_refused_login() {
        let (outages, clock) = outages();
        outages.note(&refused(ConnectErrorKind::AuthorizationViolation));
        clock.advance(SECOND);
        outages.note(&refused(ConnectErrorKind::Io));
        let outage = outages.now().unwrap();
        assert_eq!(outage.login_since_us, None);
        assert_eq!(
            outage.to_string(),
            "no connection since 2026-11-28T10:00:00Z (IO error); connecting again by itself"
        );
    }

    #[test]
    fn a_file_that_is_missing_for_a_moment_is_named() {
        let (outages, _) = outages();
        let detail = "NATS_PASSWORD_FILE is empty: /run/secrets/nats".to_owned();
        outages.read::<()>(&Err(Problem { key: "NATS_PASSWORD", detail }));
        outages.note(&refused(ConnectErrorKind::Authentication));
        let text = outages.now().unwrap().to_string();
        assert!(text.contains("NATS_PASSWORD_FILE is empty: /run/secrets/nats"), "{text}");
        outages.read(&Ok(()));
        outages.note(&refused(ConnectErrorKind::AuthorizationViolation));
        let text = outages.now().unwrap().to_string();
        assert!(text.contains("(authorization violation)"), "{text}");
    }
}
