//! The pipeline of a broker: its name, the archive that keeps it, and what is fixed for its life.
//! All this is in one entry of the bucket and in the metadata of each event stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::{
    ArchiveId, BrokerSide, Mismatch, Pipeline, PipelineId, Rules, Stream,
    pipeline::{self, PIPELINE_KEY},
};
use serde::{Deserialize, Serialize};
use service_kit::FailPoint;

use crate::{
    bucket::{self, BucketEntry, compare_and_set},
    connection::Bus,
    error::BusError,
};

/// The entry's key in the bucket.
pub(crate) const KEY: &str = "pipeline";
pub(crate) const WHAT: &str = "the broker's pipeline";
/// Others may change the entry at the same time, so the change is tried again; each round has a
/// winner.
const ATTEMPTS_MAX: u32 = 16;

static ARCHIVE_NAMED: FailPoint = FailPoint::new("bus.archive_named");

/// The entry as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredPipeline {
    pipeline: String,
    archive: Option<String>,
    partitions: u16,
    rules: BTreeMap<String, String>,
}

/// What a new pipeline gets, and what an existing one must agree with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestedPipeline {
    /// The rules of a new pipeline.
    pub(crate) rules: Rules,
    /// The rules that somebody set, by keys of metadata: they must be those in force.
    pub(crate) named: BTreeMap<String, String>,
    /// Partitions of each side.
    pub(crate) partitions: u16,
}

impl RequestedPipeline {
    /// Whether a pipeline agrees with the request.
    ///
    /// # Errors
    ///
    /// A rule that was set differs from the one in force, or the number of partitions does.
    fn agrees(&self, pipeline: &Pipeline) -> Result<(), Mismatch> {
        let by = |by: &str, difference| Mismatch::Fixed { by: by.to_owned(), difference };
        if let Some(difference) = pipeline::difference(&pipeline.rules, &self.named) {
            return Err(by("NATS_STREAM_RULES", difference));
        }
        match pipeline.difference_of_partitions(self.partitions) {
            Some(difference) => Err(by("this release's streams", difference)),
            None => Ok(()),
        }
    }
}

/// The metadata of an event stream of a pipeline.
pub(crate) fn metadata(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let name = (PIPELINE_KEY.to_owned(), pipeline.id.to_string());
    pipeline.rules.to_metadata().into_iter().chain([name]).collect()
}

impl Bus {
    /// What the broker says about itself; `None` if no pipeline was begun in it.
    ///
    /// # Errors
    ///
    /// [`BusError::NoStream`] if the bucket is missing, and any error of a request.
    pub async fn pipeline(&self) -> Result<Option<BrokerSide>, BusError> {
        Ok(self.written().await?.0)
    }

    /// What the broker says about itself, if a stream (an event stream or that of the samples)
    /// agrees with it, and if it is the broker that this connection began with.
    ///
    /// # Errors
    ///
    /// [`BusError::Mismatch`] if either is not so; [`BusError::NoStream`] if the stream or the
    /// bucket is missing, and any error of a request.
    pub async fn broker_side(&self, stream: &str) -> Result<BrokerSide, BusError> {
        let metadata = self.stream(stream).await?.metadata;
        let Some(side) = self.pipeline().await? else {
            return Err(Mismatch::NoEntry { stream: self.server_name(stream) }.into());
        };
        self.is_first(Some(side.pipeline.id))?;
        if Stream::from_name(stream).is_some() {
            pipeline::is_of(&side.pipeline, &self.server_name(stream), &metadata)?;
        }
        Ok(side)
    }

    /// Writes the name of the archive that keeps the events, if the broker names none and still
    /// carries this pipeline. Naming the same archive again changes nothing. Returns `false` if
    /// another archive was faster.
    ///
    /// # Errors
    ///
    /// The errors of [`Bus::broker_side`].
    pub async fn name_archive(
        &self,
        pipeline: PipelineId,
        archive: ArchiveId,
    ) -> Result<bool, BusError> {
        for _ in 0..ATTEMPTS_MAX {
            let (side, revision) = self.written().await?;
            let now = side.as_ref().map(|side| side.pipeline.id);
            let Some(side) = side.filter(|side| side.pipeline.id == pipeline) else {
                return Err(Mismatch::OtherBroker { first: pipeline, now }.into());
            };
            if let Some(named) = side.archive {
                return Ok(named == archive);
            }
            let side = BrokerSide { archive: Some(archive), ..side };
            match compare_and_set(self, KEY, &encoded(&side)?, revision, WHAT).await {
                Ok(_) => {
                    ARCHIVE_NAMED.pass();
                    tracing::info!(%pipeline, %archive, "the broker names its archive");
                    return Ok(true);
                }
                Err(BusError::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended())
    }

    /// The pipeline in force, created if the broker has none. A broker with event streams but
    /// without an entry is refused. `streams` are the existing event streams, with their metadata.
    pub(crate) async fn begin_pipeline(
        &self,
        wanted: &RequestedPipeline,
        streams: &[(&str, BTreeMap<String, String>)],
    ) -> Result<Pipeline, BusError> {
        for _ in 0..ATTEMPTS_MAX {
            let (side, revision) = match self.written().await {
                // A broker without the bucket has no entry.
                Err(BusError::NoStream { .. }) if !streams.is_empty() => (None, 0),
                written => written?,
            };
            if let Some(side) = side {
                self.agree(&side.pipeline, wanted, streams)?;
                return Ok(side.pipeline);
            }
            if let Some((stream, _)) = streams.first() {
                return Err(Mismatch::NoEntry { stream: (*stream).to_owned() }.into());
            }
            let pipeline = Pipeline {
                id: PipelineId(random()?),
                partitions: wanted.partitions,
                rules: wanted.rules.clone(),
            };
            let side = BrokerSide { pipeline, archive: None };
            match compare_and_set(self, KEY, &encoded(&side)?, revision, WHAT).await {
                Ok(_) => {
                    tracing::info!(pipeline = %side.pipeline.id, "began a pipeline");
                    self.agree(&side.pipeline, wanted, streams)?;
                    return Ok(side.pipeline);
                }
                Err(BusError::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended())
    }

    /// Whether streams, all of which exist, agree with each other and with the request. A service
    /// that only publishes may not read the bucket, and need not.
    pub(crate) fn agree_among_themselves(
        &self,
        wanted: &RequestedPipeline,
        streams: &[(&str, BTreeMap<String, String>)],
    ) -> Result<(), BusError> {
        let Some((stream, metadata)) = streams.first() else { return Ok(()) };
        let named = metadata.get(PIPELINE_KEY).and_then(|named| named.parse().ok());
        let Some(id) = named else {
            return Err(Mismatch::NoEntry { stream: (*stream).to_owned() }.into());
        };
        let rules = Rules::from_metadata(metadata).map_err(|error| BusError::UnfitStream {
            stream: (*stream).to_owned(),
            detail: error.to_string(),
        })?;
        self.agree(&Pipeline { id, partitions: wanted.partitions, rules }, wanted, streams)
    }

    fn agree(
        &self,
        pipeline: &Pipeline,
        wanted: &RequestedPipeline,
        streams: &[(&str, BTreeMap<String, String>)],
    ) -> Result<(), BusError> {
        for (stream, metadata) in streams {
            pipeline::is_of(pipeline, stream, metadata)?;
        }
        wanted.agrees(pipeline)?;
        self.is_first(Some(pipeline.id))
    }

    /// The broker's entry, if it is still the broker that this connection began with.
    pub(crate) async fn same_pipeline(&self) -> Result<Option<BrokerSide>, BusError> {
        let side = self.pipeline().await?;
        self.is_first(side.as_ref().map(|side| side.pipeline.id))?;
        Ok(side)
    }

    /// Remembers the first pipeline that this connection saw, and refuses any other.
    fn is_first(&self, now: Option<PipelineId>) -> Result<(), BusError> {
        let first = match now {
            Some(now) => Some(*self.first_pipeline().get_or_init(|| now)),
            None => self.first_pipeline().get().copied(),
        };
        match first.filter(|first| now != Some(*first)) {
            Some(first) => Err(Mismatch::OtherBroker { first, now }.into()),
            None => Ok(()),
        }
    }

    pub(crate) async fn written(&self) -> Result<(Option<BrokerSide>, u64), BusError> {
        let BucketEntry { value, revision } = bucket::entry(self, KEY).await?;
        let Some(value) = value else { return Ok((None, revision)) };
        Ok((Some(decoded(&value)?), revision))
    }
}

fn contended() -> BusError {
    let detail = "others kept changing it".to_owned();
    BusError::Superseded { what: WHAT.to_owned(), detail }
}

pub(crate) fn random() -> Result<[u8; 16], BusError> {
    service_kit::random::token().map_err(|error| BusError::Garbled {
        what: "randomness for the name of a pipeline".to_owned(),
        detail: error.to_string(),
    })
}

pub(crate) fn encoded(side: &BrokerSide) -> Result<Bytes, BusError> {
    let Pipeline { id, partitions, rules } = &side.pipeline;
    let written = StoredPipeline {
        pipeline: id.to_string(),
        archive: side.archive.map(|archive| archive.to_string()),
        partitions: *partitions,
        rules: rules.to_metadata(),
    };
    serde_json::to_vec(&written).map(Bytes::from).map_err(|error| garbled(&error))
}

fn decoded(value: &[u8]) -> Result<BrokerSide, BusError> {
    let written: StoredPipeline = serde_json::from_slice(value).map_err(|error| garbled(&error))?;
    let id = written.pipeline.parse().map_err(|error| garbled(&error))?;
    let archive = written.archive.map(|archive| archive.parse()).transpose();
    let rules = Rules::from_metadata(&written.rules).map_err(|error| garbled(&error))?;
    let pipeline = Pipeline { id, partitions: written.partitions, rules };
    Ok(BrokerSide { pipeline, archive: archive.map_err(|error| garbled(&error))? })
}

/// An entry of another program or another release. A retry does not help.
fn garbled(error: &dyn std::fmt::Display) -> BusError {
    BusError::UnfitStream {
        stream: format!("key `{KEY}` of the bucket"),
        detail: format!("it can't be understood: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side() -> BrokerSide {
        let rules = Rules { derived_ids_max: 7, ..Rules::default() };
        let pipeline = Pipeline { id: PipelineId([1; 16]), partitions: 1, rules };
        BrokerSide { pipeline, archive: Some(ArchiveId([2; 16])) }
    }

    #[test]
    fn the_entry_survives_its_bytes() {
        for archive in [None, side().archive] {
            let side = BrokerSide { archive, ..side() };
            assert_eq!(decoded(&encoded(&side).unwrap()), Ok(side));
        }
    }

    #[test]
    fn an_entry_that_is_not_ours_stops_the_service_and_is_named() {
        for value in ["", "{}", r#"{"pipeline":"x","archive":null,"partitions":1,"rules":{}}"#] {
            let error = decoded(value.as_bytes()).unwrap_err();
            assert_eq!(error.recovery(), crate::Recovery::Stop, "{value}");
            assert!(error.to_string().contains("`pipeline`"), "{error}");
        }
    }

    #[test]
    fn only_a_rule_that_was_named_must_be_the_one_in_force() {
        let named = |key: &str, value: &str| RequestedPipeline {
            rules: Rules::default(),
            named: BTreeMap::from([(format!("lakegauge.{key}"), value.to_owned())]),
            partitions: 1,
        };
        let pipeline = side().pipeline;
        assert_eq!(named("derived_ids_max", "7").agrees(&pipeline), Ok(()));
        assert_eq!(named("labels_max", "50").agrees(&pipeline), Ok(()));
        let said = named("derived_ids_max", "8").agrees(&pipeline).unwrap_err().to_string();
        assert!(said.contains("NATS_STREAM_RULES: derived_ids_max is 8"), "{said}");
        assert!(said.contains("the pipeline's is 7"), "{said}");
        let wanted = RequestedPipeline { partitions: 2, ..named("labels_max", "50") };
        assert!(wanted.agrees(&pipeline).unwrap_err().to_string().contains("partitions"));
    }
}
