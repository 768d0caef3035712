//! Logs on standard error: lines for people on a terminal, JSON for machines elsewhere.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::settings::{Setting, Settings};

/// Form of the logs.
pub const LOG_FORMAT: Setting = Setting {
    key: "LOG_FORMAT",
    flag: "log-format",
    default: Some("auto"),
    help: "Form of the logs: human, json, or auto (human on a terminal, json elsewhere).",
    secret: false,
};
/// Lowest level of the logs.
pub const LOG_LEVEL: Setting = Setting {
    key: "LOG_LEVEL",
    flag: "log-level",
    default: Some("info"),
    help: "What is logged: off, error, warn, info, debug or trace, or by module, as \
           info,async_nats=debug.",
    secret: false,
};

/// Client libraries that log each of their attempts, and what remains of their logs. The service
/// that uses the library reports problems itself, once per change. Naming the library in the level
/// shows its lines too.
const TOLD_ELSEWHERE: &[(&str, &str)] = &[
    ("async_nats", "async_nats=warn,async_nats::connector=off"),
    // Slow statements are logged by the library; how long commits take is a metric.
    ("sqlx", "sqlx=error"),
];

/// Format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// How logs are written.
#[derive(Debug)]
pub struct LogConfig {
    format: LogFormat,
    filter: EnvFilter,
}

impl LogConfig {
    /// Reads format and level. Problems are recorded, and the defaults are used, so that the
    /// problems can be logged.
    pub fn load(settings: &mut Settings<'_>) -> Self {
        Self::read(settings, &LOG_FORMAT, &LOG_LEVEL)
    }

    /// The same for a tool, whose output people read: it logs only problems, as text, unless
    /// another format or level is set.
    pub fn load_of_tool(settings: &mut Settings<'_>) -> Self {
        let format = Setting { default: Some("human"), ..LOG_FORMAT };
        let level = Setting { default: Some("warn"), ..LOG_LEVEL };
        Self::read(settings, &format, &level)
    }

    fn read(settings: &mut Settings<'_>, format: &Setting, level: &Setting) -> Self {
        let auto = if std::io::stderr().is_terminal() { LogFormat::Human } else { LogFormat::Json };
        let forms = [("auto", auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
        let format = settings.choice(format, &forms).unwrap_or(auto);
        let level = settings.text(level).unwrap_or_default();
        let filter = EnvFilter::try_new(directives(&level)).unwrap_or_else(|error| {
            settings.problem(&LOG_LEVEL, &format!("is no filter ({})", hide(&error)));
            EnvFilter::new("info")
        });
        Self { format, filter }
    }

    /// Installs the subscriber; a second call in a process changes nothing.
    pub fn install(self) {
        let base = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        // An error means that a test or an embedding program has installed another subscriber.
        let installed = match self.format {
            LogFormat::Human => base.with_target(false).try_init(),
            LogFormat::Json => base.json().flatten_event(true).try_init(),
        };
        installed.unwrap_or_default();
    }
}

/// The level, with the lines left out that are reported elsewhere.
fn directives(level: &str) -> String {
    let mut directives = level.to_owned();
    for (library, silence) in TOLD_ELSEWHERE {
        if !level.contains(library) {
            directives = format!("{directives},{silence}");
        }
    }
    directives
}

/// The kind of a filter's error, without the text that the error quotes.
fn hide(error: &tracing_subscriber::filter::ParseError) -> &'static str {
    if error.to_string().contains("level") {
        "a level is unknown"
    } else {
        "a directive is unknown"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;
    use std::collections::BTreeMap;

    #[test]
    fn a_form_that_does_not_exist_is_a_problem() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("LOG_FORMAT", "xml")]);
        let mut settings = Settings::new(&flags, &environment);
        LogConfig::load(&mut settings);
        let text = settings.finish().unwrap_err().to_string();
        assert!(text.contains("LOG_FORMAT (--log-format): must be one of auto"), "{text}");
    }

    #[test]
    fn attempts_of_a_library_are_logged_only_for_those_who_ask_for_it() {
        let quiet = "async_nats=warn,async_nats::connector=off";
        assert_eq!(directives("info"), format!("info,{quiet},sqlx=error"));
        assert_eq!(directives("info,async_nats=debug"), "info,async_nats=debug,sqlx=error");
        assert_eq!(directives("info,sqlx=warn"), format!("info,sqlx=warn,{quiet}"));
    }
}
