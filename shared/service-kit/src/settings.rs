//! Settings from flags and the environment, with all their problems at once.

mod declare;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Secret;

/// One setting: its names, its meaning and its default.
///
/// [`settings!`](crate::settings!) declares settings. The flags of the command line, their help and
/// `.env.example` are made from the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name in the environment, `ARCHIVER_BATCH_AGE_MS_MAX`. A number's unit is in the name.
    pub key: &'static str,
    /// Name on the command line without the dashes, `batch-age-ms-max`.
    pub flag: &'static str,
    /// The value if it is not set; `None` if the service works without a value.
    pub default: Option<&'static str>,
    /// What it does, in one sentence, with the consequences if they are not obvious.
    pub help: &'static str,
    /// Whether its value must never be printed. A secret of the environment may be in a file, as
    /// people mount them into containers: the variable with `_FILE` after the key contains the
    /// file's path, see [`Settings::secret`].
    pub secret: bool,
}

/// A source of strings: the environment, or a map in tests.
pub trait Strings {
    /// The value of the key, if there is one.
    fn get(&self, key: &str) -> Option<String>;

    /// Whether the value of the key is valid text; `true` if it is not set.
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

/// The process environment. Only this type reads it.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Environment {
    /// The value of the key as the system stores it, for a child process.
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
        // Bytes that are not UTF-8 are a problem of the setting, see `is_text`.
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

/// The values of the command line, by the keys of the settings.
#[derive(Clone, Debug, Default)]
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Records the value of one flag, by the key of its setting.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// The value for the key of a setting, if the command line has one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// Reads settings (flags first, then the environment, then defaults), and records their problems.
///
/// The readers return [`Recorded`] for a setting with a problem, so that a `load` function can
/// continue and find the next one too; [`Settings::finish`] returns all of them. No message
/// contains a value, since it may be a secret.
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
    /// Whether it is required but not set.
    pub is_missing: bool,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (--{}): {}", self.setting.key, self.setting.flag, self.detail)
    }
}

/// Every problem of the settings, none of which contains a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSettings(pub Vec<SettingProblem>);

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.0.iter().map(SettingProblem::to_string).collect();
        write!(f, "invalid settings: {}", problems.join("; "))
    }
}

impl std::error::Error for InvalidSettings {}

/// A setting has a problem, which is recorded in its [`Settings`].
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded;

impl<'a> Settings<'a> {
    /// Settings with these flags and this environment.
    pub fn new(flags: &'a Flags, environment: &'a dyn Strings) -> Self {
        Self {
            flags,
            environment,
            problems: Vec::new(),
            given: BTreeMap::new(),
            choices: BTreeMap::new(),
        }
    }

    /// The result of `load` if nothing is set.
    ///
    /// # Errors
    ///
    /// A setting is required.
    pub fn defaults<T>(
        load: impl FnOnce(&mut Settings<'_>) -> Result<T, Recorded>,
    ) -> Result<T, Recorded> {
        let (flags, environment) = (Flags::default(), BTreeMap::<String, String>::new());
        load(&mut Settings::new(&flags, &environment))
    }

    /// A required setting, parsed.
    pub fn parse<T>(&mut self, setting: &Setting) -> Result<T, Recorded>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.parse_by(setting, str::parse)
    }

    /// A setting that may be absent, parsed.
    pub fn optional<T>(&mut self, setting: &Setting) -> Result<Option<T>, Recorded>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.optional_by(setting, str::parse)
    }

    /// A required setting, parsed by a function.
    pub fn parse_by<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Recorded> {
        let value = self.required(setting)?;
        self.converted(setting, parse(&value))
    }

    /// A setting that may be absent, parsed by a function.
    pub fn optional_by<T, E: fmt::Display>(
        &mut self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Recorded> {
        match self.value(setting)? {
            None => Ok(None),
            Some(value) => self.converted(setting, parse(&value)).map(Some),
        }
    }

    /// A required setting, as text.
    pub fn text(&mut self, setting: &Setting) -> Result<String, Recorded> {
        self.required(setting)
    }

    /// A secret that may be absent. A secret in a file is read again whenever it is used; here it
    /// must be readable and not empty.
    pub fn secret(&mut self, setting: &Setting) -> Result<Option<Secret>, Recorded> {
        if let Some(text) = self.by_flag_or_environment(setting) {
            return Ok(Some(Secret::Text(text)));
        }
        Ok(match self.in_file(setting)? {
            Some((secret, _)) => Some(secret),
            None => setting.default.map(Secret::from),
        })
    }

    /// A required secret.
    pub fn required_secret(&mut self, setting: &Setting) -> Result<Secret, Recorded> {
        self.secret(setting)?.ok_or_else(|| self.missing(setting, "is required"))
    }

    /// A number in the range, both ends included.
    pub fn in_range<T>(
        &mut self,
        setting: &Setting,
        range: RangeInclusive<T>,
    ) -> Result<T, Recorded>
    where
        T: FromStr + PartialOrd + fmt::Display,
        T::Err: fmt::Display,
    {
        let number = self.parse::<T>(setting)?;
        if range.contains(&number) {
            return Ok(number);
        }
        let text = format!("must be from {} to {}", range.start(), range.end());
        Err(self.problem(setting, &text))
    }

    /// A number of milliseconds.
    pub fn duration_ms(&mut self, setting: &Setting) -> Result<Duration, Recorded> {
        self.parse::<u64>(setting).map(Duration::from_millis)
    }

    /// A number of milliseconds above 0. A wrong number is replaced by 1 ms, so that settings which
    /// are checked together with this one can still be checked.
    pub fn duration_ms_above_0(&mut self, setting: &Setting) -> Result<Duration, Recorded> {
        let parsed = self.text(setting)?.parse().ok().filter(|ms| *ms > 0);
        if parsed.is_none() {
            self.problem(setting, "must be a whole number of milliseconds above 0");
        }
        Ok(Duration::from_millis(parsed.unwrap_or(1)))
    }

    /// A number of seconds.
    pub fn duration_s(&mut self, setting: &Setting) -> Result<Duration, Recorded> {
        self.parse::<u64>(setting).map(Duration::from_secs)
    }

    /// Yes or no: `true`, `1`, `yes`, `on` and their opposites.
    pub fn switch(&mut self, setting: &Setting) -> Result<bool, Recorded> {
        match self.required(setting)?.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(self.problem(setting, "must be true or false")),
        }
    }

    /// Whether something stays on: the opposite of the switch that turns it off.
    pub fn left_on(&mut self, setting: &Setting) -> Result<bool, Recorded> {
        self.switch(setting).map(|is_off| !is_off)
    }

    /// One of the named choices.
    pub fn choice<T: Clone>(
        &mut self,
        setting: &Setting,
        choices: &[(&str, T)],
    ) -> Result<T, Recorded> {
        let names = choices.iter().map(|(name, _)| (*name).to_owned());
        self.choices.insert(setting.key, names.collect());
        let value = self.required(setting)?;
        let found = choices.iter().find(|(name, _)| *name == value);
        found.map(|(_, choice)| choice.clone()).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.problem(setting, &format!("must be one of {}", names.join(", ")))
        })
    }

    /// Records a problem that only the caller can find, such as two settings that exclude each
    /// other. The text must not contain a value.
    pub fn problem(&mut self, setting: &Setting, text: &str) -> Recorded {
        self.record(setting, text, false)
    }

    /// Records that a required setting is not set.
    pub fn missing(&mut self, setting: &Setting, text: &str) -> Recorded {
        self.record(setting, text, true)
    }

    fn record(&mut self, setting: &Setting, text: &str, is_missing: bool) -> Recorded {
        let detail = text.to_owned();
        self.problems.push(SettingProblem { setting: *setting, detail, is_missing });
        Recorded
    }

    /// How many problems were found so far.
    pub fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// Which settings were given, and whether by flag or environment, without values.
    pub fn given(&self) -> String {
        let given: Vec<String> =
            self.given.iter().map(|(key, origin)| format!("{key} by {origin}")).collect();
        if given.is_empty() { "defaults only".to_owned() } else { given.join(", ") }
    }

    /// The choices of each setting that was read as a choice, by its key.
    pub const fn choices(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.choices
    }

    /// Whether all settings that were read are valid.
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
    ) -> Result<T, Recorded> {
        result.map_err(|error| self.problem(setting, &error.to_string()))
    }

    fn required(&mut self, setting: &Setting) -> Result<String, Recorded> {
        self.value(setting)?.ok_or_else(|| self.missing(setting, "is required"))
    }

    fn value(&mut self, setting: &Setting) -> Result<Option<String>, Recorded> {
        if let Some(value) = self.by_flag_or_environment(setting) {
            return Ok(Some(value));
        }
        Ok(match self.in_file(setting)? {
            Some((_, value)) => Some(value),
            None => setting.default.map(str::to_owned),
        })
    }

    /// The value from flag or environment. An empty value counts as not set, because Compose and
    /// `.env` files unset settings this way.
    fn by_flag_or_environment(&mut self, setting: &Setting) -> Option<String> {
        let filled = |value: &String| !value.is_empty();
        if let Some(value) = self.flags.0.get(setting.key).cloned().filter(filled) {
            self.given.insert(setting.key, "flag");
            return Some(value);
        }
        if let Some(value) = self.environment.get(setting.key).filter(filled) {
            self.given.insert(setting.key, "environment");
            if !self.environment.is_text(setting.key) {
                // A path with replaced bytes would be another path.
                self.problem(setting, "is not UTF-8");
            }
            return Some(value);
        }
        None
    }

    /// A secret whose file is named, with the file's current contents.
    fn in_file(&mut self, setting: &Setting) -> Result<Option<(Secret, String)>, Recorded> {
        let path = setting.secret.then(|| self.environment.file(setting.key)).flatten();
        let Some(path) = path else { return Ok(None) };
        let secret = Secret::File { key: setting.key, path };
        let value = self.converted(setting, secret.read())?;
        self.given.insert(setting.key, "file");
        Ok(Some((secret, value)))
    }
}

#[cfg(test)]
mod tests;
