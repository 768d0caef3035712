//! `lakegauge migrate`: brings the database to the shape that this program needs.

use std::process::ExitCode;

use clap::{ArgMatches, Command};
use event_store::{Logins, StoreSettings, service};
use service_kit::logs::LogConfig;
use service_kit::{Secret, Setting, Settings};

use crate::{addresses::DatabaseLogin, command};

service_kit::settings! {
    /// The owner, where its address is not the one of the services.
    struct OwnerAddress {
        /// Address of PostgreSQL for `lakegauge migrate`, which logs in as the owner; without it
        /// DATABASE_URL.
        #[secret(MIGRATION_DATABASE_URL, "migration-database-url")]
        url: Option<Secret> = secret,
    }
}

/// A migration may build an index over everything that is there.
const STATEMENT_MS_MAX: u64 = 3_600_000;

/// Every setting that is read here.
pub(crate) fn settings() -> Vec<Setting> {
    [OwnerAddress::table(), service::table()].concat()
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
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Owner);
    let loaded = given.load(|settings| {
        LogConfig::load_of_tool(settings).install();
        load(settings)
    });
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::report(command::block_on(migrate(&loaded)))
}

/// Reads the settings; problems are recorded in them.
pub(crate) fn load(settings: &mut Settings<'_>) -> Option<StoreSettings> {
    let mut loaded = match OwnerAddress::load(settings)?.url {
        Some(url) => {
            let services = service::load_optional("lakegauge-migrate", settings)?;
            let limits = services.unwrap_or_else(|| StoreSettings::new("", "lakegauge-migrate"));
            let logins = Logins::by(OwnerAddress::MIGRATION_DATABASE_URL.key);
            let loaded = StoreSettings { url, logins, ..limits };
            if let Err(error) = loaded.check() {
                settings.problem(&OwnerAddress::MIGRATION_DATABASE_URL, &error.to_string());
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
