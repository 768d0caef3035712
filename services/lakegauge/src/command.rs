//! Flags of the command line from tables of settings, and back.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use event_store::StoreSettings;
use service_kit::{Flags, Setting};

/// Adds a flag for each setting; its help names the variable in the environment, and the default.
pub(crate) fn with_settings<'a>(
    command: Command,
    settings: impl IntoIterator<Item = &'a Setting>,
) -> Command {
    settings.into_iter().fold(command, |command, setting| command.arg(argument(setting)))
}

/// What stood on the command line of these settings.
pub(crate) fn flags<'a>(
    matches: &ArgMatches,
    settings: impl IntoIterator<Item = &'a Setting>,
) -> Flags {
    let mut flags = Flags::default();
    for setting in settings {
        if let Some(value) = matches.get_one::<String>(setting.key) {
            flags.set(setting.key, value.clone());
        }
    }
    flags
}

/// The exit status of a tool; an error is written to standard error with its chain.
///
/// A reader that went away, as `head` does, is no failure.
pub(crate) fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_went_away(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<service_kit::InvalidSettings>() => {
            eprintln!("error: {error:#}");
            ExitCode::from(crate::EXIT_USAGE)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// [`report`] for a tool whose answer is whether all is well.
pub(crate) fn report_status(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(false) => ExitCode::FAILURE,
        Ok(true) => ExitCode::SUCCESS,
        Err(error) => report(Err(error)),
    }
}

/// Runs a tool to its end.
pub(crate) fn block_on<T>(running: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::anyhow!("the runtime can't be built: {error}"))?;
    let ended = runtime.block_on(running);
    // A read of standard input that still waits would hold the exit up.
    runtime.shutdown_background();
    ended
}

/// Says on standard error that TLS was raised, where a tool writes no log.
pub(crate) fn say_raised_tls(store: &StoreSettings) {
    if let Some(raised) = store.raised_tls() {
        eprintln!("{raised}");
    }
}

fn reader_went_away(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn argument(setting: &Setting) -> Arg {
    let mut help = format!("{} [env: {}]", setting.help, setting.key);
    if let Some(default) = setting.default.filter(|default| !default.is_empty()) {
        help.push_str(&format!(" [default: {default}]"));
    }
    let argument = Arg::new(setting.key)
        .long(setting.flag)
        .value_name(value_name(setting))
        .help(help)
        .help_heading(heading(setting.key));
    if is_switch(setting) {
        // `--no-simulators` as well as `--no-simulators=false`.
        argument.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        argument.allow_hyphen_values(true)
    }
}

fn is_switch(setting: &Setting) -> bool {
    matches!(setting.default, Some("true" | "false"))
}

/// What a value is, by the unit in the flag's name.
fn value_name(setting: &Setting) -> &'static str {
    let has = |word: &str| setting.flag.split('-').any(|part| part == word);
    if is_switch(setting) {
        "BOOL"
    } else if has("ms") {
        "MILLISECONDS"
    } else if has("s") {
        "SECONDS"
    } else if has("bytes") {
        "BYTES"
    } else if has("url") {
        "URL"
    } else if has("addr") {
        "ADDRESS:PORT"
    } else if has("port") {
        "PORT"
    } else if has("file") {
        "FILE"
    } else if has("dir") {
        "DIRECTORY"
    } else {
        "VALUE"
    }
}

fn heading(key: &str) -> Option<&'static str> {
    match key.split('_').next().unwrap_or_default() {
        "NATS" => Some("NATS"),
        "DATABASE" | "SUPABASE" | "MIGRATE" => Some("Database"),
        "ADMIN" | "LOG" | "SHUTDOWN" => Some("Service"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::Settings;
    use std::collections::BTreeMap;

    const TABLE: &[Setting] = &[
        Setting {
            key: "BATCH_AGE_MS_MAX",
            flag: "batch-age-ms-max",
            default: Some("20"),
            help: "Longest wait of an event.",
            secret: false,
        },
        Setting {
            key: "NO_SIMULATORS",
            flag: "no-simulators",
            default: Some("false"),
            help: "Start none.",
            secret: false,
        },
        Setting { key: "OFFSET", flag: "offset", default: None, help: "By.", secret: false },
    ];

    fn read(arguments: &[&str]) -> (Option<u64>, Option<bool>, Option<Option<i64>>) {
        let command = with_settings(Command::new("x"), TABLE);
        let matches = command.try_get_matches_from(arguments).unwrap();
        let flags = flags(&matches, TABLE);
        let environment = BTreeMap::from([("BATCH_AGE_MS_MAX", "30")]);
        let mut settings = Settings::new(&flags, &environment);
        (settings.parse(&TABLE[0]), settings.switch(&TABLE[1]), settings.optional(&TABLE[2]))
    }

    #[test]
    fn flags_reach_the_settings() {
        assert_eq!(read(&["x"]), (Some(30), Some(false), Some(None)));
        let given = read(&["x", "--batch-age-ms-max", "5", "--no-simulators", "--offset", "-3"]);
        assert_eq!(given, (Some(5), Some(true), Some(Some(-3))));
        assert_eq!(read(&["x", "--no-simulators=false"]).1, Some(false));
    }

    #[test]
    fn help_names_the_variable_the_unit_and_the_default() {
        let mut command = with_settings(Command::new("x"), TABLE);
        let help = command.render_help().to_string();
        assert!(help.contains("--batch-age-ms-max <MILLISECONDS>"), "{help}");
        assert!(help.contains("[env: BATCH_AGE_MS_MAX] [default: 20]"), "{help}");
    }
}
