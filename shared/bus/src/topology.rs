//! The streams as `nats/streams.json` declares them. Pure.

use std::collections::BTreeMap;

use domain::Rules;
use serde_json::{Map, Value, json};

use crate::{
    connection::{prefixed_subject, server_name},
    error::BusError,
    pipeline::RequestedPipeline,
    room::{Purpose, Room, TopologyOverrides},
};

/// In the order in which the streams are created. The buckets for pointers and snapshots reserve
/// their room before the event streams, since a full store that can't take a snapshot would never
/// be trimmed. The buckets don't allow direct reads, because a follower in a cluster may answer
/// those with an older pointer or epoch than the one in force.
const DECLARATIONS: &str = include_str!("../../../nats/streams.json");

const KV_PREFIX: &str = "KV_";
const OBJECT_PREFIX: &str = "OBJ_";

/// Every stream that the pipeline needs, as requested from the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    pub(crate) streams: Vec<Declaration>,
    /// The pipeline of its event streams; `None` for a replay run, which works with any pipeline.
    pub(crate) wanted: Option<RequestedPipeline>,
    /// The settings from which its sizes follow; `None` for a replay run, whose sizes are given.
    overrides: Option<TopologyOverrides>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declaration {
    /// The stream's name on the server.
    pub(crate) name: String,
    /// The configuration for the server's API, without metadata.
    pub(crate) config: Map<String, Value>,
    /// Written when the stream is created, never later.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The stream's purpose. The metadata of event streams is that of their pipeline.
    pub(crate) purpose: Purpose,
    /// Options that an operator may have changed, and that no setting asks to change back.
    pub(crate) left_alone: Vec<&'static str>,
    /// Whether the size follows from a setting. Then it is adapted while the stream is empty, so
    /// that a changed setting helps after a first attempt without room.
    pub(crate) is_resized_while_empty: bool,
}

/// What a stream requests, before it is created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestedStream<'a> {
    /// The stream's name on the server.
    pub(crate) name: &'a str,
    pub(crate) purpose: Purpose,
    pub(crate) bytes: u64,
    /// Whether the size is adapted while the stream is empty.
    pub(crate) is_resized_while_empty: bool,
}

impl Topology {
    /// The declarations of `nats/streams.json` under a subject prefix. A new pipeline gets these
    /// rules.
    pub fn embedded(prefix: &str, overrides: &TopologyOverrides, rules: &Rules) -> Self {
        let partitions = Self::partitions();
        Self {
            streams: declared()
                .into_iter()
                .map(|config| Declaration::new(config, prefix, overrides))
                .collect(),
            wanted: Some(RequestedPipeline {
                rules: rules.clone(),
                named: BTreeMap::new(),
                partitions,
            }),
            overrides: Some(overrides.clone()),
        }
    }

    /// The same for a pipeline in which these rules, by their keys in metadata, must be in force.
    #[must_use]
    pub fn demanding(mut self, named: BTreeMap<String, String>) -> Self {
        if let Some(wanted) = &mut self.wanted {
            wanted.named = named;
        }
        self
    }

    /// The same with these rules for a new pipeline.
    pub(crate) fn begun_with(mut self, rules: &Rules) -> Self {
        if let Some(wanted) = &mut self.wanted {
            wanted.rules = rules.clone();
            wanted.named.clear();
        }
        self
    }

    /// The same without the event streams: what a broker can have before it carries a pipeline.
    pub(crate) fn without_events(&self) -> Self {
        let streams = self.streams.iter().filter(|declared| !declared.has_events());
        let overrides = self.overrides.clone();
        Self { streams: streams.cloned().collect(), wanted: None, overrides }
    }

    /// The declared event streams.
    pub fn event_streams() -> Vec<domain::Stream> {
        declared().iter().filter_map(event_stream).collect()
    }

    /// Number of partitions of each side, by the declared event streams.
    pub fn partitions() -> u16 {
        Self::event_streams().iter().map(|stream| stream.partition + 1).max().unwrap_or(0)
    }

    /// Streams with these names, subjects and sizes in bytes, otherwise like the declared stream of
    /// samples: with `discard: new`, so that a full stream makes the publisher wait.
    pub(crate) fn like_samples(
        prefix: &str,
        streams: impl Iterator<Item = (String, String, u64)>,
        description: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let declaration = |(name, subject, max_bytes): (String, String, u64)| {
            let mut config = declared().into_iter().find(is_samples).unwrap_or_default();
            config.insert("name".to_owned(), json!(name));
            config.insert("subjects".to_owned(), json!([subject]));
            config.insert("description".to_owned(), json!(description));
            let mut own = Declaration::new(config, prefix, &TopologyOverrides::default());
            own.config.insert("max_bytes".to_owned(), json!(max_bytes));
            Declaration { metadata: metadata.clone(), ..own }
        };
        Self { streams: streams.map(declaration).collect(), wanted: None, overrides: None }
    }

    /// The settings from which the sizes follow; `None` if the sizes are given.
    pub(crate) const fn overrides(&self) -> Option<&TopologyOverrides> {
        self.overrides.as_ref()
    }

    /// What each stream requests.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = RequestedStream<'_>> {
        self.streams.iter().map(|declaration| RequestedStream {
            name: &declaration.name,
            purpose: declaration.purpose,
            bytes: max_bytes(&declaration.config),
            is_resized_while_empty: declaration.is_resized_while_empty,
        })
    }

    /// The same with event streams of another size, and the sizes that follow from it. Existing
    /// streams keep their size, because no setting asks for this one, and another service may have
    /// computed another size.
    pub(crate) fn with_event_streams_of(&self, bytes: u64) -> Self {
        let mut sized = self.clone();
        let Some(overrides) = &self.overrides else { return sized };
        let event_stream_max_bytes = Some(bytes);
        let room = Room::new(&TopologyOverrides { event_stream_max_bytes, ..overrides.clone() });
        for declaration in &mut sized.streams {
            if let Some(bytes) = room.of(declaration.purpose) {
                declaration.config.insert("max_bytes".to_owned(), json!(bytes));
            }
        }
        sized
    }

    /// The names of the streams on the server, in the order in which they are created.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|declaration| declaration.name.as_str())
    }
}

fn declared() -> Vec<Map<String, Value>> {
    serde_json::from_str(DECLARATIONS).expect("a test reads nats/streams.json")
}

fn event_stream(config: &Map<String, Value>) -> Option<domain::Stream> {
    domain::Stream::from_name(config.get("name")?.as_str()?)
}

fn is_samples(config: &Map<String, Value>) -> bool {
    config.get("name").and_then(Value::as_str) == Some(domain::SAMPLES)
}

impl Declaration {
    fn new(mut config: Map<String, Value>, prefix: &str, overrides: &TopologyOverrides) -> Self {
        let declared_name =
            config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = bucket_aware_name(prefix, &declared_name);
        config.insert("name".to_owned(), json!(name));
        if let Some(subjects) = config.get_mut("subjects").and_then(Value::as_array_mut) {
            for subject in subjects {
                let text = subject.as_str().unwrap_or_default();
                *subject = json!(bucket_aware_subject(prefix, text));
            }
        }
        let mut left_alone = vec!["placement"];
        let purpose = Purpose::of(&declared_name);
        if let Some(bytes) = Room::new(overrides).of(purpose) {
            config.insert("max_bytes".to_owned(), json!(bytes));
        }
        let asked = match purpose {
            Purpose::Events => overrides.event_stream_max_bytes,
            Purpose::Snapshots => overrides.snapshot_bucket_max_bytes,
            Purpose::Samples => overrides.samples_max_bytes,
            Purpose::Pointers | Purpose::Replay => None,
        };
        if asked.is_none() {
            left_alone.push("max_bytes");
        }
        let follows = matches!(purpose, Purpose::Snapshots | Purpose::Samples);
        let is_resized_while_empty = follows && overrides.event_stream_max_bytes.is_some();
        match overrides.replicas {
            Some(replicas) => {
                config.insert("num_replicas".to_owned(), json!(replicas));
            }
            None => left_alone.push("num_replicas"),
        }
        Self {
            name,
            config,
            metadata: BTreeMap::new(),
            purpose,
            left_alone,
            is_resized_while_empty,
        }
    }

    pub(crate) fn has_events(&self) -> bool {
        self.purpose == Purpose::Events
    }

    /// The options in which a stream on the server differs, with both values.
    pub(crate) fn differences<'a>(
        &'a self,
        echo: &'a Map<String, Value>,
    ) -> Vec<OptionDifference<'a>> {
        self.config
            .iter()
            .filter_map(|(option, asked)| {
                let got = echo.get(option).unwrap_or(&Value::Null);
                (!same(asked, got)).then_some(OptionDifference { option, asked, got })
            })
            .collect()
    }

    pub(crate) fn ignored(&self, difference: &OptionDifference<'_>) -> BusError {
        BusError::IgnoredOption {
            stream: self.name.clone(),
            option: difference.option.to_owned(),
            asked: difference.asked.to_string(),
            got: difference.got.to_string(),
        }
    }
}

/// An option whose value on the server is not the requested one.
#[derive(Debug, PartialEq)]
pub(crate) struct OptionDifference<'a> {
    pub(crate) option: &'a str,
    asked: &'a Value,
    got: &'a Value,
}

/// The size that a stream reserves, in bytes.
pub(crate) fn max_bytes(config: &Map<String, Value>) -> u64 {
    config.get("max_bytes").and_then(Value::as_u64).unwrap_or(0)
}

/// Refuses streams that would lose messages that nobody has read, or that would fill up for good.
pub(crate) fn fit(stream: &str, config: &Map<String, Value>) -> Result<(), BusError> {
    let unfit = |detail: &str| {
        Err(BusError::UnfitStream { stream: stream.to_owned(), detail: detail.to_owned() })
    };
    let is_true = |option: &str| config.get(option).and_then(Value::as_bool).unwrap_or(false);
    if config.get("max_age").and_then(Value::as_i64).unwrap_or(0) != 0 {
        return unfit(
            "it has an age limit, which deletes messages that nobody has read; take it off with \
             `nats stream edit --max-age=0`",
        );
    }
    // The server shows a sealed stream as one that denies purging too.
    if is_true("sealed") {
        return unfit("it is sealed: it takes no message and can't be trimmed; create it again");
    }
    if is_true("deny_purge") {
        return unfit(
            "it denies purging, so it could never be trimmed; create it again without deny_purge",
        );
    }
    if config.get("mirror").is_some_and(|mirror| !mirror.is_null()) {
        return unfit(
            "it is a mirror and takes no messages of its own; point NATS_URL at its origin",
        );
    }
    Ok(())
}

/// Whether the server has the requested value. The server leaves out zero values.
fn same(asked: &Value, got: &Value) -> bool {
    if got.is_null() {
        return match asked {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
    }
    asked == got
}

/// The stream of a bucket keeps the prefix by which clients recognise it.
fn bucket_aware_name(prefix: &str, name: &str) -> String {
    for kind in [KV_PREFIX, OBJECT_PREFIX] {
        if let Some(bucket) = name.strip_prefix(kind) {
            return format!("{kind}{}", server_name(prefix, bucket));
        }
    }
    server_name(prefix, name)
}

/// A bucket's subjects contain the bucket's name: `$KV.<bucket>.>`, `$O.<bucket>.C.>`.
fn bucket_aware_subject(prefix: &str, subject: &str) -> String {
    let mut tokens = subject.splitn(3, '.');
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(kind @ ("$KV" | "$O")), Some(bucket), Some(rest)) => {
            format!("{kind}.{}.{rest}", server_name(prefix, bucket))
        }
        _ => prefixed_subject(prefix, subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded(prefix: &str) -> Topology {
        Topology::embedded(prefix, &TopologyOverrides::default(), &Rules::default())
    }

    #[test]
    fn buckets_are_reserved_before_event_streams() {
        let topology = embedded("");
        let names: Vec<&str> = topology.names().collect();
        assert_eq!(
            names,
            ["KV_LAKEGAUGE", "OBJ_LAKEGAUGE_SNAPSHOTS", "LAKE_0", "WAREHOUSE_0", "TELEMETRY"]
        );
    }

    #[test]
    fn every_stream_has_a_size_no_age_and_can_be_purged() {
        for declaration in embedded("").streams {
            let option = |name: &str| declaration.config.get(name).cloned();
            assert_eq!(fit(&declaration.name, &declaration.config), Ok(()));
            assert!(option("max_bytes").and_then(|bytes| bytes.as_i64()) > Some(0));
            assert_eq!(option("discard"), Some(json!("new")));
            assert_eq!(option("storage"), Some(json!("file")));
            assert_eq!(option("retention"), Some(json!("limits")));
        }
    }

    #[test]
    fn the_prefix_stands_before_names_and_subjects_of_streams_and_buckets() {
        let subjects: Vec<String> = embedded("acme")
            .streams
            .iter()
            .flat_map(|declaration| {
                let name = declaration.name.clone();
                let subjects = declaration.config["subjects"].as_array().unwrap().clone();
                subjects
                    .into_iter()
                    .map(move |subject| format!("{name} {}", subject.as_str().unwrap()))
            })
            .collect();
        assert_eq!(
            subjects,
            [
                "KV_acme_LAKEGAUGE $KV.acme_LAKEGAUGE.>",
                "OBJ_acme_LAKEGAUGE_SNAPSHOTS $O.acme_LAKEGAUGE_SNAPSHOTS.C.>",
                "OBJ_acme_LAKEGAUGE_SNAPSHOTS $O.acme_LAKEGAUGE_SNAPSHOTS.M.>",
                "acme_LAKE_0 acme.lake.access.0.>",
                "acme_LAKE_0 acme.lake.inventory.0.>",
                "acme_LAKE_0 acme.lake.late.0",
                "acme_WAREHOUSE_0 acme.warehouse.query.0.>",
                "acme_WAREHOUSE_0 acme.warehouse.late.0",
                "acme_TELEMETRY acme.telemetry.sample.>",
            ]
        );
    }

    #[test]
    fn only_event_streams_belong_to_a_pipeline_and_take_the_size_override() {
        let overrides = TopologyOverrides {
            event_stream_max_bytes: Some(1_000_000),
            replicas: Some(3),
            ..TopologyOverrides::default()
        };
        let topology = Topology::embedded("", &overrides, &Rules::default());
        for declaration in topology.streams {
            let is_event_stream = matches!(declaration.name.as_str(), "LAKE_0" | "WAREHOUSE_0");
            assert_eq!(declaration.has_events(), is_event_stream);
            assert_eq!(declaration.config["max_bytes"] == json!(1_000_000), is_event_stream);
            assert_eq!(declaration.config["num_replicas"], json!(3));
        }
    }

    #[test]
    fn the_sizes_in_the_declarations_are_those_that_hold_unless_set() {
        let sizes = |configs: Vec<Map<String, Value>>| -> Vec<u64> {
            configs.iter().map(max_bytes).collect()
        };
        let streams = embedded("").streams.into_iter().map(|declaration| declaration.config);
        assert_eq!(sizes(streams.collect()), sizes(declared()));
    }

    #[test]
    fn a_prefix_that_looks_like_a_stream_of_ours_changes_no_stream_s_purpose() {
        for prefix in ["REPLAY", "TELEMETRY", "KV", "acme.REPLAY"] {
            let topology = embedded(prefix);
            let purposes: Vec<Purpose> = topology.rooms().map(|asked| asked.purpose).collect();
            let own: Vec<Purpose> = embedded("").rooms().map(|asked| asked.purpose).collect();
            assert_eq!(purposes, own, "{prefix}");
            let bytes = |topology: &Topology| -> Vec<u64> {
                topology.with_event_streams_of(64 << 20).rooms().map(|asked| asked.bytes).collect()
            };
            assert_eq!(bytes(&topology), bytes(&embedded("")), "{prefix}");
        }
    }

    #[test]
    fn an_option_that_the_server_left_out_or_changed_is_named() {
        let declaration = embedded("").streams.swap_remove(2);
        let mut echo = declaration.config.clone();
        echo.remove("sealed");
        assert_eq!(declaration.differences(&echo), [], "false may be left out");
        echo.remove("allow_direct");
        echo.insert("max_bytes".to_owned(), json!(-1));
        let named: Vec<&str> =
            declaration.differences(&echo).iter().map(|difference| difference.option).collect();
        assert_eq!(named, ["allow_direct", "max_bytes"]);
    }

    #[test]
    fn streams_that_forget_or_that_cannot_be_trimmed_are_refused() {
        for (option, value) in [
            ("max_age", json!(1)),
            ("deny_purge", json!(true)),
            ("sealed", json!(true)),
            ("mirror", json!({ "name": "X" })),
        ] {
            let mut config = embedded("").streams.swap_remove(2).config;
            config.insert(option.to_owned(), value);
            assert!(
                matches!(fit("LAKE_0", &config), Err(BusError::UnfitStream { .. })),
                "{option}"
            );
        }
    }
}
