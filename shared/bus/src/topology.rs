//! The streams as `nats/streams.json` declares them: made, checked, brought up to date.

use std::collections::BTreeMap;

use domain::Rules;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    api::{self, NO_STORAGE, STREAM_NAME_IN_USE},
    connection::{Bus, prefixed_subject, server_name},
    error::BusError,
    replay::Run,
    stream::named,
};

/// In the order in which the streams are made: the buckets for pointers and snapshots reserve
/// their room before the event streams get theirs, since a full store that can't take a snapshot
/// would never be trimmed. The buckets don't allow direct reads: a follower of a cluster may answer
/// those with an older pointer or epoch than the one in force.
const DECLARATIONS: &str = include_str!("../../../nats/streams.json");

/// Room for the samples of an aggregator that counts a replay run: some days of them.
const REPLAY_SAMPLES_MAX_BYTES: u64 = 16 << 20;

const KV_PREFIX: &str = "KV_";
const OBJECT_PREFIX: &str = "OBJ_";

/// What may differ from the declarations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyOverrides {
    /// Bytes that each event stream may store; must be given to change an existing stream.
    pub event_stream_max_bytes: Option<u64>,
    /// Copies of each stream in a cluster; must be given to change an existing stream.
    pub replicas: Option<u8>,
}

/// Every stream that the pipeline needs, as asked of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    streams: Vec<Declaration>,
}

#[derive(Clone, Debug, PartialEq)]
struct Declaration {
    name: String,
    /// As the server's API takes it, without metadata.
    config: Map<String, Value>,
    /// Written when the stream is made, never later: it says how the stream's messages are judged.
    metadata: BTreeMap<String, String>,
    /// Options that an operator may have changed and nobody asked us to change back.
    left_alone: Vec<&'static str>,
}

/// What [`Bus::apply_topology`] did to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its name on the server.
    pub stream: String,
    /// Whether it was made now.
    pub made: bool,
    /// Options that were brought up to date.
    pub changed: Vec<String>,
}

impl Topology {
    /// The declarations of `nats/streams.json` under a subject prefix. New event streams get the
    /// rules in their metadata.
    pub fn embedded(prefix: &str, overrides: &TopologyOverrides, rules: &Rules) -> Self {
        Self {
            streams: declared()
                .into_iter()
                .map(|config| Declaration::new(config, prefix, overrides, rules))
                .collect(),
        }
    }

    /// The streams of a replay run, each like the declared one that it stands for: with a size limit
    /// and `discard: new`, so that a full one makes the replay wait.
    pub(crate) fn of_replay(
        prefix: &str,
        run: &Run,
        streams: &[domain::Stream],
        max_bytes: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Self {
        let subjects = wire::Subjects::default();
        let events = streams
            .iter()
            .map(|stream| (run.stream(*stream), subjects.replay(run.name(), *stream), max_bytes));
        let samples = (run.samples(), subjects.replay_sample(run.name()), REPLAY_SAMPLES_MAX_BYTES);
        let declaration = |(name, subject, max_bytes): (String, String, u64)| {
            let mut config = declared().into_iter().find(is_samples).unwrap_or_default();
            config.insert("name".to_owned(), json!(name));
            config.insert("subjects".to_owned(), json!([subject]));
            config.insert("max_bytes".to_owned(), json!(max_bytes));
            let about = format!("Replay run {} (Lakegauge)", run.name());
            config.insert("description".to_owned(), json!(about));
            let own =
                Declaration::new(config, prefix, &TopologyOverrides::default(), &Rules::default());
            Declaration { metadata: metadata.clone(), ..own }
        };
        Self { streams: events.chain([samples]).map(declaration).collect() }
    }

    /// The names of the streams on the server, in the order in which they are made.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(|declaration| declaration.name.as_str())
    }
}

fn declared() -> Vec<Map<String, Value>> {
    serde_json::from_str(DECLARATIONS).expect("a test reads nats/streams.json")
}

fn is_samples(config: &Map<String, Value>) -> bool {
    config.get("name").and_then(Value::as_str) == Some("TELEMETRY")
}

impl Declaration {
    fn new(
        mut config: Map<String, Value>,
        prefix: &str,
        overrides: &TopologyOverrides,
        rules: &Rules,
    ) -> Self {
        let declared_name =
            config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_event_stream = domain::Stream::from_name(&declared_name).is_some();
        let name = bucket_aware_name(prefix, &declared_name);
        config.insert("name".to_owned(), json!(name));
        if let Some(subjects) = config.get_mut("subjects").and_then(Value::as_array_mut) {
            for subject in subjects {
                let text = subject.as_str().unwrap_or_default();
                *subject = json!(bucket_aware_subject(prefix, text));
            }
        }
        let mut left_alone = vec!["placement"];
        match overrides.event_stream_max_bytes {
            Some(bytes) if is_event_stream => {
                config.insert("max_bytes".to_owned(), json!(bytes));
            }
            Some(_) | None => left_alone.push("max_bytes"),
        }
        match overrides.replicas {
            Some(replicas) => {
                config.insert("num_replicas".to_owned(), json!(replicas));
            }
            None => left_alone.push("num_replicas"),
        }
        let metadata = if is_event_stream { rules.to_metadata() } else { BTreeMap::new() };
        Self { name, config, metadata, left_alone }
    }

    /// The options in which a stream of the server differs, with both values.
    fn differences<'a>(&'a self, echo: &'a Map<String, Value>) -> Vec<Difference<'a>> {
        self.config
            .iter()
            .filter_map(|(option, asked)| {
                let got = echo.get(option).unwrap_or(&Value::Null);
                (!same(asked, got)).then_some(Difference { option, asked, got })
            })
            .collect()
    }

    fn ignored(&self, difference: &Difference<'_>) -> BusError {
        BusError::IgnoredOption {
            stream: self.name.clone(),
            option: difference.option.to_owned(),
            asked: difference.asked.to_string(),
            got: difference.got.to_string(),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Difference<'a> {
    option: &'a str,
    asked: &'a Value,
    got: &'a Value,
}

impl Bus {
    /// Makes the streams that are missing, brings existing ones up to date, and compares what the
    /// server then has with what was asked. Applying it again, or from several processes at once,
    /// changes nothing more. The metadata of an existing stream is left alone.
    ///
    /// # Errors
    ///
    /// [`BusError::UnfitStream`] for a stream with an age limit or one that can't be trimmed,
    /// [`BusError::IgnoredOption`], [`BusError::NoRoom`], and what any request may meet.
    pub async fn apply_topology(&self, topology: &Topology) -> Result<Vec<Applied>, BusError> {
        let mut applied = Vec::new();
        for declaration in &topology.streams {
            applied.push(self.apply(declaration).await?);
        }
        Ok(applied)
    }

    async fn apply(&self, declaration: &Declaration) -> Result<Applied, BusError> {
        let existing = match self.config_of(&declaration.name).await {
            Ok(config) => Some(config),
            Err(BusError::NoStream { .. }) => self.make(declaration).await?,
            Err(error) => return Err(error),
        };
        match existing {
            Some(config) => self.update(declaration, config).await,
            None => {
                tracing::info!(stream = declaration.name, "made stream");
                Ok(Applied { stream: declaration.name.clone(), made: true, changed: Vec::new() })
            }
        }
    }

    async fn config_of(&self, name: &str) -> Result<Map<String, Value>, BusError> {
        let info: ConfigEcho = api::request(
            &self.context,
            format!("STREAM.INFO.{name}"),
            &json!({}),
            &format!("description of stream {name}"),
        )
        .await
        .map_err(|error| named(error, name))?;
        Ok(info.config)
    }

    /// Makes a stream; gives its configuration if somebody else made it meanwhile.
    async fn make(
        &self,
        declaration: &Declaration,
    ) -> Result<Option<Map<String, Value>>, BusError> {
        let mut config = declaration.config.clone();
        config.insert("metadata".to_owned(), json!(declaration.metadata));
        let name = &declaration.name;
        match self.configure("CREATE", name, &config).await {
            Ok(echo) => {
                if let Some(difference) = declaration.differences(&echo).first() {
                    return Err(declaration.ignored(difference));
                }
                metadata_taken(declaration, &echo)?;
                Ok(None)
            }
            Err(BusError::Server { error_code: STREAM_NAME_IN_USE, .. }) => {
                self.config_of(name).await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    async fn update(
        &self,
        declaration: &Declaration,
        existing: Map<String, Value>,
    ) -> Result<Applied, BusError> {
        fit(&declaration.name, &existing)?;
        let changed: Vec<String> = declaration
            .differences(&existing)
            .iter()
            .filter(|difference| !declaration.left_alone.contains(&difference.option))
            .map(|difference| difference.option.to_owned())
            .collect();
        let stream = declaration.name.clone();
        if changed.is_empty() {
            return Ok(Applied { stream, made: false, changed });
        }
        let mut config = existing;
        for option in &changed {
            let asked = declaration.config.get(option).cloned().unwrap_or(Value::Null);
            config.insert(option.clone(), asked);
        }
        let echo = self.configure("UPDATE", &stream, &config).await?;
        for difference in declaration.differences(&echo) {
            if !declaration.left_alone.contains(&difference.option) {
                return Err(declaration.ignored(&difference));
            }
        }
        tracing::info!(stream, ?changed, "brought stream up to date");
        Ok(Applied { stream, made: false, changed })
    }

    async fn configure(
        &self,
        verb: &str,
        name: &str,
        config: &Map<String, Value>,
    ) -> Result<Map<String, Value>, BusError> {
        let what = format!("{verb} of stream {name}").to_lowercase();
        let answer: Result<ConfigEcho, BusError> =
            api::request(&self.context, format!("STREAM.{verb}.{name}"), config, &what).await;
        match answer {
            Ok(echo) => Ok(echo.config),
            Err(BusError::Server { error_code, detail, .. })
                if NO_STORAGE.contains(&error_code) =>
            {
                Err(BusError::NoRoom { stream: name.to_owned(), detail })
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Deserialize)]
struct ConfigEcho {
    config: Map<String, Value>,
}

fn metadata_taken(declaration: &Declaration, echo: &Map<String, Value>) -> Result<(), BusError> {
    for (key, asked) in &declaration.metadata {
        let got = echo.get("metadata").and_then(|metadata| metadata.get(key));
        if got.and_then(Value::as_str) != Some(asked) {
            return Err(BusError::IgnoredOption {
                stream: declaration.name.clone(),
                option: format!("metadata.{key}"),
                asked: asked.clone(),
                got: got.unwrap_or(&Value::Null).to_string(),
            });
        }
    }
    Ok(())
}

/// Refuses what would lose messages that nobody has read, or fill up for good.
fn fit(stream: &str, config: &Map<String, Value>) -> Result<(), BusError> {
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
        return unfit("it is sealed: it takes no message and can't be trimmed; make it again");
    }
    if is_true("deny_purge") {
        return unfit(
            "it denies purging, so that it could never be trimmed; make it again without deny_purge",
        );
    }
    if config.get("mirror").is_some_and(|mirror| !mirror.is_null()) {
        return unfit(
            "it is a mirror and takes no messages of its own; point NATS_URL at its origin",
        );
    }
    Ok(())
}

/// Whether the server has what was asked. It leaves out what has its zero value.
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

/// A bucket's stream keeps the beginning by which clients know it.
fn bucket_aware_name(prefix: &str, name: &str) -> String {
    for kind in [KV_PREFIX, OBJECT_PREFIX] {
        if let Some(bucket) = name.strip_prefix(kind) {
            return format!("{kind}{}", server_name(prefix, bucket));
        }
    }
    server_name(prefix, name)
}

/// A bucket's subjects hold the bucket's name: `$KV.<bucket>.>`, `$O.<bucket>.C.>`.
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
    fn only_event_streams_carry_rules_and_take_the_size_override() {
        let overrides =
            TopologyOverrides { event_stream_max_bytes: Some(1_000_000), replicas: Some(3) };
        let topology = Topology::embedded("", &overrides, &Rules::default());
        for declaration in topology.streams {
            let is_event_stream = matches!(declaration.name.as_str(), "LAKE_0" | "WAREHOUSE_0");
            assert_eq!(!declaration.metadata.is_empty(), is_event_stream);
            assert_eq!(declaration.config["max_bytes"] == json!(1_000_000), is_event_stream);
            assert_eq!(declaration.config["num_replicas"], json!(3));
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
    fn the_streams_of_a_replay_run_are_bounded_and_take_its_subjects_only() {
        let run = Run::new("r1").unwrap();
        let streams = [domain::Stream::lake(0), domain::Stream::warehouse(2)];
        let about = BTreeMap::from([("about".to_owned(), "all".to_owned())]);
        let topology = Topology::of_replay("acme", &run, &streams, 5_000, &about);
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
                    &json!(REPLAY_SAMPLES_MAX_BYTES)
                ),
            ]
        );
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
