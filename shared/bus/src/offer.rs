//! How much room an account has, and stream sizes that fit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api,
    connection::Bus,
    error::BusError,
    room::{Purpose, Room, TopologyOverrides},
    topology::{RequestedStream, Topology, max_bytes},
};

impl Bus {
    /// The topology with sizes that fit into the account. If no size is set and no event stream
    /// exists, the streams become smaller than usual. The topology stays as it is if no stream is
    /// missing, or the account has no limit of its own or does not report it.
    ///
    /// # Errors
    ///
    /// [`BusError::NoRoom`] before anything is created, with the sizes that would fit; and any
    /// error of a request.
    pub(crate) async fn fitted(&self, topology: &Topology) -> Result<Topology, BusError> {
        match self.fit(topology).await {
            // Perhaps another service was creating the streams between our requests.
            Err(BusError::NoRoom { .. }) => self.fit(topology).await,
            fitted => fitted,
        }
    }

    async fn fit(&self, topology: &Topology) -> Result<Topology, BusError> {
        let Some(overrides) = topology.overrides() else { return Ok(topology.clone()) };
        let mut existing = BTreeMap::new();
        let mut sibling = None;
        for asked in topology.rooms() {
            match self.config_of(asked.name).await {
                Ok(found) => {
                    let bytes = max_bytes(&found);
                    if asked.purpose == Purpose::Events {
                        sibling = Some(bytes);
                    }
                    existing.insert(asked.name.to_owned(), bytes);
                }
                Err(BusError::NoStream { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let topology = match sibling {
            // The size that another service uses, or used before it died.
            Some(bytes) if overrides.event_stream_max_bytes.is_none() => {
                &topology.with_event_streams_of(bytes)
            }
            Some(_) | None => topology,
        };
        let (mut missing, mut ours, mut reclaimed) = (Vec::new(), 0_u64, 0_u64);
        for RequestedStream { name, bytes, is_resized_while_empty, .. } in topology.rooms() {
            match existing.get(name) {
                Some(found) if is_resized_while_empty && self.is_empty(name).await? => {
                    reclaimed += found;
                    missing.push((name, bytes));
                }
                Some(found) => ours += found,
                None => missing.push((name, bytes)),
            }
        }
        if missing.is_empty() {
            return Ok(topology.clone());
        }
        let Some(offer) = self.offer().await? else { return Ok(topology.clone()) };
        let copies = u64::from(overrides.replicas.unwrap_or(1).max(1));
        let free = offer.free().saturating_add(reclaimed) / copies;
        let needed: u64 = missing.iter().map(|(_, bytes)| bytes).sum();
        if needed <= free {
            return Ok(topology.clone());
        }
        let room = free.saturating_add(ours);
        if overrides.event_stream_max_bytes.is_none()
            && sibling.is_none()
            && let Some(bytes) = Room::events_that_fit(room, overrides)
        {
            tracing::warn!(
                event_stream_max_bytes = bytes,
                account_max_bytes = offer.limits.max_storage,
                "the account has room for smaller streams than usual; NATS_EVENT_STREAM_MAX_BYTES \
                 sets their size"
            );
            return Ok(topology.with_event_streams_of(bytes));
        }
        let mut left = free;
        let first = missing.iter().find(|(_, bytes)| {
            let fits = *bytes <= left;
            left = left.saturating_sub(*bytes);
            !fits
        });
        let (stream, bytes) = first.unwrap_or(&missing[0]);
        Err(BusError::NoRoom {
            stream: (*stream).to_owned(),
            detail: format!(
                "it asks for {bytes} bytes, {needed} with the others that are missing, and the account \
                 has {free} left of {}",
                offer.limits.max_storage
            ),
            todo: todo(overrides, &offer, room, (needed.saturating_sub(free), copies)),
        })
    }

    /// Whether a stream, given its name on the server, holds no message.
    pub(crate) async fn is_empty(&self, name: &str) -> Result<bool, BusError> {
        let what = format!("whether stream {name} is empty");
        let info: Info =
            api::request(&self.context, format!("STREAM.INFO.{name}"), &json!({}), &what).await?;
        Ok(info.state.messages == 0)
    }

    /// The room of the account; `None` if it has no limit of its own, or this user may not ask.
    async fn offer(&self) -> Result<Option<Offer>, BusError> {
        let asked: Result<Offer, BusError> = api::request(
            &self.context,
            "INFO".to_owned(),
            &json!({}),
            "what the account has room for",
        )
        .await;
        match asked {
            Ok(offer) => Ok(offer.is_limited().then_some(offer)),
            Err(BusError::NoAnswer { .. }) if !self.denials().is_empty() => Ok(None),
            // Creating the streams reports this problem.
            Err(BusError::NoJetStream { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What to do if `short` bytes are missing for each of `copies` copies; all streams together may
/// have `room` bytes.
fn todo(
    overrides: &TopologyOverrides,
    offer: &Offer,
    room: u64,
    (short, copies): (u64, u64),
) -> String {
    let limit = u64::try_from(offer.limits.max_storage).unwrap_or(0);
    let raise = |short: u64| {
        let enough = limit.saturating_add(short.saturating_mul(copies));
        format!("raise the account's limit (max_file) to {enough} or more")
    };
    if let Some(bytes) = Room::events_that_fit(room, overrides) {
        let raise = raise(short);
        return format!("set NATS_EVENT_STREAM_MAX_BYTES to {bytes} or less, or {raise}");
    }
    let own: Vec<&str> = [
        ("NATS_SNAPSHOT_BUCKET_MAX_BYTES", overrides.snapshot_bucket_max_bytes),
        ("NATS_SAMPLES_MAX_BYTES", overrides.samples_max_bytes),
    ]
    .into_iter()
    .filter_map(|(key, value)| value.map(|_| key))
    .collect();
    if own.is_empty() && overrides.event_stream_max_bytes.is_none() {
        // This is enough for the smallest streams, which are created then if no size is set.
        return raise(Room::least(overrides).saturating_sub(room));
    }
    if own.is_empty() {
        return raise(short);
    }
    format!("unset {}, or {}", own.join(" and "), raise(short))
}

#[derive(Deserialize)]
struct Info {
    state: State,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
}

#[derive(Debug, Deserialize)]
struct Offer {
    #[serde(default)]
    reserved_storage: u64,
    limits: Limits,
    /// Limits by the number of copies, which replace the others.
    #[serde(default)]
    tiers: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Limits {
    max_storage: i64,
}

impl Offer {
    fn is_limited(&self) -> bool {
        self.limits.max_storage > 0 && self.tiers.is_none()
    }

    fn free(&self) -> u64 {
        u64::try_from(self.limits.max_storage).unwrap_or(0).saturating_sub(self.reserved_storage)
    }
}
