//! Prepares a broker for an archive that it does not know yet, because a person asks for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::{
    ArchiveId, BrokerSide, Pipeline, PipelineId, Stream,
    adoption::{Adoption, BrokerFacts},
    pipeline::PIPELINE_KEY,
};
use serde_json::{Value, json};

use crate::{
    api, bucket,
    connection::Bus,
    error::BusError,
    pipeline::{self, KEY, WHAT},
    topology::Topology,
};

impl Bus {
    /// What the broker says about itself in these event streams, even if they contradict each
    /// other.
    ///
    /// # Errors
    ///
    /// Any error of a request.
    pub async fn shown(&self, streams: &[Stream]) -> Result<BrokerFacts, BusError> {
        let mut shown = BrokerFacts::default();
        for stream in streams {
            match self.stream(&stream.to_string()).await {
                Ok(status) => {
                    shown.streams.insert(stream.to_string(), status.metadata);
                }
                Err(BusError::NoStream { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        shown.entry = match self.pipeline().await {
            Err(BusError::NoStream { .. }) => None,
            entry => entry?,
        };
        Ok(shown)
    }

    /// The name that the broker will have: its own, or a new one.
    ///
    /// # Errors
    ///
    /// The operating system gives no randomness.
    pub fn adopted_id(&self, adoption: &Adoption) -> Result<PipelineId, BusError> {
        adoption.id.map_or_else(|| pipeline::random().map(PipelineId), Ok)
    }

    /// Makes a stream a different one for every later archiver: deletes what belongs to the old
    /// archive (verdicts, samples, snapshots, what others saw of its epochs), and raises its epoch
    /// above `above` and above every epoch that the broker knows. Returns that epoch. A second call
    /// raises the epoch again, and changes nothing else.
    ///
    /// # Errors
    ///
    /// Any error of a request; the call can be repeated then.
    pub async fn prepare_for_adoption(&self, stream: &str, above: u32) -> Result<u32, BusError> {
        let name = self.server_name(stream);
        let known = match self.snapshots().pointer(stream).await {
            Ok(pointer) => pointer.map_or(0, |(pointer, _)| pointer.mark.epoch),
            Err(BusError::Garbled { .. }) => 0,
            Err(error) => return Err(error),
        };
        let known = known.max(self.epochs().get(stream).await?.unwrap_or(0));
        self.purge(&name, stream).await?;
        self.snapshots().forget(stream).await?;
        bucket::forget(self, &format!("newest.{stream}.>")).await?;
        let epoch = self.epochs().raise(stream, above.max(known)).await?;
        tracing::info!(stream, epoch, "prepared for another archive");
        Ok(epoch)
    }

    /// Writes the broker's name into the metadata of the event streams.
    ///
    /// # Errors
    ///
    /// Any error of a request.
    pub async fn name_streams(
        &self,
        shown: &BrokerFacts,
        pipeline: PipelineId,
    ) -> Result<(), BusError> {
        let name = pipeline.to_string();
        for (stream, metadata) in &shown.streams {
            if metadata.get(PIPELINE_KEY) == Some(&name) {
                continue;
            }
            let mut metadata: BTreeMap<String, String> = metadata.clone();
            metadata.insert(PIPELINE_KEY.to_owned(), name.clone());
            self.put_metadata(&self.server_name(stream), &metadata).await?;
        }
        Ok(())
    }

    /// Creates what a broker lacks apart from its event streams.
    ///
    /// # Errors
    ///
    /// As [`Bus::apply_topology`].
    pub async fn make_buckets(&self, topology: &Topology) -> Result<(), BusError> {
        self.apply_topology(&topology.without_events()).await.map(drop)
    }

    /// Writes the archive's name into the broker, in place of the entry in `shown`. This is the
    /// last step; before it, services refuse to start.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if somebody changed the entry since, and any error of a request.
    pub async fn adopt(
        &self,
        shown: &BrokerFacts,
        pipeline: &Pipeline,
        archive: ArchiveId,
    ) -> Result<(), BusError> {
        let (now, revision) = self.written().await?;
        let adopted = BrokerSide { pipeline: pipeline.clone(), archive: Some(archive) };
        if now.as_ref() == Some(&adopted) {
            return Ok(());
        }
        if now != shown.entry {
            let detail = "it changed after it was read".to_owned();
            return Err(BusError::Superseded { what: WHAT.to_owned(), detail });
        }
        let value: Bytes = pipeline::encoded(&adopted)?;
        bucket::compare_and_set(self, KEY, &value, revision, WHAT).await.map(drop)
    }

    /// Deletes what belongs to the old archive: verdicts, or samples.
    async fn purge(&self, name: &str, stream: &str) -> Result<(), BusError> {
        let filter = Stream::from_name(stream)
            .map(|stream| self.subject(&wire::Subjects::default().late(stream)));
        let body = match &filter {
            Some(subject) => json!({ "filter": subject }),
            None => json!({}),
        };
        let what = format!("deleting the old archive's messages from stream {name}");
        let _purged: Value =
            api::request(&self.context, format!("STREAM.PURGE.{name}"), &body, &what).await?;
        Ok(())
    }
}
