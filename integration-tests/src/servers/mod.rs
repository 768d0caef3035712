//! The servers of the tests and what stands before them, and where they are taken from: containers,
//! or executables of this machine.

pub mod docker;
pub mod nats;
pub mod operator;
pub mod postgres;
pub mod prefix_proxy;
pub mod prometheus;
pub mod proxy;
pub mod raw_nats;

use std::{io::Write as _, sync::OnceLock};

use anyhow::{Context as _, Result, anyhow};

use docker::Image;

/// `containers`, `local`, or `auto`: the first of the two that there is.
const WAY: &str = "LAKEGAUGE_TEST_SERVERS";
/// The variable that names the broker's image, and what users with a registry run, as
/// docker-compose.yml says; `scripts/offline-images` names others.
pub const NATS: (&str, &str) = ("NATS_IMAGE", "nats:2.15.0-alpine");
/// The same for the database.
pub const POSTGRES: (&str, &str) = ("POSTGRES_IMAGE", "postgres:17");
/// What to do where nothing is found.
pub(crate) const PROVIDE: &str = "provide one of: the addresses of a PostgreSQL and a NATS for tests \
    (TEST_DATABASE_URL, TEST_NATS_URL), which those take that need no server of their own; a Docker \
    engine with images (scripts/offline-images builds them without a registry); executables of this \
    machine (./test installs them)";

static CHOSEN: OnceLock<Result<Way, String>> = OnceLock::new();

/// What a server is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Containers of these images.
    Containers {
        /// The broker's.
        nats: Image,
        /// The database's.
        postgres: Image,
    },
    /// Executables of this machine.
    Local,
}

/// The way of this process, chosen once and said on standard error.
///
/// # Errors
///
/// Containers were demanded, and there is no engine or an image is missing.
pub fn way() -> Result<Way> {
    CHOSEN
        .get_or_init(|| choose().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

#[expect(clippy::disallowed_methods, reason = "tests take their servers from the environment")]
fn choose() -> Result<Way> {
    let asked = std::env::var(WAY).unwrap_or_default();
    let (way, because) = match asked.as_str() {
        "local" => (Way::Local, format!("{WAY} says so")),
        "containers" => (containers().context(PROVIDE)?, format!("{WAY} says so")),
        "" | "auto" => match containers() {
            Ok(way) => (way, "a Docker engine answers and has the images".to_owned()),
            Err(error) => (Way::Local, format!("{error:#}")),
        },
        other => return Err(anyhow!("{WAY} is {other}: it may be containers, local or auto")),
    };
    let what = match &way {
        Way::Containers { nats, postgres } => format!("containers of {nats} and {postgres}"),
        Way::Local => "executables of this machine".to_owned(),
    };
    // Past the harness's capture: what was tested is no secret.
    writeln!(std::io::stderr(), "servers of the tests: {what} ({because})")?;
    Ok(way)
}

fn containers() -> Result<Way> {
    let (nats, postgres) = (docker::image(NATS.0, NATS.1)?, docker::image(POSTGRES.0, POSTGRES.1)?);
    Ok(Way::Containers { nats, postgres })
}
