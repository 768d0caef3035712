//! A consumer of our own on a stream, made at a position and thrown away with it.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};

use crate::{
    api::{self, CONSUMER_NOT_FOUND, named},
    connection::Bus,
    error::BusError,
    read::ReaderSettings,
};

/// How long the server keeps a consumer without acknowledgements after its reader is gone.
const INACTIVE_MAX: Duration = Duration::from_secs(60);

/// Redelivery is never wanted, because a gap makes the reader subscribe again. So a message may
/// stay unacknowledged for as long as the database may be away.
const ACK_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// Number of delivered and unacknowledged messages at which the server pauses: above every batch
/// that is committed at once, and a limit for the server's memory.
const UNACKNOWLEDGED_MAX: i64 = 200_000;

/// How long the server keeps one request for messages open.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// What the server adds to a payload when it checks whether a message fits into a request: its
/// subject and the acknowledgement's, both within a line of the protocol (4,096 bytes).
const SUBJECTS_BYTES_MAX: usize = 8_192;

/// Creates the consumer and requests messages.
pub(crate) async fn subscribe(
    bus: &Bus,
    settings: &ReaderSettings,
    after: u64,
) -> Result<pull::Stream, BusError> {
    let stream = bus.server_name(&settings.stream);
    let what = format!("consumer {} on stream {stream}", settings.consumer);
    let handle = bus
        .context
        .get_stream_no_info(&stream)
        .await
        .map_err(|error| api::client_error(&error, &what))?;
    if settings.acknowledge {
        // A consumer's start can't be changed, and its position is not to be trusted.
        if let Err(error) = handle.delete_consumer(&settings.consumer).await {
            let error = api::client_error(&error, &what);
            if error.server_code() != Some(CONSUMER_NOT_FOUND) {
                return Err(named(error, &stream));
            }
        }
    }
    let consumer = handle
        .create_consumer(config(bus, settings, after))
        .await
        .map_err(|error| named(api::client_error(&error, &what), &stream))?;
    consumer
        .stream()
        .max_messages_per_batch(settings.batch_messages_max)
        .max_bytes_per_batch(batch_bytes(settings.batch_bytes_max, bus.max_payload()))
        .expires(PULL_EXPIRES)
        .heartbeat(settings.heartbeat)
        .messages()
        .await
        .map_err(|error| api::client_error(&error, &what))
}

fn config(bus: &Bus, settings: &ReaderSettings, after: u64) -> pull::Config {
    let common = pull::Config {
        description: Some(format!("{} (Lakegauge)", bus.settings().name)),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.saturating_add(1) },
        ..pull::Config::default()
    };
    if settings.acknowledge {
        pull::Config {
            durable_name: Some(settings.consumer.clone()),
            ack_policy: AckPolicy::All,
            ack_wait: ACK_WAIT,
            max_ack_pending: UNACKNOWLEDGED_MAX,
            ..common
        }
    } else {
        pull::Config {
            // A name of its own, so that two readers never delete each other's consumer.
            name: Some(format!("{}_{}", settings.consumer, bus.unique_name())),
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE_MAX,
            memory_storage: true,
            ..common
        }
    }
}

/// Bytes to request at a time: at least enough for the largest message, because the server would
/// never deliver it otherwise.
fn batch_bytes(wanted: usize, max_payload: usize) -> usize {
    wanted.max(max_payload.saturating_add(SUBJECTS_BYTES_MAX))
}

/// The error of an item of the subscription. Every error ends the subscription: subscribing again
/// is cheap, and only the server knows what was lost.
pub(crate) fn item_error(
    error: &jetstream::consumer::pull::MessagesError,
    stream: &str,
) -> BusError {
    api::client_error(error, &format!("messages of stream {stream}"))
}
