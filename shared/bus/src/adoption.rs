//! Preparing a broker for an archive that knew nothing of it, because a person says so.

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
    /// What the broker shows of itself in these event streams, whether or not it is of one mind.
    ///
    /// # Errors
    ///
    /// What any request may meet.
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

    /// Makes a stream another one to whoever archives it next: what speaks of another archive is
    /// deleted (verdicts, samples, snapshots, what others saw of its epochs), and its epoch is above
    /// `above` and every one that the broker knows. Gives that epoch. Doing it again raises it again,
    /// and changes nothing else.
    ///
    /// # Errors
    ///
    /// What any request may meet; then the same may be tried again.
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

    /// Gives the event streams the broker's name in their metadata.
    ///
    /// # Errors
    ///
    /// What any request may meet.
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

    /// Makes what a broker lacks besides its event streams.
    ///
    /// # Errors
    ///
    /// As [`Bus::apply_topology`].
    pub async fn make_buckets(&self, topology: &Topology) -> Result<(), BusError> {
        self.apply_topology(&topology.without_events()).await.map(drop)
    }

    /// Names the archive in the broker, in the place of what `shown` says: the last step, before
    /// which the two are refused.
    ///
    /// # Errors
    ///
    /// [`BusError::Superseded`] if somebody changed the entry since; and what any request may meet.
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
            let detail = "it is not what was looked at".to_owned();
            return Err(BusError::Superseded { what: WHAT.to_owned(), detail });
        }
        let value: Bytes = pipeline::encoded(&adopted)?;
        bucket::compare_and_set(self, KEY, &value, revision, WHAT).await.map(drop)
    }

    /// Deletes what speaks of another archive: verdicts, or samples.
    async fn purge(&self, name: &str, stream: &str) -> Result<(), BusError> {
        let filter = Stream::from_name(stream)
            .map(|stream| self.subject(&wire::Subjects::default().late(stream)));
        let body = match &filter {
            Some(subject) => json!({ "filter": subject }),
            None => json!({}),
        };
        let what = format!("deleting what stream {name} says of another archive");
        let _purged: Value =
            api::request(&self.context, format!("STREAM.PURGE.{name}"), &body, &what).await?;
        Ok(())
    }
}
