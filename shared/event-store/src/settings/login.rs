//! Whether the database answers, and accepts our login. If a login that was accepted before is
//! refused, it is probably being rotated: the program waits and reports that. If the first login is
//! refused, the program ends with an error.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::Timestamp;
use service_kit::{Clock, Secret, secret::LOGIN_REFUSED};
use wire::json::format_second;

/// The results of the logins of a process with one address. Clones share them.
#[derive(Clone, Debug)]
pub struct Logins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The setting with the address.
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
    /// The error of the last attempt.
    pub why: String,
}

/// For people: what is wrong, since when, and what the program does.
impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = format_second(Timestamp(self.since_us)).unwrap_or_default();
        write!(f, "no connection since {since} ({}); connecting again by itself", self.why)
    }
}

/// A login that is refused although it was accepted before, or that can no longer be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRefusal {
    /// Since when, in microseconds since 1970.
    pub since_us: i64,
    /// The error of the server or the system.
    pub why: String,
    /// What a person should do.
    remedy: String,
}

/// For people: what is wrong, since when, and what to do.
impl fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With seconds: more digits do not help people.
        let since = format_second(Timestamp(self.since_us)).unwrap_or_default();
        write!(f, "{LOGIN_REFUSED} {since} ({}): {}", self.why, self.remedy)
    }
}

impl Logins {
    /// The logins with the address of this setting.
    pub fn by(key: &'static str) -> Self {
        Self::on(key, Clock::system())
    }

    fn on(key: &'static str, clock: Clock) -> Self {
        Self(Arc::new(Inner { key, clock, state: Mutex::default() }))
    }

    /// The refusal during which the program waits; `None` while logins are accepted or were not
    /// tried.
    pub fn refusal(&self) -> Option<LoginRefusal> {
        self.state().refusal.clone()
    }

    /// Whether a login was ever accepted.
    pub fn was_taken(&self) -> bool {
        self.state().was_taken
    }

    /// Why the server does not answer; `None` while it does, or was not asked.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.state().unreachable.clone()
    }

    /// Records an answer on an existing connection. It proves nothing about new logins.
    pub(crate) fn answered(&self) {
        self.state().unreachable = None;
    }

    /// Records that the server accepted a login.
    pub(crate) fn taken(&self) {
        let mut state = self.state();
        state.was_taken = true;
        state.unreachable = None;
        if state.refusal.take().is_some() {
            // A warning like the problem that it ends, for people who read warnings only.
            tracing::warn!("PostgreSQL accepts the login again");
        }
    }

    /// Records that another problem prevented the login, or the answer.
    pub(crate) fn not_asked(&self, why: String) {
        let now_us = self.0.clock.now_us();
        let mut state = self.state();
        state.refusal = None;
        let since_us = state.unreachable.as_ref().map_or(now_us, |before| before.since_us);
        state.unreachable = Some(Unreachable { since_us, why });
    }

    /// Records that the server refused a login, or that it can't be read. Returns the refusal, or
    /// `None` if no login was ever accepted. It is logged when it begins, and when its reason
    /// changes.
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
                "PostgreSQL refuses the login; it will be tried again"
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
