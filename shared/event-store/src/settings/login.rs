//! Whether the database answers, and takes our login. One that was taken before and is refused now
//! is being rotated: it is waited for and told, where a first login that is refused ends with an
//! error.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::Timestamp;
use service_kit::{Clock, Secret, secret::LOGIN_REFUSED};
use wire::json::format_second;

/// What became of the logins of a process with one address; clones share it.
#[derive(Clone, Debug)]
pub struct Logins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The setting that holds the address.
    key: &'static str,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    was_taken: bool,
    refusal: Option<LoginRefusal>,
    unreachable: Option<Unreachable>,
}

/// A server that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Since when, in microseconds since 1970.
    pub since_us: i64,
    /// What the last attempt met.
    pub why: String,
}

/// For people: what is wrong, since when, and what is done about it.
impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = format_second(Timestamp(self.since_us)).unwrap_or_default();
        write!(f, "no connection since {since} ({}); connecting again by itself", self.why)
    }
}

/// A login that is refused although it was taken before, or that can't be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRefusal {
    /// Since when, in microseconds since 1970.
    pub since_us: i64,
    /// The server's or the system's words.
    pub why: String,
    /// What people do about it.
    remedy: String,
}

/// For people: what is wrong, since when, and what to do.
impl fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // To the second: finer says nothing to people.
        let since = format_second(Timestamp(self.since_us)).unwrap_or_default();
        write!(f, "{LOGIN_REFUSED} {since} ({}): {}", self.why, self.remedy)
    }
}

impl Logins {
    /// Of an address that this setting holds.
    pub fn by(key: &'static str) -> Self {
        Self::on(key, Clock::system())
    }

    fn on(key: &'static str, clock: Clock) -> Self {
        Self(Arc::new(Inner { key, clock, state: Mutex::default() }))
    }

    /// The refusal that is waited out; nothing while logins are taken, or were not tried.
    pub fn refusal(&self) -> Option<LoginRefusal> {
        self.state().refusal.clone()
    }

    /// Whether a login was taken.
    pub fn was_taken(&self) -> bool {
        self.state().was_taken
    }

    /// Why the server does not answer; nothing while it does, or was not asked.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.state().unreachable.clone()
    }

    /// A connection that stands was answered on. It says nothing about new logins.
    pub(crate) fn answered(&self) {
        self.state().unreachable = None;
    }

    /// The server took one.
    pub(crate) fn taken(&self) {
        let mut state = self.state();
        state.was_taken = true;
        state.unreachable = None;
        if state.refusal.take().is_some() {
            // As loud as what it ends, for those who read warnings only.
            tracing::warn!("PostgreSQL takes the login again");
        }
    }

    /// Something else kept the server from being asked, or from answering.
    pub(crate) fn not_asked(&self, why: String) {
        let now_us = self.0.clock.now_us();
        let mut state = self.state();
        state.refusal = None;
        let since_us = state.unreachable.as_ref().map_or(now_us, |before| before.since_us);
        state.unreachable = Some(Unreachable { since_us, why });
    }

    /// The server refused one, or it can't be read: gives what is waited out, unless none was ever
    /// taken. Logged when it begins, and when it changes.
    pub(crate) fn refused(&self, url: &Secret, why: String) -> Option<LoginRefusal> {
        let mut state = self.state();
        state.unreachable = None;
        if !state.was_taken {
            return None;
        }
        let before = state.refusal.take();
        let since_us = before.as_ref().map_or_else(|| self.0.clock.now_us(), |was| was.since_us);
        let remedy = format!("the login in the address: {}", url.remedy(self.0.key));
        let refusal = LoginRefusal { since_us, why, remedy };
        if before.is_none_or(|before| before.why != refusal.why) {
            tracing::error!(
                why = refusal.why,
                remedy = refusal.remedy,
                "PostgreSQL refuses the login; it is tried again by itself"
            );
        }
        state.refusal = Some(refusal.clone());
        Some(refusal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_login_that_was_taken_before_is_waited_out_and_a_first_one_is_not() {
        // 2026-11-28T10:00:00.25Z
        let clock = Clock::manual(1_795_860_000_250_000);
        let logins = Logins::on("DATABASE_URL", clock.clone());
        let url = Secret::File { key: "DATABASE_URL", path: "/run/secrets/url".into() };
        let refuse = || logins.refused(&url, "password authentication failed".to_owned());
        assert_eq!((refuse(), logins.refusal()), (None, None), "it was never taken");
        logins.taken();
        assert!(refuse().is_some());
        clock.advance(Duration::from_secs(5));
        assert_eq!(
            refuse().unwrap().to_string(),
            "login refused since 2026-11-28T10:00:00Z (password authentication failed): the login \
             in the address: put the right one into /run/secrets/url (DATABASE_URL_FILE), which is \
             read again at each attempt"
        );
        assert_eq!(refuse(), logins.refusal());
        logins.taken();
        assert_eq!(logins.refusal(), None);
        assert!(refuse().is_some());
        logins.not_asked("nobody listens".to_owned());
        assert_eq!(logins.refusal(), None, "a server that is away refuses nobody");
    }

    #[test]
    fn a_server_that_does_not_answer_is_told_from_the_first_attempt_on() {
        let clock = Clock::manual(1_795_860_000_250_000);
        let logins = Logins::on("DATABASE_URL", clock.clone());
        logins.not_asked("nobody listens".to_owned());
        clock.advance(Duration::from_secs(5));
        logins.not_asked("it is starting up".to_owned());
        assert_eq!(
            logins.unreachable().unwrap().to_string(),
            "no connection since 2026-11-28T10:00:00Z (it is starting up); connecting again by itself"
        );
        logins.answered();
        assert_eq!(logins.unreachable(), None);
        logins.not_asked("nobody listens".to_owned());
        logins.refused(&Secret::from("postgres://u@h/d"), "wrong password".to_owned());
        assert_eq!(logins.unreachable(), None, "who refuses a login answers");
        logins.not_asked("nobody listens".to_owned());
        logins.taken();
        assert_eq!(logins.unreachable(), None);
    }
}
