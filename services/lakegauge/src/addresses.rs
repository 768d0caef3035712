//! The addresses of a running `lakegauge up`, for tools without addresses of their own.
//!
//! `up` writes its addresses into its data directory while it runs. A tool reads each address that
//! no flag and no variable sets, with a login that may do what the tool does.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use local::DATA_DIR;
use local::addresses::{FILE, SECRETS, UpAddresses, database_url};
use service_kit::{Environment, Flags, Setting, Settings, Strings, settings::Recorded};

/// The role with which a tool logs in to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseLogin {
    /// Reads the archive.
    Reader,
    /// Closes dead letters and inserts their rows.
    Archiver,
    /// Changes the schema of the database.
    Owner,
}

impl DatabaseLogin {
    /// The name of the file with its password.
    fn secret(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Archiver => "archiver",
            Self::Owner => "owner",
        }
    }
}

/// The environment, and after it the contents of `up`'s data directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings(BTreeMap<&'static str, String>);

/// What a tool read from a data directory, for its errors.
static TOLD: OnceLock<String> = OnceLock::new();

/// The source of addresses that were not set, if there are such.
pub(crate) fn told() -> Option<&'static str> {
    TOLD.get().map(String::as_str)
}

/// Each address with the settings that replace it: if one of these is given, the address is not
/// read.
const TAKEN: &[(&str, &[&str])] = &[
    ("NATS_URL", &["NATS_URL"]),
    ("DATABASE_URL", &["DATABASE_URL", "SUPABASE_DB_URL", "MIGRATION_DATABASE_URL"]),
    ("TOP_METRICS_ADDR", &["TOP_METRICS_ADDR"]),
    ("TOP_ARCHIVER_ADDR", &["TOP_ARCHIVER_ADDR"]),
];

impl Surroundings {
    /// The surroundings of a tool with these settings. A directory that was named by flag and
    /// contains no addresses is a problem.
    ///
    /// # Errors
    ///
    /// The named directory has a problem.
    pub(crate) fn of(
        flags: &Flags,
        settings: &[Setting],
        login: DatabaseLogin,
    ) -> Result<Self, service_kit::InvalidSettings> {
        let by_flag = flags.get(DATA_DIR.key).is_some();
        let mut reading = Settings::new(flags, &Environment);
        let named = reading.text(&DATA_DIR).map(PathBuf::from);
        let is_default = !by_flag && Environment::raw(DATA_DIR.key).is_none();
        let found = match &named {
            Ok(directory) => read(directory, login, is_default),
            Err(Recorded) => Ok(None),
        };
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) if by_flag => {
                reading
                    .problem(&DATA_DIR, "contains no addresses.json: no `lakegauge up` runs there");
                BTreeMap::new()
            }
            Ok(None) => BTreeMap::new(),
            Err(error) => {
                reading.problem(&DATA_DIR, &format!("{error:#}"));
                BTreeMap::new()
            }
        };
        reading.finish()?;
        let is_read = |key: &str| settings.iter().any(|setting| setting.key == key);
        let is_given = |key: &&str| {
            let file = format!("{key}_FILE");
            flags.get(key).is_some() || [*key, &*file].into_iter().any(is_set)
        };
        let missing =
            |(key, others): &&(&'static str, &[&str])| is_read(key) && !others.iter().any(is_given);
        let taken: BTreeMap<&'static str, String> = TAKEN
            .iter()
            .filter(missing)
            .filter_map(|(key, _)| Some((*key, found.get(key)?.clone())))
            .collect();
        if let (Ok(directory), false) = (named, taken.is_empty()) {
            let keys: Vec<&str> = taken.keys().copied().collect();
            let file = directory.join(FILE);
            let text = format!("{} of the `lakegauge up` in {}", keys.join(", "), file.display());
            // Only one tool runs in a process, so this is set once.
            TOLD.set(text).unwrap_or_default();
        }
        Ok(Self(taken))
    }
}

impl Surroundings {
    /// The value from the data directory, if the setting is not set elsewhere.
    pub(crate) fn of_up(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl Strings for Surroundings {
    fn get(&self, key: &str) -> Option<String> {
        let given = Environment.get(key).filter(|value| !value.is_empty());
        given.or_else(|| self.0.get(key).cloned())
    }

    fn is_text(&self, key: &str) -> bool {
        Environment.is_text(key)
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        Environment.file(key)
    }
}

fn is_set(key: &str) -> bool {
    Environment::raw(key).is_some_and(|value| !value.is_empty())
}

/// The addresses in a directory; `None` if no `up` runs there.
///
/// A directory that was not named is read only if it is ours. If others can write it, they could
/// direct us, and our logins, elsewhere.
fn read(
    directory: &Path,
    login: DatabaseLogin,
    is_default: bool,
) -> anyhow::Result<Option<BTreeMap<&'static str, String>>> {
    let file = directory.join(FILE);
    let about = match std::fs::metadata(&file) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // The directory belongs to another user.
        Err(_) if is_default => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{}", file.display())),
    };
    if is_default && about.uid() != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let addresses: UpAddresses = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what `lakegauge up` writes", file.display()))?;
    let host = |url: &str| {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    let mut found = BTreeMap::from([
        ("NATS_URL", addresses.nats.clone()),
        ("TOP_METRICS_ADDR", host(&addresses.metrics)),
        ("TOP_ARCHIVER_ADDR", host(&addresses.archiver_admin)),
    ]);
    let secret = login.secret();
    // Only the owner can read it; without it, the other addresses are still useful.
    if let Ok(password) = std::fs::read_to_string(directory.join(SECRETS).join(secret)) {
        let url = database_url(secret, password.trim(), addresses.postgres_port);
        found.insert("DATABASE_URL", url);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> UpAddresses {
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        UpAddresses {
            metrics: "http://127.0.0.1:18000/metrics".to_owned(),
            nats: "nats://127.0.0.1:14222".to_owned(),
            nats_monitor: at(18222),
            postgres_port: 15432,
            prometheus: Some(at(19090)),
            grafana: None,
            archiver_admin: at(18014),
            aggregator_admin: at(18013),
            lake_simulator_admin: at(18011),
            warehouse_simulator_admin: at(18012),
        }
    }

    fn directory() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&addresses()).unwrap();
        std::fs::write(scratch.path().join(FILE), text).unwrap();
        std::fs::create_dir(scratch.path().join(SECRETS)).unwrap();
        for name in ["reader", "archiver", "owner"] {
            let file = scratch.path().join(SECRETS).join(name);
            std::fs::write(file, format!("secret-of-{name}\n")).unwrap();
        }
        scratch
    }

    #[test]
    fn a_login_is_that_of_what_the_tool_does() {
        let scratch = directory();
        let url = |login| {
            let found = read(scratch.path(), login, false).unwrap().unwrap();
            found["DATABASE_URL"].clone()
        };
        let rest = "@127.0.0.1:15432/lakegauge?sslmode=disable";
        assert_eq!(
            url(DatabaseLogin::Reader),
            format!("postgresql://reader:secret-of-reader{rest}")
        );
        assert_eq!(
            url(DatabaseLogin::Archiver),
            format!("postgresql://archiver:secret-of-archiver{rest}")
        );
        let owner = format!("postgresql://lakegauge_owner:secret-of-owner{rest}");
        assert_eq!(url(DatabaseLogin::Owner), owner);
    }

    #[test]
    fn addresses_are_those_of_the_file_and_without_a_secret_the_rest_is_taken() {
        let scratch = directory();
        std::fs::remove_dir_all(scratch.path().join(SECRETS)).unwrap();
        let found = read(scratch.path(), DatabaseLogin::Reader, false).unwrap().unwrap();
        let expected = BTreeMap::from([
            ("NATS_URL", "nats://127.0.0.1:14222".to_owned()),
            ("TOP_METRICS_ADDR", "127.0.0.1:18000".to_owned()),
            ("TOP_ARCHIVER_ADDR", "127.0.0.1:18014".to_owned()),
        ]);
        assert_eq!(found, expected);
        assert_eq!(read(&scratch.path().join("none"), DatabaseLogin::Reader, true).unwrap(), None);
    }

    #[test]
    fn a_directory_that_was_named_must_hold_addresses_and_a_flag_goes_first() {
        let scratch = directory();
        let mut flags = Flags::default();
        flags.set(DATA_DIR.key, scratch.path().display().to_string());
        flags.set("NATS_URL", "nats://elsewhere:1");
        // The addresses for a tool that needs the metrics and NATS, but not the archive.
        let mut settings = [crate::top::Config::table(), bus::service::table()].concat();
        settings.retain(|setting| setting.key != "DATABASE_URL");
        let found = Surroundings::of(&flags, &settings, DatabaseLogin::Reader).unwrap();
        assert_eq!(found.0.get("NATS_URL"), None);
        assert_eq!(found.0["TOP_METRICS_ADDR"], "127.0.0.1:18000");
        assert_eq!(found.0.get("DATABASE_URL"), None, "the tool reads no such setting");
        std::fs::write(scratch.path().join(FILE), "{}").unwrap();
        let error =
            Surroundings::of(&flags, &settings, DatabaseLogin::Reader).unwrap_err().to_string();
        assert!(error.contains("--data-dir") && error.contains("is not what"), "{error}");
        std::fs::remove_file(scratch.path().join(FILE)).unwrap();
        let error =
            Surroundings::of(&flags, &settings, DatabaseLogin::Reader).unwrap_err().to_string();
        assert!(error.contains("no `lakegauge up` runs there"), "{error}");
    }
}
