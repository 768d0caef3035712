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
    assert_eq!(settings.parse::<NonZeroUsize>(&LEN), Err(Recorded));
    assert_eq!(settings.parse::<std::net::SocketAddr>(&addr), Err(Recorded));
    assert_eq!(settings.text(&URL), Err(Recorded));
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
    assert_eq!(settings.parse::<u32>(&LEN), Ok(10));
    assert_eq!(settings.optional::<String>(&URL), Ok(None));
    assert_eq!(settings.given(), "defaults only");
    assert_eq!(settings.finish(), Ok(()));
}

/// A source with every secret in this file.
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
        ((Ok("in the file".to_owned()), Ok(Some(secret)), Ok(10)), "URL by file".to_owned())
    );
    flags.set(URL.key, "by flag");
    let by_flag = (Ok("by flag".to_owned()), Ok(Some(Secret::from("by flag"))), Ok(10));
    assert_eq!(read(&flags).0, by_flag);
}

/// A source whose only value has bytes that are not UTF-8.
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
    let _replaced = settings.text(&URL);
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
        assert_eq!(settings.secret(&URL), Err(Recorded));
        assert_eq!(settings.optional::<String>(&URL), Err(Recorded));
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
    assert_eq!(settings.in_range(&LEN, 1..=11), Ok(11));
    assert_eq!(settings.in_range(&LEN, 1..=9), Err(Recorded));
    assert_eq!(settings.switch(&LEN), Err(Recorded));
    assert_eq!(settings.choice(&LEN, &[("a", 1), ("b", 2)]), Err(Recorded));
    assert_eq!(settings.choice(&LEN, &[("11", 5)]), Ok(5));
    assert_eq!(settings.choices()[LEN.key], ["11"]);
    let InvalidSettings(problems) = settings.finish().unwrap_err();
    assert_eq!(problems.len(), 3);
    assert!(problems[0].to_string().ends_with("must be from 1 to 9"));
    assert!(problems[2].to_string().ends_with("must be one of a, b"));
}
