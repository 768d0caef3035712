//! Flags of the command line from tables of settings, and their values.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use bus::BusError;
use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, ArgMatches, Command};
use domain::{Mismatch, adoption::CannotAdopt};
use event_store::{StoreError, StoreSettings};
use local::DATA_DIR;
use service_kit::{Flags, InvalidSettings, Setting, Settings, settings::Recorded};

use crate::addresses::{self, DatabaseLogin, Surroundings};
use crate::stop::Stop;

/// Adds a flag for each setting; its help contains the environment variable and the default.
pub(crate) fn with_settings(command: Command, settings: &[Setting]) -> Command {
    settings.iter().fold(command, |command, setting| command.arg(argument(setting)))
}

/// [`with_settings`] for a tool, which reads addresses that are not set from `up`'s data directory.
pub(crate) fn of_tool(command: Command, settings: &[Setting]) -> Command {
    with_settings(with_settings(command, settings), &[DATA_DIR])
}

/// The arguments of a tool: from the command line, the environment and `up`'s data directory.
pub(crate) struct ToolArguments {
    flags: Flags,
    surroundings: Result<Surroundings, InvalidSettings>,
}

impl ToolArguments {
    /// The arguments for these settings, for a tool with this login to the archive.
    pub(crate) fn of(matches: &ArgMatches, settings: &[Setting], login: DatabaseLogin) -> Self {
        let flags = flags(matches, &[settings, &[DATA_DIR]].concat());
        let surroundings = Surroundings::of(&flags, settings, login);
        Self { flags, surroundings }
    }

    /// Reads settings.
    ///
    /// # Errors
    ///
    /// The exit status, after every problem was reported.
    pub(crate) fn load<T>(
        &self,
        load: impl FnOnce(&mut Settings<'_>) -> Result<T, Recorded>,
    ) -> Result<T, ExitCode> {
        let loaded = self.settings().and_then(|mut settings| {
            let loaded = load(&mut settings);
            settings.finish().map(|()| loaded)
        });
        let loaded = loaded.map_err(|problems| report(Err(problems.into())))?;
        loaded.map_err(|Recorded| ExitCode::from(crate::EXIT_USAGE))
    }

    /// The settings, for reading.
    ///
    /// # Errors
    ///
    /// The named data directory contains no addresses.
    pub(crate) fn settings(&self) -> Result<Settings<'_>, InvalidSettings> {
        let surroundings = self.surroundings.as_ref().map_err(Clone::clone)?;
        Ok(Settings::new(&self.flags, surroundings))
    }
}

/// The values of these settings on the command line.
pub(crate) fn flags(matches: &ArgMatches, settings: &[Setting]) -> Flags {
    let mut flags = Flags::default();
    for setting in settings {
        if let Some(value) = matches.get_one::<String>(setting.key) {
            flags.set(setting.key, value.clone());
        }
    }
    flags
}

/// The exit status of a tool. An error is written to standard error with its causes.
///
/// A reader that closed its end, like `head`, is not an error.
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
            if let Some(told) = addresses::told() {
                eprintln!("       ({told})");
            }
            status(&error)
        }
    }
}

/// The exit status of an error. Sides that don't belong together are a configuration error.
pub(crate) fn status(error: &anyhow::Error) -> ExitCode {
    if mismatch(error).is_some() || error.is::<CannotAdopt>() {
        ExitCode::from(service_kit::EXIT_CONFIGURATION)
    } else {
        ExitCode::FAILURE
    }
}

/// The mismatch in an error, if there is one.
pub(crate) fn mismatch(error: &anyhow::Error) -> Option<&Mismatch> {
    if let Some(BusError::Mismatch(mismatch)) = error.downcast_ref() {
        return Some(mismatch);
    }
    if let Some(StoreError::Mismatch(mismatch)) = error.downcast_ref() {
        return Some(mismatch);
    }
    error.downcast_ref()
}

/// [`report`] for a tool whose result is whether all is well.
pub(crate) fn report_status(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(false) => ExitCode::FAILURE,
        Ok(true) => ExitCode::SUCCESS,
        Err(error) => report(Err(error)),
    }
}

/// Runs a tool to its end, or until SIGTERM or SIGINT. Then it is interrupted as by a kill; every
/// tool is written so that this leaves nothing half done.
pub(crate) fn block_on<T>(running: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    block_on_until_stopped(async |mut stop| stop.unless(running).await?)
}

/// Runs a tool to its end; the tool itself handles the signal.
pub(crate) fn block_on_until_stopped<T, F>(running: impl FnOnce(Stop) -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::anyhow!("the runtime can't be built: {error}"))?;
    let ended = runtime.block_on(async {
        let stop = Stop::listen().context("signals can't be handled")?;
        running(stop).await
    });
    // A pending read of standard input would delay the exit.
    runtime.shutdown_background();
    ended
}

/// Runs a blocking function, such as reading standard input; a signal ends the wait for it.
pub(crate) fn block_on_blocking<T: Send + 'static>(
    blocking: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    block_on(async { tokio::task::spawn_blocking(blocking).await? })
}

/// Writes a text to standard output; this is the whole work of a tool.
pub(crate) fn print(text: impl Into<Vec<u8>>) -> ExitCode {
    let text = text.into();
    report(block_on_blocking(move || {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&text)?;
        Ok(stdout.flush()?)
    }))
}

/// Reports on standard error that TLS was raised, because the log of a tool contains only problems.
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
        .value_parser(SettingText { choices: &[] })
        .value_name(value_name(setting))
        .help(help)
        .help_heading(heading(setting.key));
    if is_switch(setting) {
        // Allows `--no-simulators` as well as `--no-simulators=false`.
        argument.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        argument.allow_hyphen_values(true)
    }
}

/// The text of a setting. The allowed words are shown and completed here; they are checked where
/// the setting is read, because it may also come from the environment.
#[derive(Clone)]
struct SettingText {
    choices: &'static [String],
}

impl TypedValueParser for SettingText {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        // The error names the argument; clap's own message for invalid UTF-8 does not.
        OsStringValueParser::new()
            .try_map(|value| value.into_string().map_err(|_| "is not UTF-8"))
            .parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = self.choices.iter().map(|word| PossibleValue::new(word.as_str()));
        (!self.choices.is_empty()).then(|| -> Box<dyn Iterator<Item = _>> { Box::new(words) })
    }
}

/// The allowed words of each setting that is a choice, by its name in the environment.
pub(crate) type Choices = BTreeMap<&'static str, Vec<String>>;

/// Shows and completes the allowed words of settings that are choices, in every subcommand.
pub(crate) fn offer(choices: &'static Choices, command: Command) -> Command {
    command
        .mut_args(|argument| match choices.get(argument.get_id().as_str()) {
            Some(choices) => argument.value_parser(SettingText { choices }),
            None => argument,
        })
        .mut_subcommands(|subcommand| offer(choices, subcommand))
}

fn is_switch(setting: &Setting) -> bool {
    matches!(setting.default, Some("true" | "false"))
}

/// The kind of a value, by the unit in the flag's name.
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

    type Read<T> = Result<T, Recorded>;

    fn read(arguments: &[&str]) -> (Read<u64>, Read<bool>, Read<Option<i64>>) {
        let command = with_settings(Command::new("x"), TABLE);
        let matches = command.try_get_matches_from(arguments).unwrap();
        let flags = flags(&matches, TABLE);
        let environment = BTreeMap::from([("BATCH_AGE_MS_MAX", "30")]);
        let mut settings = Settings::new(&flags, &environment);
        (settings.parse(&TABLE[0]), settings.switch(&TABLE[1]), settings.optional(&TABLE[2]))
    }

    #[test]
    fn flags_reach_the_settings() {
        assert_eq!(read(&["x"]), (Ok(30), Ok(false), Ok(None)));
        let given = read(&["x", "--batch-age-ms-max", "5", "--no-simulators", "--offset", "-3"]);
        assert_eq!(given, (Ok(5), Ok(true), Ok(Some(-3))));
        assert_eq!(read(&["x", "--no-simulators=false"]).1, Ok(false));
    }

    #[test]
    fn a_flag_that_is_no_text_is_refused_by_its_name() {
        use std::os::unix::ffi::OsStringExt as _;
        let value = std::ffi::OsString::from_vec(b"--offset=a\xff".to_vec());
        let command = with_settings(Command::new("x"), TABLE);
        let error = command.try_get_matches_from(["x".into(), value]).unwrap_err().to_string();
        assert!(error.contains("--offset") && error.contains("is not UTF-8"), "{error}");
    }

    #[test]
    fn a_choice_is_shown_completed_and_refused_with_its_words() {
        let mut root = crate::root();
        let up = root.find_subcommand_mut("up").unwrap();
        let help = up.render_long_help().to_string();
        assert!(help.contains("noisy-tenant"), "{help}");
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut root, "lakegauge", &mut script);
        let script = String::from_utf8(script).unwrap();
        for words in ["none latency-regression", "json bincode", "auto human json", "LAKE_0"] {
            assert!(script.contains(words), "{words}");
        }
    }

    #[test]
    fn help_names_the_variable_the_unit_and_the_default() {
        let mut command = with_settings(Command::new("x"), TABLE);
        let help = command.render_help().to_string();
        assert!(help.contains("--batch-age-ms-max <MILLISECONDS>"), "{help}");
        assert!(help.contains("[env: BATCH_AGE_MS_MAX] [default: 20]"), "{help}");
    }
}
