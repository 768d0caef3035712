//! How to reach NATS, as plain data.
//!
//! This crate reads no environment: services turn [`SETTINGS`] into settings of their own kind and
//! hand the values to [`BusSettings::load`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use service_kit::Secret;

use crate::addresses::{self, Addresses};

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
        help: "Address of NATS; several of one cluster with commas between them; tls:// demands TLS. \
               Of a file that NATS_URL_FILE names the login is read again at each connect, the servers \
               at start only.",
        // People put user and password into it.
        secret: true,
    },
    setting(
        "NATS_CREDS",
        "nats-creds",
        None,
        "Credentials file (.creds) to log in with; read again at each connect.",
    ),
    setting(
        "NATS_NKEY_SEED_FILE",
        "nats-nkey-seed-file",
        None,
        "File with the nkey seed to log in with; read again at each connect.",
    ),
    setting("NATS_USER", "nats-user", None, "User to log in with, together with NATS_PASSWORD."),
    BusSetting {
        key: "NATS_PASSWORD",
        flag: "nats-password",
        default: None,
        help: "Password of NATS_USER. A file that NATS_PASSWORD_FILE names is read again at each \
               connect.",
        secret: true,
    },
    BusSetting {
        key: "NATS_TOKEN",
        flag: "nats-token",
        default: None,
        help: "Token to log in with. A file that NATS_TOKEN_FILE names is read again at each connect.",
        secret: true,
    },
    setting(
        "NATS_CA_FILE",
        "nats-ca-file",
        None,
        "PEM file with the certificate authorities to trust instead of the system's; read again at \
         each connect.",
    ),
    setting(
        "NATS_CERT_FILE",
        "nats-cert-file",
        None,
        "PEM file with our own certificate, for servers that demand one (tls { verify: true }); read \
         again at each connect, as is NATS_KEY_FILE.",
    ),
    setting(
        "NATS_KEY_FILE",
        "nats-key-file",
        None,
        "PEM file with the private key of NATS_CERT_FILE.",
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
        "NATS_UNCONFIRMED_AFTER_MS",
        "nats-unconfirmed-after-ms",
        Some("5000"),
        "From when on a message that was published and is not acknowledged is told in the log and in \
         /readyz, with the reason.",
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
    pub url: Secret,
    /// A `.creds` file.
    pub credentials_file: Option<PathBuf>,
    /// A file with an nkey seed.
    pub nkey_seed_file: Option<PathBuf>,
    /// Needs [`BusSettings::password`].
    pub user: Option<String>,
    /// Needs [`BusSettings::user`].
    pub password: Option<Secret>,
    /// Instead of a user.
    pub token: Option<Secret>,
    /// Certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate. Needs [`BusSettings::key_file`].
    pub certificate_file: Option<PathBuf>,
    /// The private key of our certificate. Needs [`BusSettings::certificate_file`].
    pub key_file: Option<PathBuf>,
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
    /// From when on what is published and not acknowledged is told.
    pub unconfirmed_after: Duration,
    /// Between two pings; two without an answer end the connection.
    pub ping_interval: Duration,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self {
            url: Secret::from("nats://127.0.0.1:4222"),
            credentials_file: None,
            nkey_seed_file: None,
            user: None,
            password: None,
            token: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            subject_prefix: String::new(),
            inbox_prefix: "_INBOX".to_owned(),
            name: "lakegauge".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            unconfirmed_after: Duration::from_secs(5),
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
            .field("password", &self.password)
            .field("token", &self.token)
            .field("ca_file", &self.ca_file)
            .field("certificate_file", &self.certificate_file)
            .field("key_file", &self.key_file)
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
        mut value: impl FnMut(&'static BusSetting) -> Option<Secret>,
    ) -> Result<Self, Vec<Problem>> {
        let (mut values, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for setting in SETTINGS {
            match value(setting) {
                Some(secret) if setting.secret => drop(secrets.insert(setting.key, secret)),
                Some(Secret::Text(text)) if !text.is_empty() => {
                    drop(values.insert(setting.key, text));
                }
                Some(_) | None => {}
            }
        }
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
        let unconfirmed_after = milliseconds("NATS_UNCONFIRMED_AFTER_MS", &values);
        let ping_interval = milliseconds("NATS_PING_INTERVAL_MS", &values);
        let mut take = |key: &'static str| values.remove(key);
        let settings = Self {
            url: secrets.remove("NATS_URL").unwrap_or_else(|| Self::default().url),
            credentials_file: take("NATS_CREDS").map(PathBuf::from),
            nkey_seed_file: take("NATS_NKEY_SEED_FILE").map(PathBuf::from),
            user: take("NATS_USER"),
            password: secrets.remove("NATS_PASSWORD"),
            token: secrets.remove("NATS_TOKEN"),
            ca_file: take("NATS_CA_FILE").map(PathBuf::from),
            certificate_file: take("NATS_CERT_FILE").map(PathBuf::from),
            key_file: take("NATS_KEY_FILE").map(PathBuf::from),
            subject_prefix: take("NATS_SUBJECT_PREFIX")
                .map(|prefix| prefix.trim_end_matches('.').to_owned())
                .unwrap_or_default(),
            inbox_prefix: take("NATS_INBOX_PREFIX")
                .map(|prefix| prefix.trim_end_matches('.').to_owned())
                .unwrap_or_else(|| Self::default().inbox_prefix),
            name: name.to_owned(),
            connect_timeout,
            request_timeout,
            unconfirmed_after,
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
        let logins = [
            self.credentials_file.is_some(),
            self.nkey_seed_file.is_some(),
            self.user.is_some(),
            self.token.is_some(),
        ];
        if logins.into_iter().filter(|set| *set).count() > 1 {
            problem(
                "NATS_CREDS",
                "set only one of NATS_CREDS, NATS_NKEY_SEED_FILE, NATS_USER and NATS_TOKEN",
            );
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            problem("NATS_CERT_FILE", "NATS_CERT_FILE and NATS_KEY_FILE must be set together");
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
        if let Err(why) = self.addresses() {
            problem("NATS_URL", &why);
        }
        problems
    }

    /// The addresses as they are now.
    pub(crate) fn addresses(&self) -> Result<Addresses, String> {
        addresses::read(&self.url.read().map_err(|problem| problem.to_string())?)
    }

    /// The addresses without user and password, fit for a log.
    pub fn shown_url(&self) -> String {
        self.addresses()
            .map_or_else(|_| "an invalid address".to_owned(), |addresses| addresses.shown)
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
            pairs.get(setting.key).copied().or(setting.default).map(Secret::from)
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
            ("NATS_URL", "nats://me:hunter2@a:4222, tls://me:hunter2@b"),
            ("NATS_USER", "u"),
            ("NATS_PASSWORD", "hunter2"),
        ])
        .unwrap();
        assert_eq!(settings.shown_url(), "nats://a:4222,tls://b");
        assert!(!format!("{settings:?}").contains("hunter2"));
        let problems = load(&[("NATS_URL", "nats://me:hun/ter2@a:4222")]).unwrap_err();
        assert!(problems[0].detail.contains("percent-encode the password"), "{problems:?}");
    }
}
