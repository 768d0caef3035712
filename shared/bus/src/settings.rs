//! How to reach NATS.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use service_kit::{Secret, Settings, settings::Recorded};

use crate::addresses::{self, BrokerAddresses};

service_kit::settings! {
    /// How to reach NATS.
    #[derive(Clone, PartialEq, Eq)]
    pub struct BusSettings {
        /// Address of NATS; several addresses of one cluster are separated by commas; tls://
        /// requires TLS. In a file that NATS_URL_FILE names, the login is read again at each
        /// connect, the servers only at the start.
        // Secret, because people write user and password into it.
        #[secret(NATS_URL, "nats-url", default = "nats://127.0.0.1:4222")]
        pub url: Secret = required_secret,
        /// Credentials file (.creds) to log in with; read again at each connect.
        #[setting(NATS_CREDS, "nats-creds")]
        pub credentials_file: Option<PathBuf> = optional,
        /// File with the nkey seed to log in with; read again at each connect.
        #[setting(NATS_NKEY_SEED_FILE, "nats-nkey-seed-file")]
        pub nkey_seed_file: Option<PathBuf> = optional,
        /// User to log in with, together with NATS_PASSWORD.
        #[setting(NATS_USER, "nats-user")]
        pub user: Option<String> = optional,
        /// Password of NATS_USER. A file that NATS_PASSWORD_FILE names is read again at each
        /// connect.
        #[secret(NATS_PASSWORD, "nats-password")]
        pub password: Option<Secret> = secret,
        /// Token to log in with. A file that NATS_TOKEN_FILE names is read again at each connect.
        #[secret(NATS_TOKEN, "nats-token")]
        pub token: Option<Secret> = secret,
        /// PEM file with the certificate authorities to trust instead of the system's; read again
        /// at each connect.
        #[setting(NATS_CA_FILE, "nats-ca-file")]
        pub ca_file: Option<PathBuf> = optional,
        /// PEM file with this program's own certificate, for servers that require one (tls {
        /// verify: true }); read again at each connect, like NATS_KEY_FILE.
        #[setting(NATS_CERT_FILE, "nats-cert-file")]
        pub certificate_file: Option<PathBuf> = optional,
        /// PEM file with the private key of NATS_CERT_FILE.
        #[setting(NATS_KEY_FILE, "nats-key-file")]
        pub key_file: Option<PathBuf> = optional,
        /// Prefix of every subject (acme gives acme.lake.access.…) and, with _, of every stream
        /// name, so that several pipelines can share one account.
        #[setting(NATS_SUBJECT_PREFIX, "nats-subject-prefix", default = "")]
        pub subject_prefix: String = parse_by(without_dot),
        /// Prefix of the subjects for answers. If each user has its own (_INBOX_archiver), the
        /// server can be configured so that no other user may listen there.
        #[setting(NATS_INBOX_PREFIX, "nats-inbox-prefix", default = "_INBOX")]
        pub inbox_prefix: String = parse_by(without_dot),
        /// The name that the server's `connz` shows for this connection.
        #[fixed("lakegauge".to_owned())]
        pub name: String,
        /// Longest wait for a connection to one server.
        #[setting(NATS_CONNECT_TIMEOUT_MS, "nats-connect-timeout-ms", default = "5000")]
        pub connect_timeout: Duration = duration_ms_above_0,
        /// Longest wait for an answer or an acknowledgement before the request is repeated.
        #[setting(NATS_REQUEST_TIMEOUT_MS, "nats-request-timeout-ms", default = "5000")]
        pub request_timeout: Duration = duration_ms_above_0,
        /// Time after which a message that was published and not acknowledged is reported in the
        /// log and in /readyz, with the reason.
        #[setting(NATS_UNCONFIRMED_AFTER_MS, "nats-unconfirmed-after-ms", default = "5000")]
        pub unconfirmed_after: Duration = duration_ms_above_0,
        /// Time between pings; two without an answer end the connection and start another.
        #[setting(NATS_PING_INTERVAL_MS, "nats-ping-interval-ms", default = "10000")]
        pub ping_interval: Duration = duration_ms_above_0,
    }
}

impl Default for BusSettings {
    fn default() -> Self {
        Settings::defaults(Self::load).expect("each setting has a default or may be absent")
    }
}

/// Shows neither the password nor the login in the address.
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

/// What is wrong with a setting. It contains no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting's key.
    pub key: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

impl BusSettings {
    /// Reads every setting and checks them together, for a connection of this name.
    pub fn load_named(name: &str, settings: &mut Settings<'_>) -> Result<Self, Recorded> {
        let found_before = settings.problem_count();
        let loaded = Self { name: name.to_owned(), ..Self::load(settings)? };
        for Problem { key, detail } in loaded.problems() {
            if let Some(setting) = Self::table().iter().find(|setting| setting.key == key) {
                settings.problem(setting, &detail);
            }
        }
        if settings.problem_count() == found_before { Ok(loaded) } else { Err(Recorded) }
    }

    /// What is wrong with the combination of these settings.
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
                    "must be tokens of letters, digits, - and _, separated by single dots",
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

    /// The current addresses.
    pub(crate) fn addresses(&self) -> Result<BrokerAddresses, String> {
        addresses::read(&self.url.read().map_err(|problem| problem.to_string())?)
    }

    /// The addresses without user and password, for logs.
    pub fn shown_url(&self) -> String {
        self.addresses()
            .map_or_else(|_| "an invalid address".to_owned(), |addresses| addresses.shown)
    }
}

/// Whether a text is a subject without wildcards, of tokens that are safe everywhere.
fn is_subject(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split('.').all(|token| !token.is_empty() && token.chars().all(legal))
}

fn without_dot(prefix: &str) -> Result<String, Infallible> {
    Ok(prefix.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::Flags;

    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<BusSettings, Vec<service_kit::SettingProblem>> {
        let pairs: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, &pairs);
        let loaded = BusSettings::load_named("test", &mut settings);
        settings.finish().map_err(|problems| problems.0)?;
        Ok(loaded.unwrap())
    }

    #[test]
    fn what_nobody_sets_is_as_the_help_says() {
        let expected = BusSettings {
            url: "nats://127.0.0.1:4222".into(),
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
            name: "test".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            unconfirmed_after: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
        };
        assert_eq!(load(&[]).as_ref(), Ok(&expected));
        assert_eq!(BusSettings { name: "test".to_owned(), ..BusSettings::default() }, expected);
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
        let keys: Vec<&str> = problems.iter().map(|problem| problem.setting.key).collect();
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
        assert!(problems[0].to_string().contains("percent-encode the password"), "{problems:?}");
    }
}
