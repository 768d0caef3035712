//! Creates the declared streams on the server, checks them and updates them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    api::{self, NO_STORAGE, STREAM_NAME_IN_USE, named},
    connection::Bus,
    error::BusError,
    pipeline,
    room::Purpose,
    topology::{Declaration, Topology, fit, max_bytes},
};

/// What [`Bus::apply_topology`] did to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamChange {
    /// The stream's name on the server.
    pub stream: String,
    /// Whether the stream was created now.
    pub made: bool,
    /// Options that were updated.
    pub changed: Vec<String>,
}

impl Bus {
    /// Creates the streams that are missing, updates existing ones, and compares the server's
    /// result with the declarations. Another call, or calls from several processes at once, change
    /// nothing more. The metadata of an existing stream is left alone.
    ///
    /// The pipeline is begun before its first event stream is created: its name and its rules are
    /// in the bucket, and are copied from there to each event stream, also to one that is created
    /// again later.
    ///
    /// # Errors
    ///
    /// [`BusError::Mismatch`] if streams and bucket don't belong together, or a demanded rule is
    /// not the one in force; nothing is created or changed then. [`BusError::UnfitStream`] for a
    /// stream with an age limit or one that can't be trimmed, [`BusError::IgnoredOption`],
    /// [`BusError::NoRoom`], and any error of a request.
    pub async fn apply_topology(&self, topology: &Topology) -> Result<Vec<StreamChange>, BusError> {
        let topology = &self.fitted(topology).await?;
        let mut found = Vec::new();
        for declaration in &topology.streams {
            found.push(match self.config_of(&declaration.name).await {
                Ok(config) => Some(config),
                Err(BusError::NoStream { .. }) => None,
                Err(error) => return Err(error),
            });
        }
        let standing = standing(topology, &found);
        if let Some(wanted) = &topology.wanted
            && !standing.is_empty()
        {
            if found.iter().all(Option::is_some) {
                if let Err(error) = self.agree_among_themselves(wanted, &standing) {
                    // The bucket's entry says which stream is right. Not every user may read the
                    // entry.
                    return Err(match self.begin_pipeline(wanted, &standing).await {
                        Err(BusError::Mismatch(mismatch)) => mismatch.into(),
                        Ok(_) | Err(_) => error,
                    });
                }
            } else {
                self.begin_pipeline(wanted, &standing).await?;
            }
        }
        let mut applied = Vec::new();
        for (declaration, config) in topology.streams.iter().zip(found) {
            let config = match config {
                Some(config) => Some(config),
                None => {
                    self.make(&self.with_metadata(topology, declaration, &standing).await?).await?
                }
            };
            applied.push(match config {
                Some(config) => self.update(declaration, config).await?,
                None => {
                    tracing::info!(stream = declaration.name, "made stream");
                    let stream = declaration.name.clone();
                    StreamChange { stream, made: true, changed: Vec::new() }
                }
            });
        }
        Ok(applied)
    }

    /// A declaration with the metadata for creating its stream: that of the pipeline, which is
    /// begun at the first event stream.
    async fn with_metadata(
        &self,
        topology: &Topology,
        declaration: &Declaration,
        standing: &[(&str, BTreeMap<String, String>)],
    ) -> Result<Declaration, BusError> {
        let mut declaration = declaration.clone();
        if let Some(wanted) = topology.wanted.as_ref().filter(|_| declaration.has_events()) {
            let pipeline = self.begin_pipeline(wanted, standing).await?;
            declaration.metadata = pipeline::metadata(&pipeline);
        }
        Ok(declaration)
    }

    pub(crate) async fn config_of(&self, name: &str) -> Result<Map<String, Value>, BusError> {
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

    /// Creates a stream. Returns its configuration if somebody else created the stream first.
    async fn make(
        &self,
        declaration: &Declaration,
    ) -> Result<Option<Map<String, Value>>, BusError> {
        let mut config = declaration.config.clone();
        config.insert("metadata".to_owned(), json!(declaration.metadata));
        let name = &declaration.name;
        match self.configure("CREATE", (name, declaration.purpose), &config).await {
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
    ) -> Result<StreamChange, BusError> {
        fit(&declaration.name, &existing)?;
        let is_resized = declaration.is_resized_while_empty
            && max_bytes(&existing) != max_bytes(&declaration.config)
            && self.is_empty(&declaration.name).await?;
        let left_alone = |option: &str| {
            declaration.left_alone.contains(&option) && !(is_resized && option == "max_bytes")
        };
        let changed: Vec<String> = declaration
            .differences(&existing)
            .iter()
            .filter(|difference| !left_alone(difference.option))
            .map(|difference| difference.option.to_owned())
            .collect();
        let stream = declaration.name.clone();
        if changed.is_empty() {
            return Ok(StreamChange { stream, made: false, changed });
        }
        let mut config = existing;
        for option in &changed {
            let asked = declaration.config.get(option).cloned().unwrap_or(Value::Null);
            config.insert(option.clone(), asked);
        }
        let echo = self.configure("UPDATE", (&stream, declaration.purpose), &config).await?;
        for difference in declaration.differences(&echo) {
            if !left_alone(difference.option) {
                return Err(declaration.ignored(&difference));
            }
        }
        tracing::info!(stream, ?changed, "brought stream up to date");
        Ok(StreamChange { stream, made: false, changed })
    }

    /// Changes the metadata of an event stream, and nothing else.
    pub(crate) async fn put_metadata(
        &self,
        name: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), BusError> {
        let mut config = self.config_of(name).await?;
        config.insert("metadata".to_owned(), json!(metadata));
        self.configure("UPDATE", (name, Purpose::Events), &config).await.map(drop)
    }

    /// Creates or changes a stream. Errors contain the stream's name on the server.
    async fn configure(
        &self,
        verb: &str,
        (name, purpose): (&str, Purpose),
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
                let todo = purpose.todo().to_owned();
                Err(BusError::NoRoom { stream: name.to_owned(), detail, todo })
            }
            Err(error) => Err(error),
        }
    }
}

/// The existing event streams of a pipeline, with their metadata.
fn standing<'a>(
    topology: &'a Topology,
    found: &[Option<Map<String, Value>>],
) -> Vec<(&'a str, BTreeMap<String, String>)> {
    let events = topology.streams.iter().zip(found).filter(|(declared, _)| declared.has_events());
    events
        .filter_map(|(declared, found)| {
            Some((declared.name.as_str(), metadata_of(found.as_ref()?)))
        })
        .collect()
}

fn metadata_of(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let metadata = config.get("metadata").and_then(Value::as_object).into_iter().flatten();
    metadata.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
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
