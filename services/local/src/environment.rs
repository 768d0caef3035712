//! The environment of the parts of `up`: only what is set here.
//!
//! Programs read variables that nobody thinks of when a pipeline is started: `PGSSLMODE` and
//! `PGOPTIONS` change every connection to PostgreSQL, `GF_…` every setting of Grafana, `LC_ALL` the
//! language of messages, and proxies where requests go. Variables for our own services are in their
//! tables of settings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use service_kit::{Environment, Setting, fail_points};

use crate::datadir::DataDir;

/// The environment of one part.
pub(crate) type Variables = BTreeMap<String, OsString>;

/// Variables for every part: paths of programs and libraries, and the folder of temporary files.
const OF_THE_MACHINE: &[&str] = &["PATH", "LD_LIBRARY_PATH", "TMPDIR"];

/// Variables for our own executable that developers set.
const OF_THE_DEVELOPER: &[&str] = &[fail_points::VARIABLE, "RUST_BACKTRACE"];

/// The prefix of every variable that PostgreSQL's clients read.
const OF_POSTGRES_CLIENTS: &str = "PG";

/// Settings for servers that are not ours: our services do not inherit them.
pub const OF_OTHER_SERVERS: &[&str] = &[
    "NATS_URL",
    "NATS_CREDS",
    "NATS_NKEY_SEED_FILE",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_CA_FILE",
    "NATS_SUBJECT_PREFIX",
    "NATS_INBOX_PREFIX",
    "NATS_REPLICAS",
    "DATABASE_URL",
    "SUPABASE_DB_URL",
    "MIGRATION_DATABASE_URL",
    "ADMIN_ADDR",
    "METRICS_ADDR",
];

/// The variables of every part: messages in English, times in UTC, and a home without personal
/// settings.
pub(crate) fn base(home: &Path) -> Variables {
    let mut variables = Variables::from([
        ("HOME".to_owned(), home.into()),
        ("LC_ALL".to_owned(), "C.UTF-8".into()),
        ("TZ".to_owned(), "UTC".into()),
    ]);
    pass_on(&mut variables, OF_THE_MACHINE.iter().copied());
    variables
}

/// The variables of our own executable: also those of its settings that are set in our environment.
pub(crate) fn of_ours(dir: &DataDir, settings: &[Setting]) -> Variables {
    let mut variables = base(&dir.at(""));
    pass_on(&mut variables, OF_THE_DEVELOPER.iter().copied());
    let ours = settings.iter().filter(|setting| !OF_OTHER_SERVERS.contains(&setting.key));
    for setting in ours {
        pass_on(&mut variables, [setting.key]);
        if setting.secret {
            pass_on(&mut variables, [&*format!("{}_FILE", setting.key)]);
        }
    }
    variables
}

/// Passes variables on if they are set and not empty.
pub(crate) fn pass_on<'a>(variables: &mut Variables, keys: impl IntoIterator<Item = &'a str>) {
    for key in keys {
        if let Some(value) = Environment::raw(key).filter(|value| !value.is_empty()) {
            variables.insert(key.to_owned(), value);
        }
    }
}

/// Replaces this process by the same program without the variables that PostgreSQL's clients read,
/// if there are any, because the driver can't be configured to ignore them.
///
/// Returns if there are none.
///
/// # Errors
///
/// The program can't be started.
pub(crate) fn without_others(executable: &Path) -> anyhow::Result<()> {
    let others: Vec<OsString> =
        Environment::all().map(|(key, _)| key).filter(|key| is_of_postgres(key)).collect();
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = others.iter().map(|key| key.display().to_string()).collect();
    eprintln!("ignored, because the pipeline has its own PostgreSQL: {}", names.join(", "));
    let mut again = Command::new(executable);
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments);
    for key in others {
        again.env_remove(key);
    }
    Err(again.exec()).context("this executable can't be started again")
}

fn is_of_postgres(key: &OsStr) -> bool {
    key.as_encoded_bytes().starts_with(OF_POSTGRES_CLIENTS.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_libpq_is_one_of_postgres_clients_and_no_setting_of_ours_is() {
        for key in ["PGSSLMODE", "PGHOST", "PGOPTIONS", "PGSERVICEFILE", "PGPASSFILE", "PGTZ"] {
            assert!(is_of_postgres(key.as_ref()), "{key}");
        }
        for setting in crate::settings() {
            assert!(!is_of_postgres(setting.key.as_ref()), "{}", setting.key);
        }
    }

    #[test]
    fn a_part_finds_only_what_we_put_there() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        // The environment of the tests has more variables than these, at least the system's own.
        let allowed = ["HOME", "LC_ALL", "TZ", "PATH", "LD_LIBRARY_PATH", "TMPDIR"];
        for key in base(scratch.path()).keys() {
            assert!(allowed.contains(&key.as_str()), "{key}");
        }
        let settings = [bus::service::table(), event_store::service::table()].concat();
        assert!(settings.iter().any(|setting| setting.key == "DATABASE_URL"));
        for key in of_ours(&dir, &settings).keys() {
            let named = settings.iter().any(|setting| key.starts_with(setting.key));
            let developer = OF_THE_DEVELOPER.contains(&key.as_str());
            assert!(named || developer || allowed.contains(&key.as_str()), "{key}");
            assert!(!OF_OTHER_SERVERS.contains(&key.as_str()), "{key}");
        }
    }
}
