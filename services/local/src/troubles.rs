//! Reports why a part is not ready: when that begins, and when it has ended.

use std::collections::BTreeMap;

use service_kit::http_client;

use crate::config::Config;

/// Part and condition, with the reason.
type Failing = BTreeMap<(&'static str, String), String>;

/// What was reported about the parts so far.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Failing);

impl Troubles {
    /// Checks every part, and returns what is new since the last call, one line each.
    pub(crate) async fn news(&mut self, config: &Config) -> Vec<String> {
        let ports = &config.ports;
        let mut parts =
            vec![("archiver", ports.archiver_admin), ("aggregator", ports.aggregator_admin)];
        if config.simulators {
            parts.push(("lake simulator", ports.lake_admin));
            parts.push(("warehouse simulator", ports.warehouse_admin));
        }
        let mut failing = Failing::new();
        for (part, port) in parts {
            match http_client::get(config.reach(port), "/readyz?verbose").await {
                Ok((200, _)) => {}
                Ok((_, text)) => failing.append(&mut conditions(part, &text)),
                Err(error) => {
                    failing.insert((part, "admin port".to_owned()), error.to_string());
                }
            }
        }
        self.compare(failing)
    }

    fn compare(&mut self, failing: Failing) -> Vec<String> {
        let before = std::mem::replace(&mut self.0, failing);
        let begun = self.0.iter().filter(|(key, _)| !before.contains_key(*key));
        let begun =
            begun.map(|((part, name), why)| format!("  ! {part} is not ready: {name}: {why}"));
        let ended = before.keys().filter(|key| !self.0.contains_key(*key));
        let ended = ended.map(|(part, name)| format!("  {part}: {name} is healthy again"));
        begun.chain(ended).collect()
    }
}

/// The failing conditions in `/readyz?verbose`. One condition may fail for several streams.
fn conditions(part: &'static str, text: &str) -> Failing {
    let mut failing = Failing::new();
    let lines = text.lines().filter_map(|line| line.strip_prefix("[-]")?.split_once(' '));
    for (name, why) in lines {
        let whole: &mut String = failing.entry((part, name.to_owned())).or_default();
        if !whole.is_empty() {
            whole.push_str("; ");
        }
        whole.push_str(why);
    }
    failing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_when_it_begins_and_once_when_it_has_ended() {
        let mut troubles = Troubles::default();
        let page = |seconds: u32| {
            let text = format!(
                "[+]nats connected\n[-]backlog A: 3 wait for {seconds} s\n[-]backlog B: 1 waits\n"
            );
            conditions("archiver", &text)
        };
        let begun = ["  ! archiver is not ready: backlog: A: 3 wait for 31 s; B: 1 waits"];
        assert_eq!(troubles.compare(page(31)), begun);
        assert_eq!(troubles.compare(page(32)), [""; 0]);
        assert_eq!(troubles.compare(Failing::new()), ["  archiver: backlog is healthy again"]);
        assert_eq!(troubles.compare(Failing::new()), [""; 0]);
    }
}
