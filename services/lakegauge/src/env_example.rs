//! `lakegauge settings`: every setting of every part, as a file for the environment.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use service_kit::Setting;

use crate::{command, services};

const HEADER: &str = "\
# Every setting of Lakegauge, with what it means and its default.
#
# `./run` and Compose read `.env` in their directory; copy this file there and remove the # in front
# of what you set. Each setting is also a flag of the commands that read it. A flag overrides the
# environment, which overrides the default; an empty value counts as not set. Names end in units.
# Passwords and addresses with passwords may be in files: NATS_PASSWORD_FILE=/run/secret names a
# file that is read again at each connect, so that the password can be rotated without a restart.
# `lakegauge settings` prints this file.
";

pub(crate) fn command() -> Command {
    Command::new("settings")
        .about("Print every setting with its meaning and default, as .env.example does")
}

pub(crate) fn run(_matches: &ArgMatches) -> ExitCode {
    command::print(render())
}

/// The whole file.
fn render() -> String {
    let mut text = HEADER.to_owned();
    let mut seen = BTreeSet::new();
    for (title, settings) in services::sections() {
        let new: Vec<Setting> =
            settings.into_iter().filter(|setting| seen.insert(setting.key)).collect();
        if new.is_empty() {
            continue;
        }
        text.push_str(&format!("\n# === {title}\n"));
        for setting in new {
            text.push('\n');
            for line in wrapped(setting.help) {
                text.push_str(&format!("# {line}\n"));
            }
            let default = setting.default.unwrap_or_default();
            text.push_str(&format!("#{}={default}\n", setting.key));
        }
    }
    text
}

/// Comment lines are as long as those of the code.
const WIDTH: usize = 98;

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > WIDTH {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use service_kit::{Flags, Settings, Strings};
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    const EXAMPLE: &str = include_str!("../../../.env.example");

    /// Remembers which settings were read.
    #[derive(Default)]
    struct AskedSettings(RefCell<BTreeSet<String>>, BTreeMap<String, String>);

    impl Strings for AskedSettings {
        fn get(&self, key: &str) -> Option<String> {
            self.0.borrow_mut().insert(key.to_owned());
            Strings::get(&self.1, key)
        }
    }

    /// The settings of the file, as if every # before a setting were removed.
    fn of_the_file() -> BTreeMap<String, String> {
        EXAMPLE
            .lines()
            .filter_map(|line| line.trim_start_matches('#').split_once('='))
            .filter(|(key, _)| {
                key.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
            })
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn the_example_is_what_the_tables_say() {
        assert_eq!(EXAMPLE, render(), "`lakegauge settings > .env.example` brings it up to date");
    }

    #[test]
    fn the_example_loads_and_every_key_in_it_is_read_and_every_setting_is_in_it() {
        let mut values = of_the_file();
        // The only settings without a default that a service needs.
        values.insert("DATABASE_URL".to_owned(), "postgresql://u:p@localhost/lakegauge".to_owned());
        values.insert("COLLECT_FOLDER_PATH".to_owned(), "/data/raw".to_owned());
        values.insert("COLLECT_POSTGRES_LOG".to_owned(), "/var/log/postgresql".to_owned());
        values.insert("COLLECT_POSTGRES_STATE_FILE".to_owned(), "positions.json".to_owned());
        let asked = AskedSettings(RefCell::default(), values.clone());
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, &asked);
        services::load_everything(&mut settings);
        assert_eq!(settings.finish(), Ok(()));
        let asked = asked.0.into_inner();
        let written: BTreeSet<String> = values.into_keys().collect();
        let unread: Vec<_> = written.difference(&asked).collect();
        assert!(unread.is_empty(), "in .env.example, but read by nobody: {unread:?}");
        let missing: Vec<_> = asked.difference(&written).collect();
        assert!(missing.is_empty(), "read, but not in .env.example: {missing:?}");
    }

    /// Settings of the image, without use in a container, or of a service that Compose does not
    /// start.
    const NOT_PASSED_ON: &[&str] = &[
        "ADMIN_ADDR",
        "METRICS_ADDR",
        "NATS_CREDS",
        "NATS_NKEY_SEED_FILE",
        "NATS_TOKEN",
        "NATS_SUBJECT_PREFIX",
        "SIMULATE_LAKE_EXPECTED_FILE",
        "SIMULATE_WAREHOUSE_EXPECTED_FILE",
        "AGGREGATOR_REPLAY",
        "COLLECT_FOLDER_PATH",
        "COLLECT_FOLDER_BUCKET",
        "COLLECT_FOLDER_INTERVAL_S",
        "COLLECT_FOLDER_SOURCE",
        "COLLECT_POSTGRES_LOG",
        "COLLECT_POSTGRES_STATE_FILE",
        "COLLECT_POSTGRES_WAREHOUSE",
        "COLLECT_POSTGRES_PLANS",
        "COLLECT_POSTGRES_POLL_MS",
        "COLLECT_POSTGRES_SOURCE",
    ];

    #[test]
    fn compose_passes_every_setting_of_its_services_on() {
        let compose = include_str!("../../../docker-compose.yml");
        let keys = |line: &'static str| Some(line.trim_start().split_once(':')?.0);
        let passed: BTreeSet<&str> = compose.lines().filter_map(keys).collect();
        for entry in services::SERVICES {
            for Setting { key, .. } in entry.all_settings() {
                let is_set = passed.contains(key) || passed.contains(&*format!("{key}_FILE"));
                assert!(is_set || NOT_PASSED_ON.contains(&key), "{key} is not passed on");
            }
        }
    }

    #[test]
    fn a_key_means_the_same_everywhere() {
        let mut seen: BTreeMap<&str, Setting> = BTreeMap::new();
        for setting in services::sections().into_iter().flat_map(|(_, settings)| settings) {
            let first = *seen.entry(setting.key).or_insert(setting);
            assert_eq!(first, setting);
        }
    }
}
