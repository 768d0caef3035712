//! `lakegauge migrate`: brings the database to the shape that this program needs.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use event_store::{Logins, StoreSettings, service};
use service_kit::logs::LogConfig;
use service_kit::{Setting, Settings};

use crate::{addresses::Login, command};

/// The owner's address, where it is not the one of the services.
const MIGRATION_DATABASE_URL: Setting = Setting {
    key: "MIGRATION_DATABASE_URL",
    flag: "migration-database-url",
    default: None,
    help: "Address of PostgreSQL for `lakegauge migrate`, which logs in as the owner; without it \
           DATABASE_URL.",
    secret: true,
};

/// A migration may build an index over everything that is there.
const STATEMENT_MS_MAX: u64 = 3_600_000;

/// Every setting that is read here.
pub(crate) fn settings() -> Vec<Setting> {
    [MIGRATION_DATABASE_URL].into_iter().chain(service::SETTINGS.iter().copied()).collect()
}

pub(crate) fn command() -> Command {
    let command = Command::new("migrate")
        .about("Bring the database to the shape that this release needs")
        .long_about(
            "Applies the migrations that the database lacks, as its owner; safe to repeat. The \
             services only look whether it was done.",
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::Given::of(matches, &settings(), Login::Owner);
    let loaded = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        load(settings)
    });
    let loaded = match loaded {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return ExitCode::from(crate::EXIT_USAGE),
        Err(problems) => return command::report(Err(problems.into())),
    };
    command::report(command::block_on(migrate(&loaded)))
}

/// Reads the settings; problems are recorded in them.
pub(crate) fn load(settings: &mut Settings<'_>) -> Option<StoreSettings> {
    let own = settings.secret(&MIGRATION_DATABASE_URL)?;
    let mut loaded = match own {
        Some(url) => {
            let services = service::load_optional("lakegauge-migrate", settings)?;
            let limits = services.unwrap_or_else(|| StoreSettings::new("", "lakegauge-migrate"));
            let logins = Logins::by(MIGRATION_DATABASE_URL.key);
            let loaded = StoreSettings { url, logins, ..limits };
            if let Err(error) = loaded.check() {
                settings.problem(&MIGRATION_DATABASE_URL, &error.to_string());
                return None;
            }
            loaded
        }
        None => service::load("lakegauge-migrate", settings)?,
    };
    loaded.statement_timeout_ms = STATEMENT_MS_MAX;
    Some(loaded)
}

async fn migrate(settings: &StoreSettings) -> anyhow::Result<()> {
    command::say_raised_tls(settings);
    let applied = event_store::migrate(settings, |applied| {
        eprintln!("applied {} {} ({} left)", applied.version, applied.name, applied.left);
    })
    .await?;
    let place = settings.place();
    if applied == 0 {
        eprintln!("{place} is up to date");
    } else {
        eprintln!("{place}: {applied} migrations applied");
    }
    Ok(())
}
