//! Replay runs: separate streams beside the live ones, created for a run and removed with it.
//!
//! A run has one stream for each stream that it replays, `REPLAY_<run>_LAKE_0`, and one for the
//! samples of the aggregator that counts it, `REPLAY_<run>_SAMPLES`.

use std::collections::BTreeMap;

use domain::Stream;
use serde_json::json;

use crate::{
    api::{self, STREAM_NOT_FOUND},
    connection::Bus,
    error::BusError,
    topology::Topology,
};

/// Longest name of a run, since names of streams and subjects contain it.
const RUN_CHARS_MAX: usize = 32;

/// Room for the samples of an aggregator that counts a run: some days of them, in bytes.
const SAMPLES_MAX_BYTES: u64 = 16 << 20;

/// The name of a run: small letters, digits and hyphens, so that it is one token of a subject and
/// one part of a stream's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRun(String);

impl ReplayRun {
    /// A run of this name; `None` if the name is not allowed.
    pub fn new(name: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = !name.is_empty() && name.len() <= RUN_CHARS_MAX && name.chars().all(legal);
        fits.then(|| Self(name.to_owned()))
    }

    /// The run's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The stream that holds the replayed events of a live stream.
    pub fn stream(&self, stream: Stream) -> String {
        format!("{}{stream}", self.beginning())
    }

    /// The stream that holds the samples of the aggregator that counts the run.
    pub fn samples(&self) -> String {
        format!("{}SAMPLES", self.beginning())
    }

    /// The streams of the run: one of `max_bytes` for each live stream, and one for the samples.
    fn topology(
        &self,
        prefix: &str,
        streams: &[Stream],
        max_bytes: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Topology {
        let subjects = wire::Subjects::default();
        let events = streams
            .iter()
            .map(|stream| (self.stream(*stream), subjects.replay(&self.0, *stream), max_bytes));
        let samples = (self.samples(), subjects.replay_sample(&self.0), SAMPLES_MAX_BYTES);
        let about = format!("Replay run {} (Lakegauge)", self.0);
        Topology::like_samples(prefix, events.chain([samples]), &about, metadata)
    }

    fn beginning(&self) -> String {
        format!("REPLAY_{}_", self.0)
    }
}

impl std::str::FromStr for ReplayRun {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name).ok_or("must be up to 32 small letters, digits and hyphens")
    }
}

impl Bus {
    /// Creates the streams of a run that do not exist yet. `metadata` describes the run; it is
    /// written when a stream is created, and does not change later.
    ///
    /// # Errors
    ///
    /// The errors of [`Bus::apply_topology`].
    pub async fn declare_replay(
        &self,
        run: &ReplayRun,
        streams: &[Stream],
        max_bytes: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), BusError> {
        let prefix = &self.settings().subject_prefix;
        let topology = run.topology(prefix, streams, max_bytes, metadata);
        self.apply_topology(&topology).await.map(|_| ())
    }

    /// Removes the streams of a run, and the snapshots of the aggregator that counted it. Returns
    /// the names of the streams on the server. A second call removes what a crash left behind.
    ///
    /// # Errors
    ///
    /// Any error of a request.
    pub async fn remove_replay(&self, run: &ReplayRun) -> Result<Vec<String>, BusError> {
        let beginning = self.server_name(&run.beginning());
        let prefix = self.server_name("");
        let mut removed = Vec::new();
        for name in self.stream_names(&json!({})).await? {
            if !name.starts_with(&beginning) {
                continue;
            }
            // The snapshots go first, because nobody would search for them after their stream is
            // gone.
            let stream = name.strip_prefix(&prefix).unwrap_or(&name);
            self.snapshots().forget(stream).await?;
            self.epochs().forget(stream).await?;
            self.delete_stream(&name).await?;
            removed.push(name);
        }
        Ok(removed)
    }

    async fn delete_stream(&self, name: &str) -> Result<(), BusError> {
        let deleted: Result<serde_json::Value, BusError> = api::request(
            &self.context,
            format!("STREAM.DELETE.{name}"),
            &json!({}),
            &format!("removing stream {name}"),
        )
        .await;
        match deleted {
            Ok(_) => Ok(()),
            // Somebody else was faster, or an answer was lost.
            Err(error) if error.server_code() == Some(STREAM_NOT_FOUND) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::fit;

    #[test]
    fn a_run_has_a_name_that_can_stand_in_subjects_and_streams() {
        for name in ["a", "2026-11-24", "full"] {
            assert_eq!(ReplayRun::new(name).unwrap().name(), name);
        }
        for name in ["", "a.b", "A", "a_b", "*", "a b", &"x".repeat(33)] {
            assert_eq!(ReplayRun::new(name), None, "{name}");
        }
    }

    #[test]
    fn no_run_has_streams_that_begin_like_those_of_another() {
        let (one, other) = (ReplayRun::new("a").unwrap(), ReplayRun::new("a-lake").unwrap());
        assert_eq!(one.stream(Stream::lake(0)), "REPLAY_a_LAKE_0");
        assert_eq!(one.samples(), "REPLAY_a_SAMPLES");
        assert!(!other.stream(Stream::lake(0)).starts_with(&one.beginning()));
    }

    #[test]
    fn the_streams_of_a_replay_run_are_bounded_and_take_its_subjects_only() {
        let run = ReplayRun::new("r1").unwrap();
        let streams = [Stream::lake(0), Stream::warehouse(2)];
        let about = BTreeMap::from([("about".to_owned(), "all".to_owned())]);
        let topology = run.topology("acme", &streams, 5_000, &about);
        let declared: Vec<_> = topology
            .streams
            .iter()
            .map(|declaration| {
                assert_eq!(fit(&declaration.name, &declaration.config), Ok(()));
                assert_eq!(declaration.config["discard"], json!("new"));
                assert_eq!(declaration.metadata, about);
                let config = &declaration.config;
                (declaration.name.as_str(), config["subjects"][0].as_str(), &config["max_bytes"])
            })
            .collect();
        assert_eq!(
            declared,
            [
                ("acme_REPLAY_r1_LAKE_0", Some("acme.replay.r1.lake.0"), &json!(5_000)),
                ("acme_REPLAY_r1_WAREHOUSE_2", Some("acme.replay.r1.warehouse.2"), &json!(5_000)),
                (
                    "acme_REPLAY_r1_SAMPLES",
                    Some("acme.replay.r1.sample"),
                    &json!(SAMPLES_MAX_BYTES)
                ),
            ]
        );
    }
}
