//! Settings by flag and environment, with all their problems at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// One setting: what it is called, what it means and what holds when nobody sets it.
///
/// Services declare theirs in a table, from which come the flags of the command line, their help,
/// and the test of `.env.example`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name in the environment, `ARCHIVER_BATCH_AGE_MS_MAX`. A number's unit is in the name.
    pub key: &'static str,
    /// Name on the command line without the dashes, `batch-age-ms-max`.
    pub flag: &'static str,
    /// What holds when it is not set; nothing where the service works without.
    pub default: Option<&'static str>,
    /// What it does, in one sentence, with the consequence where that is not obvious.
    pub help: &'static str,
    /// Whether its value must never be printed. A secret of the environment may stand in a file, as
    /// people mount them into containers: with `_FILE` behind its key the variable names the file.
    pub secret: bool,
}

/// Where strings come from: the environment, or a map in tests.
pub trait Strings {
    /// The value under the key, if there is one.
    fn get(&self, key: &str) -> Option<String>;

    /// What stands in the file that `<key>_FILE` names, if that is set and this source has files.
    fn file(&self, key: &str) -> Option<std::io::Result<String>> {
        let _not_here = key;
        None
    }
}

/// The process environment. The only reader of it.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Strings for Environment {
    fn get(&self, key: &str) -> Option<String> {
        // Bytes that are no text can't be a valid setting; replaced, they fail where they are read.
        std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
    }

    fn file(&self, key: &str) -> Option<std::io::Result<String>> {
        let path = std::env::var_os(format!("{key}_FILE")).filter(|path| !path.is_empty())?;
        Some(std::fs::read_to_string(path))
    }
}

impl Strings for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        Self::get(self, key).cloned()
    }
}

impl Strings for BTreeMap<&str, &str> {
    fn get(&self, key: &str) -> Option<String> {
        Self::get(self, key).map(|value| (*value).to_owned())
    }
}

/// What stood on the command line, under the keys of the settings.
#[derive(Clone, Debug, Default)]
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Records the value of one flag under the key of its setting.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), value.into());
    }
}

/// Reads settings, flag before environment before default, and remembers what was wrong.
///
/// The readers return nothing for a setting with a problem, so that a `load` function can go on
/// and report the next one too; [`Settings::finish`] gives the sum. No message contains a value,
/// since it may be a secret.
pub struct Settings<'a> {
    flags: &'a Flags,
    environment: &'a dyn Strings,
    problems: Vec<String>,
    given: BTreeMap<&'static str, &'static str>,
}

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("given", &self.given)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

/// Every problem of the settings, none with a value in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid settings: {}", .0.join("; "))]
pub struct InvalidSettings(pub Vec<String>);

impl<'a> Settings<'a> {
    /// Settings over these flags and this environment.
    pub fn new(flags: &'a Flags, environment: &'a dyn Strings) -> Self {
        Self { flags, environment, problems: Vec::new(), given: BTreeMap::new() }
    }

    /// A setting that must have a value, parsed.
    pub fn parse<T>(&mut self, setting: &Setting) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let value = self.required(setting)?;
        self.converted(setting, value.parse())
    }

    /// A setting that may be absent: outer nothing for a problem, inner nothing for no value.
    pub fn optional<T>(&mut self, setting: &Setting) -> Option<Option<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match self.value(setting) {
            None => Some(None),
            Some(value) => self.converted(setting, value.parse()).map(Some),
        }
    }

    /// A setting that must have a value, as it stands.
    pub fn text(&mut self, setting: &Setting) -> Option<String> {
        self.required(setting)
    }

    /// A number that must lie in the range, both ends included.
    pub fn in_range<T>(&mut self, setting: &Setting, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + fmt::Display,
        T::Err: fmt::Display,
    {
        let number = self.parse::<T>(setting)?;
        if range.contains(&number) {
            return Some(number);
        }
        self.problem(setting, &format!("must be from {} to {}", range.start(), range.end()));
        None
    }

    /// A number of milliseconds.
    pub fn duration_ms(&mut self, setting: &Setting) -> Option<Duration> {
        self.parse::<u64>(setting).map(Duration::from_millis)
    }

    /// Yes or no: `true`, `1`, `yes`, `on` and their opposites.
    pub fn switch(&mut self, setting: &Setting) -> Option<bool> {
        match self.required(setting)?.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.problem(setting, "must be true or false");
                None
            }
        }
    }

    /// One of the named choices.
    pub fn choice<T: Clone>(&mut self, setting: &Setting, choices: &[(&str, T)]) -> Option<T> {
        let value = self.required(setting)?;
        let found = choices.iter().find(|(name, _)| *name == value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.problem(setting, &format!("must be one of {}", names.join(", ")));
        }
        found.map(|(_, choice)| choice.clone())
    }

    /// Records a problem that only the caller can see, such as two settings that exclude each
    /// other. The text must not contain a value.
    pub fn problem(&mut self, setting: &Setting, text: &str) {
        self.problems.push(format!("{} (--{}): {text}", setting.key, setting.flag));
    }

    /// Which settings were given, and whether by flag or environment. No values.
    pub fn given(&self) -> String {
        let given: Vec<String> =
            self.given.iter().map(|(key, origin)| format!("{key} by {origin}")).collect();
        if given.is_empty() { "defaults only".to_owned() } else { given.join(", ") }
    }

    /// Whether everything that was read was right.
    ///
    /// # Errors
    ///
    /// All problems, in the order in which they were found.
    pub fn finish(self) -> Result<(), InvalidSettings> {
        if self.problems.is_empty() { Ok(()) } else { Err(InvalidSettings(self.problems)) }
    }

    fn converted<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.problem(setting, &error.to_string())).ok()
    }

    fn required(&mut self, setting: &Setting) -> Option<String> {
        let value = self.value(setting);
        if value.is_none() {
            self.problem(setting, "is required");
        }
        value
    }

    /// An empty value is none: that is how Compose files and `.env` files unset one.
    fn value(&mut self, setting: &Setting) -> Option<String> {
        let filled = |value: &String| !value.is_empty();
        if let Some(value) = self.flags.0.get(setting.key).cloned().filter(filled) {
            self.given.insert(setting.key, "flag");
            return Some(value);
        }
        if let Some(value) = self.environment.get(setting.key).filter(filled) {
            self.given.insert(setting.key, "environment");
            return Some(value);
        }
        if let Some(value) = self.secret_in_file(setting) {
            self.given.insert(setting.key, "file");
            return Some(value);
        }
        setting.default.map(str::to_owned)
    }

    /// Without the line end that editors and `echo` put there.
    fn secret_in_file(&mut self, setting: &Setting) -> Option<String> {
        let read = setting.secret.then(|| self.environment.file(setting.key)).flatten()?;
        match read {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned())
                .filter(|value| !value.is_empty()),
            Err(error) => {
                self.problem(setting, &format!("{}_FILE can't be read: {error}", setting.key));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    const LEN: Setting = Setting {
        key: "BATCH_LEN_MAX",
        flag: "batch-len-max",
        default: Some("10"),
        help: "Events in a batch.",
        secret: false,
    };
    const URL: Setting =
        Setting { key: "URL", flag: "url", default: None, help: "Where to.", secret: true };

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let mut flags = Flags::default();
        let mut environment = BTreeMap::new();
        let read = |flags: &Flags, environment: &BTreeMap<&str, &str>| {
            Settings::new(flags, environment).parse::<u32>(&LEN).unwrap()
        };
        assert_eq!(read(&flags, &environment), 10);
        environment.insert("BATCH_LEN_MAX", "20");
        assert_eq!(read(&flags, &environment), 20);
        flags.set(LEN.key, "30");
        assert_eq!(read(&flags, &environment), 30);
    }

    #[test]
    fn every_problem_is_reported_at_once_and_without_values() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("BATCH_LEN_MAX", "0"), ("ADDR", "hunter2")]);
        let mut settings = Settings::new(&flags, &environment);
        let addr = Setting { key: "ADDR", flag: "addr", ..URL };
        assert_eq!(settings.parse::<NonZeroUsize>(&LEN), None);
        assert_eq!(settings.parse::<std::net::SocketAddr>(&addr), None);
        assert_eq!(settings.text(&URL), None);
        let text = settings.finish().unwrap_err().to_string();
        assert_eq!(
            text,
            "invalid settings: BATCH_LEN_MAX (--batch-len-max): number would be zero for non-zero \
             type; ADDR (--addr): invalid socket address syntax; URL (--url): is required"
        );
    }

    #[test]
    fn an_empty_value_is_none() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("BATCH_LEN_MAX", ""), ("URL", "")]);
        let mut settings = Settings::new(&flags, &environment);
        assert_eq!(settings.parse::<u32>(&LEN), Some(10));
        assert_eq!(settings.optional::<String>(&URL), Some(None));
        assert_eq!(settings.given(), "defaults only");
        assert_eq!(settings.finish(), Ok(()));
    }

    /// A source of which every secret stands in a file.
    struct Files(BTreeMap<&'static str, std::io::ErrorKind>);

    impl Strings for Files {
        fn get(&self, _key: &str) -> Option<String> {
            None
        }

        fn file(&self, key: &str) -> Option<std::io::Result<String>> {
            Some(match self.0.get(key) {
                Some(error) => Err((*error).into()),
                None => Ok(format!("in the file of {key}\n")),
            })
        }
    }

    #[test]
    fn a_secret_may_stand_in_a_file_and_nothing_else_may() {
        let mut flags = Flags::default();
        let files = Files(BTreeMap::new());
        let read = |flags: &Flags| {
            let mut settings = Settings::new(flags, &files);
            (settings.text(&URL), settings.parse::<u32>(&LEN), settings.given())
        };
        assert_eq!(
            read(&flags),
            (Some("in the file of URL".to_owned()), Some(10), "URL by file".to_owned())
        );
        flags.set(URL.key, "by flag");
        assert_eq!(read(&flags).0, Some("by flag".to_owned()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem() {
        let flags = Flags::default();
        let files = Files(BTreeMap::from([("URL", std::io::ErrorKind::PermissionDenied)]));
        let mut settings = Settings::new(&flags, &files);
        assert_eq!(settings.optional::<String>(&URL), Some(None));
        assert_eq!(
            settings.finish().unwrap_err().to_string(),
            "invalid settings: URL (--url): URL_FILE can't be read: permission denied"
        );
    }

    #[test]
    fn ranges_switches_and_choices_say_what_is_allowed() {
        let flags = Flags::default();
        let environment = BTreeMap::from([("BATCH_LEN_MAX", "11")]);
        let mut settings = Settings::new(&flags, &environment);
        assert_eq!(settings.in_range(&LEN, 1..=11), Some(11));
        assert_eq!(settings.in_range(&LEN, 1..=9), None);
        assert_eq!(settings.switch(&LEN), None);
        assert_eq!(settings.choice(&LEN, &[("a", 1), ("b", 2)]), None);
        assert_eq!(settings.choice(&LEN, &[("11", 5)]), Some(5));
        let InvalidSettings(problems) = settings.finish().unwrap_err();
        assert_eq!(problems.len(), 3);
        assert!(problems[0].ends_with("must be from 1 to 9"));
        assert!(problems[2].ends_with("must be one of a, b"));
    }
}
