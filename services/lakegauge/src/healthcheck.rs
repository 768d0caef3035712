//! `lakegauge healthcheck`: reports as an exit status whether the service of this container is
//! ready. The image has neither curl nor wget.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use service_kit::bootstrap::ADMIN_ADDR;
use service_kit::{Environment, Setting, Settings, http_client};

use crate::command;

const LIVE: &str = "live";
const VERBOSE: &str = "verbose";

fn settings() -> [Setting; 1] {
    [ADMIN_ADDR]
}

pub(crate) fn command() -> Command {
    let command = Command::new("healthcheck")
        .about("Ask the service at ADMIN_ADDR whether it is ready (for HEALTHCHECK in a container)")
        .after_help("Exit status: 0 if it is, 1 if it is not or does not answer.")
        .arg(
            Arg::new(LIVE)
                .long(LIVE)
                .action(ArgAction::SetTrue)
                .help("Check only whether it is alive: /livez instead of /readyz"),
        )
        .arg(
            Arg::new(VERBOSE)
                .long(VERBOSE)
                .action(ArgAction::SetTrue)
                .conflicts_with(LIVE)
                .help("Print each condition with its detail: /readyz?verbose"),
        );
    command::with_settings(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let flags = command::flags(matches, &settings());
    let mut settings = Settings::new(&flags, &Environment);
    let address = settings.parse::<SocketAddr>(&ADMIN_ADDR);
    if let Err(problems) = settings.finish() {
        return command::report(Err(problems.into()));
    }
    let Ok(address) = address.map(from_inside) else { return ExitCode::from(crate::EXIT_USAGE) };
    let verbose = matches.get_flag(VERBOSE);
    let page = match (matches.get_flag(LIVE), verbose) {
        (true, _) => "/livez",
        (false, true) => "/readyz?verbose",
        (false, false) => "/readyz",
    };
    command::report(command::block_on(async {
        let (status, body) = http_client::get(address, page).await?;
        if verbose && status == 200 {
            std::io::stdout().write_all(body.as_bytes())?;
        }
        anyhow::ensure!(status == 200, "{address}{page} answers {status}: {}", body.trim_end());
        Ok(())
    }))
}

/// The address for requests to a service that may listen on all addresses.
fn from_inside(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_every_address_is_asked_on_loopback() {
        let asked = |text: &str| from_inside(text.parse().unwrap()).to_string();
        assert_eq!(asked("0.0.0.0:8010"), "127.0.0.1:8010");
        assert_eq!(asked("[::]:8010"), "[::1]:8010");
        assert_eq!(asked("10.0.0.7:8010"), "10.0.0.7:8010");
    }
}
