//! How to reach NATS, as plain data.
//!
//! This crate reads no environment: services turn [`SETTINGS`] into settings of their own kind and
//! hand the values to [`BusSettings::load`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One setting of the bus: name in the environment, flag, default, help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusSetting {
    /// Name in the environment.
    pub key: &'static str,
    /// Name on the command line, without the dashes.
    pub flag: &'static str,
    /// What holds when it is not set.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
    /// Whether its value must never be printed.
    pub secret: bool,
}

const fn setting(
    key: &'static str,
    flag: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> BusSetting {
    BusSetting { key, flag, default, help, secret: false }
}

/// Every setting of the connection to NATS.
pub const SETTINGS: &[BusSetting] = &[
    BusSetting {
        key: "NATS_URL",
        flag: "nats-url",
        default: Some("nats://127.0.0.1:4222"),
        help: "Address of NATS; several of one cluster with commas between them; tls:// demands TLS.",
        // People put user and password into it.
        secret: true,
    },
    setting("NATS_CREDS", "nats-creds", None, "Credentials file (.creds) to log in with."),
    setting(
        "NATS_NKEY_SEED_FILE",
        "nats-nkey-seed-file",
        None,
        "File with the nkey seed to log in with.",
    ),
    setting("NATS_USER", "nats-user", None, "User to log in with, together with NATS_PASSWORD."),
    BusSetting {
        key: "NATS_PASSWORD",
        flag: "nats-password",
        default: None,
        help: "Password of NATS_USER.",
        secret: true,
    },
    setting(
        "NATS_CA_FILE",
        "nats-ca-file",
        None,
        "PEM file with the certificate authorities to trust besides the system's.",
    ),
    setting(
        "NATS_SUBJECT_PREFIX",
        "nats-subject-prefix",
        Some(""),
        "Put before every subject (acme gives acme.lake.access.…) and, with _, before every stream \
         name, so that several pipelines can share one account.",
    ),
    setting(
        "NATS_INBOX_PREFIX",
        "nats-inbox-prefix",
        Some("_INBOX"),
        "Beginning of the subjects that answers come to. With one for each user (_INBOX_archiver) \
         the server can be told that no other may listen there.",
    ),
    setting(
        "NATS_CONNECT_TIMEOUT_MS",
        "nats-connect-timeout-ms",
        Some("5000"),
        "Longest wait for a connection to one server.",
    ),
    setting(
        "NATS_REQUEST_TIMEOUT_MS",
        "nats-request-timeout-ms",
        Some("5000"),
        "Longest wait for an answer or an acknowledgement before it is asked again.",
    ),
    setting(
        "NATS_PING_INTERVAL_MS",
        "nats-ping-interval-ms",
        Some("10000"),
        "Time between pings; two without an answer end the connection and start another.",
    ),
];

/// How to reach NATS.
#[derive(Clone, PartialEq, Eq)]
pub struct BusSettings {
    /// One or several addresses with commas between them.
    pub url: String,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// A file with an nkey seed.
    pub nkey_seed_file: Option<PathBuf>,
    /// Needs [`BusSettings::password`].
    pub user: Option<String>,
    /// Needs [`BusSettings::user`].
    pub password: Option<String>,
    /// Certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Before every subject; empty for none. Without a dot at its end.
    pub subject_prefix: String,
    /// Before the subjects of answers. Without a dot at its end.
    pub inbox_prefix: String,
    /// What the server's `connz` shows for this connection.
    pub name: String,
    /// For one server.
    pub connect_timeout: Duration,
    /// For one answer or acknowledgement.
    pub request_timeout: Duration,
    /// Between two pings; two without an answer end the connection.
    pub ping_interval: Duration,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            credentials_file: None,
            nkey_seed_file: None,
            user: None,
            password: None,
            ca_file: None,
            subject_prefix: String::new(),
            inbox_prefix: "_INBOX".to_owned(),
            name: "lakegauge".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
        }
    }
}

/// Shows neither password nor what stands before the host in the address.
impl fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusSettings")
            .field("url", &self.shown_url())
            .field("credentials_file", &self.credentials_file)
            .field("nkey_seed_file", &self.nkey_seed_file)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(not shown)"))
            .field("ca_file", &self.ca_file)
            .field("subject_prefix", &self.subject_prefix)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a setting. Contains no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting.
    pub key: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

impl BusSettings {
    /// Settings from whatever `value` gives for each key of [`SETTINGS`] (a default counts as
    /// given), for a connection of this name.
    ///
    /// # Errors
    ///
    /// Every problem, not only the first.
    pub fn load(
        name: &str,
        mut value: impl FnMut(&'static BusSetting) -> Option<String>,
    ) -> Result<Self, Vec<Problem>> {
        let mut values: BTreeMap<&'static str, String> = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.key, value(setting)?)))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let mut problems = Vec::new();
        let mut milliseconds = |key: &'static str, values: &BTreeMap<&'static str, String>| {
            let text = values.get(key).map(String::as_str).or_else(|| default_of(key));
            let parsed = text.and_then(|text| text.parse::<u64>().ok()).filter(|ms| *ms > 0);
            if parsed.is_none() {
                problems.push(Problem {
                    key,
                    detail: "must be a whole number of milliseconds above 0".to_owned(),
                });
            }
            Duration::from_millis(parsed.unwrap_or(1))
        };
        let connect_timeout = milliseconds("NATS_CONNECT_TIMEOUT_MS", &values);
        let request_timeout = milliseconds("NATS_REQUEST_TIMEOUT_MS", &values);
        let ping_interval = milliseconds("NATS_PING_INTERVAL_MS", &values);
        let mut take = |key: &'static str| values.remove(key);
        let settings = Self {
            url: take("NATS_URL").unwrap_or_else(|| Self::default().url),
            credentials_file: take("NATS_CREDS").map(PathBuf::from),
            nkey_seed_file: take("NATS_NKEY_SEED_FILE").map(PathBuf::from),
            user: take("NATS_USER"),
            password: take("NATS_PASSWORD"),
            ca_file: take("NATS_CA_FILE").map(PathBuf::from),
            subject_prefix: take("NATS_SUBJECT_PREFIX")
                .map(|prefix| prefix.trim_end_matches('.').to_owned())
                .unwrap_or_default(),
            inbox_prefix: take("NATS_INBOX_PREFIX")
                .map(|prefix| prefix.trim_end_matches('.').to_owned())
                .unwrap_or_else(|| Self::default().inbox_prefix),
            name: name.to_owned(),
            connect_timeout,
            request_timeout,
            ping_interval,
        };
        problems.extend(settings.problems());
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// What is wrong with these settings taken together.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem =
            |key, detail: &str| problems.push(Problem { key, detail: detail.to_owned() });
        if self.user.is_some() != self.password.is_some() {
            problem("NATS_USER", "NATS_USER and NATS_PASSWORD must be set together");
        }
        let logins =
            [self.credentials_file.is_some(), self.nkey_seed_file.is_some(), self.user.is_some()];
        if logins.into_iter().filter(|set| *set).count() > 1 {
            problem("NATS_CREDS", "set only one of NATS_CREDS, NATS_NKEY_SEED_FILE and NATS_USER");
        }
        let mut prefix = |key, prefix: &str| {
            if !is_subject(prefix) {
                problem(
                    key,
                    "must be tokens of letters, digits, - and _ with single dots between them",
                );
            }
        };
        if !self.subject_prefix.is_empty() {
            prefix("NATS_SUBJECT_PREFIX", &self.subject_prefix);
        }
        prefix("NATS_INBOX_PREFIX", &self.inbox_prefix);
        problems
    }

    /// The addresses without user and password, fit for a log.
    pub fn shown_url(&self) -> String {
        let shown = |address: &str| {
            let address = address.trim();
            let (scheme, rest) = match address.split_once("://") {
                Some((scheme, rest)) => (format!("{scheme}://"), rest),
                None => (String::new(), address),
            };
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}{host}")
        };
        self.url.split(',').map(shown).collect::<Vec<_>>().join(",")
    }
}

/// Whether it is a subject without wildcards, of tokens that are safe everywhere.
fn is_subject(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split('.').all(|token| !token.is_empty() && token.chars().all(legal))
}

fn default_of(key: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|setting| setting.key == key).and_then(|setting| setting.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<BusSettings, Vec<Problem>> {
        let pairs: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        BusSettings::load("test", |setting| {
            pairs.get(setting.key).copied().or(setting.default).map(str::to_owned)
        })
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let expected = BusSettings { name: "test".to_owned(), ..BusSettings::default() };
        assert_eq!(load(&[]), Ok(expected));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = load(&[
            ("NATS_USER", "u"),
            ("NATS_CREDS", "f"),
            ("NATS_SUBJECT_PREFIX", "a..b"),
            ("NATS_INBOX_PREFIX", "_INBOX.*"),
            ("NATS_PING_INTERVAL_MS", "soon"),
        ])
        .unwrap_err();
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key).collect();
        assert_eq!(
            keys,
            [
                "NATS_PING_INTERVAL_MS",
                "NATS_USER",
                "NATS_CREDS",
                "NATS_SUBJECT_PREFIX",
                "NATS_INBOX_PREFIX"
            ]
        );
    }

    #[test]
    fn no_secret_is_shown() {
        let settings = load(&[
            ("NATS_URL", "nats://me:hunter2@a:4222, tls://hunter2@b"),
            ("NATS_USER", "u"),
            ("NATS_PASSWORD", "hunter2"),
        ])
        .unwrap();
        assert_eq!(settings.shown_url(), "nats://a:4222,tls://b");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
