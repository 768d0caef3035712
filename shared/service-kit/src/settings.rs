//! Settings by flag and environment, with all their problems at once.

mod declare;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Secret;

/// One setting: what it is called, what it means and what holds when nobody sets it.
///
/// [`settings!`](crate::settings!) declares them. From the tables come the flags of the command line,
/// their help, and `.env.example`.
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
    /// people mount them into containers: with `_FILE` behind its key the variable names the file,
    /// see [`Settings::secret`].
    pub secret: bool,
}

/// Where strings come from: the environment, or a map in tests.
pub trait Strings {
    /// The value under the key, if there is one.
    fn get(&self, key: &str) -> Option<String>;

    /// Whether what stands under the key is text; one that is not set is.
    fn is_text(&self, key: &str) -> bool {
        let _always_here = key;
        true
    }

    /// The file that `<key>_FILE` names, if that is set and this source has files.
    fn file(&self, key: &str) -> Option<PathBuf> {
        let _not_here = key;
        None
    }
}

/// The process environment. The only reader of it.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Environment {
    /// The value under the key as the system has it, for a child process.
    pub fn raw(key: &str) -> Option<OsString> {
        std::env::var_os(key)
    }

    /// Everything that is set.
    pub fn all() -> impl Iterator<Item = (OsString, OsString)> {
        std::env::vars_os()
    }
}

impl Strings for Environment {
    fn get(&self, key: &str) -> Option<String> {
        // Bytes that are no text are a problem of the setting, see `is_text`.
        std::env::var_os(key).map(|value| value.to_string_lossy().into_owned())
    }

    fn is_text(&self, key: &str) -> bool {
        std::env::var_os(key).is_none_or(|value| value.to_str().is_some())
    }

    fn file(&self, key: &str) -> Option<PathBuf> {
        let path = std::env::var_os(format!("{key}_FILE")).filter(|path| !path.is_empty())?;
        Some(PathBuf::from(path))
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

    /// The value under the key of a setting, if the command line has one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
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
    problems: Vec<SettingProblem>,
    given: BTreeMap<&'static str, &'static str>,
    choices: BTreeMap<&'static str, Vec<String>>,
}

impl fmt::Debug for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("given", &self.given)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a setting. Contains no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingProblem {
    /// The setting.
    pub setting: Setting,
    detail: String,
    /// Whether nobody set it although it is needed.
    pub is_missing: bool,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (--{}): {}", self.setting.key, self.setting.flag, self.detail)
    }
}

/// Every problem of the settings, none with a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSettings(pub Vec<SettingProblem>);

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.0.iter().map(SettingProblem::to_string).collect();
        write!(f, "invalid settings: {}", problems.join("; "))
    }
}

impl std::error::Error for InvalidSettings {}

impl<'a> Settings<'a> {
    /// Settings over these flags and this environment.
    pub fn new(flags: &'a Flags, environment: &'a dyn Strings) -> Self {
        Self {
            flags,
            environment,
            problems: Vec::new(),
            given: BTreeMap::new(),
            choices: BTreeMap::new(),
        }
    }

    /// What `load` gives where nobody sets anything.
    pub fn defaults<T>(load: impl FnOnce(&mut Settings<'_>) -> Option<T>) -> Option<T> {
        let (flags, environment) = (Flags::default(), BTreeMap::<String, String>::new());
        load(&mut Settings::new(&flags, &environment))
    }

    /// A setting that must have a value, parsed.
    pub fn parse<T>(&mut self, setting: &Setting) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.parse_by(setting, str::parse)
    }

    /// A setting that may be absent: outer nothing for a problem, inner nothing for no value.
    pub fn optional<T>(&mut self, setting: &Setting) -> Option<Option<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional_by(setting, str::parse)
    }

    /// A setting that must have a value, by a function that says what is wrong with it.
    pub fn parse_by<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.required(setting)?;
        self.converted(setting, parse(&value))
    }

    /// A setting that may be absent, by a function that says what is wrong with it: outer nothing for a
    /// problem, inner nothing for no value.
    pub fn optional_by<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.value(setting) {
            None => Some(None),
            Some(value) => self.converted(setting, parse(&value)).map(Some),
        }
    }

    /// A setting that must have a value, as it stands.
    pub fn text(&mut self, setting: &Setting) -> Option<String> {
        self.required(setting)
    }

    /// A secret that may be absent: outer nothing for a problem, inner nothing for no value. One in a
    /// file is read again whenever it is used; here it must be readable and not empty.
    pub fn secret(&mut self, setting: &Setting) -> Option<Option<Secret>> {
        if let Some(text) = self.by_flag_or_environment(setting) {
            return Some(Some(Secret::Text(text)));
        }
        match self.in_file(setting) {
            Some((secret, read)) => read.map(|_| Some(secret)),
            None => Some(setting.default.map(Secret::from)),
        }
    }

    /// A secret that must have a value.
    pub fn required_secret(&mut self, setting: &Setting) -> Option<Secret> {
        let secret = self.secret(setting)?;
        if secret.is_none() {
            self.missing(setting, "is required");
        }
        secret
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

    /// A number of milliseconds above 0. Instead of a wrong one it is 1 ms, so that settings which are
    /// looked at together with this one can be.
    pub fn duration_ms_above_0(&mut self, setting: &Setting) -> Option<Duration> {
        let parsed = self.text(setting)?.parse().ok().filter(|ms| *ms > 0);
        if parsed.is_none() {
            self.problem(setting, "must be a whole number of milliseconds above 0");
        }
        Some(Duration::from_millis(parsed.unwrap_or(1)))
    }

    /// A number of seconds.
    pub fn duration_s(&mut self, setting: &Setting) -> Option<Duration> {
        self.parse::<u64>(setting).map(Duration::from_secs)
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

    /// Whether something is left on: the opposite of the switch that turns it off.
    pub fn left_on(&mut self, setting: &Setting) -> Option<bool> {
        self.switch(setting).map(|is_off| !is_off)
    }

    /// One of the named choices.
    pub fn choice<T: Clone>(&mut self, setting: &Setting, choices: &[(&str, T)]) -> Option<T> {
        let names = choices.iter().map(|(name, _)| (*name).to_owned());
        self.choices.insert(setting.key, names.collect());
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
        self.record(setting, text, false);
    }

    /// Records that nobody set it although it is needed.
    pub fn missing(&mut self, setting: &Setting, text: &str) {
        self.record(setting, text, true);
    }

    fn record(&mut self, setting: &Setting, text: &str, is_missing: bool) {
        self.problems.push(SettingProblem {
            setting: *setting,
            detail: text.to_owned(),
            is_missing,
        });
    }

    /// How many problems were found until now.
    pub fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// Which settings were given, and whether by flag or environment. No values.
    pub fn given(&self) -> String {
        let given: Vec<String> =
            self.given.iter().map(|(key, origin)| format!("{key} by {origin}")).collect();
        if given.is_empty() { "defaults only".to_owned() } else { given.join(", ") }
    }

    /// The words of each setting that was read as a choice, by its key.
    pub const fn choices(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.choices
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
            self.missing(setting, "is required");
        }
        value
    }

    fn value(&mut self, setting: &Setting) -> Option<String> {
        if let Some(value) = self.by_flag_or_environment(setting) {
            return Some(value);
        }
        if let Some((_, read)) = self.in_file(setting) {
            return read;
        }
        setting.default.map(str::to_owned)
    }

    /// What flag or environment give. An empty value is none: that is how Compose files and `.env`
    /// files unset one.
    fn by_flag_or_environment(&mut self, setting: &Setting) -> Option<String> {
        let filled = |value: &String| !value.is_empty();
        if let Some(value) = self.flags.0.get(setting.key).cloned().filter(filled) {
            self.given.insert(setting.key, "flag");
            return Some(value);
        }
        if let Some(value) = self.environment.get(setting.key).filter(filled) {
            self.given.insert(setting.key, "environment");
            if !self.environment.is_text(setting.key) {
                // A path with other bytes in it would be another path.
                self.problem(setting, "is not UTF-8");
            }
            return Some(value);
        }
        None
    }

    /// A secret whose file is named, with what stands there now; that it can't be read is a problem.
    fn in_file(&mut self, setting: &Setting) -> Option<(Secret, Option<String>)> {
        let path = setting.secret.then(|| self.environment.file(setting.key)).flatten()?;
        let secret = Secret::File { key: setting.key, path };
        let read = secret.read().map_err(|problem| self.problem(setting, &problem.to_string()));
        if read.is_ok() {
            self.given.insert(setting.key, "file");
        }
        Some((secret, read.ok()))
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

    /// A source of which every secret stands in this file.
    struct InFile(PathBuf);

    impl Strings for InFile {
        fn get(&self, _key: &str) -> Option<String> {
            None
        }

        fn file(&self, _key: &str) -> Option<PathBuf> {
            Some(self.0.clone())
        }
    }

    #[test]
    fn a_secret_may_stand_in_a_file_and_nothing_else_may() {
        let mut flags = Flags::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "in the file\n").unwrap();
        let file = InFile(path.clone());
        let read = |flags: &Flags| {
            let mut settings = Settings::new(flags, &file);
            let read = (settings.text(&URL), settings.secret(&URL), settings.parse::<u32>(&LEN));
            (read, settings.given())
        };
        let secret = Secret::File { key: "URL", path };
        assert_eq!(
            read(&flags),
            (
                (Some("in the file".to_owned()), Some(Some(secret)), Some(10)),
                "URL by file".to_owned()
            )
        );
        flags.set(URL.key, "by flag");
        let by_flag = (Some("by flag".to_owned()), Some(Some(Secret::from("by flag"))), Some(10));
        assert_eq!(read(&flags).0, by_flag);
    }

    /// A source whose only value has bytes that are no text.
    struct Bytes;

    impl Strings for Bytes {
        fn get(&self, _key: &str) -> Option<String> {
            Some("data\u{fffd}".to_owned())
        }

        fn is_text(&self, _key: &str) -> bool {
            false
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_refused_rather_than_replaced_by_another() {
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, &Bytes);
        settings.text(&URL);
        assert_eq!(
            settings.finish().unwrap_err().to_string(),
            "invalid settings: URL (--url): is not UTF-8"
        );
    }

    #[test]
    fn a_file_that_is_missing_or_empty_at_start_is_a_problem_that_names_it() {
        let flags = Flags::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let file = InFile(path.clone());
        let problem = || {
            let mut settings = Settings::new(&flags, &file);
            assert_eq!(settings.secret(&URL), None);
            assert_eq!(settings.optional::<String>(&URL), Some(None));
            settings.finish().unwrap_err().0.pop().unwrap().to_string()
        };
        let missing = problem();
        assert!(missing.starts_with("URL (--url): URL_FILE can't be read: "), "{missing}");
        assert!(missing.contains(&path.display().to_string()), "{missing}");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(problem(), format!("URL (--url): URL_FILE is empty: {}", path.display()));
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
        assert_eq!(settings.choices()[LEN.key], ["11"]);
        let InvalidSettings(problems) = settings.finish().unwrap_err();
        assert_eq!(problems.len(), 3);
        assert!(problems[0].to_string().ends_with("must be from 1 to 9"));
        assert!(problems[2].to_string().ends_with("must be one of a, b"));
    }
}
