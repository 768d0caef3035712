//! Messages of a replay run: events of version 1, each after the position in which the live
//! aggregator counted it.
//!
//! They have a content type of their own, so that a replayed event is never taken for a new one.

use bincode::config;
use domain::{Event, EventId, Position, Reason, Refusal};

use crate::{Headers, MESSAGE_BYTES_MAX, Sealed, v1};

/// The value of the `Content-Type` header.
pub const CONTENT_TYPE: &str = "application/x-lakegauge-replay; v=1";

/// When a message of a replay run is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Events in a message. Only one message is under way at a time, so messages larger than live
    /// ones make a run fast.
    pub events_max: usize,
    /// Bytes of a message.
    pub bytes_max: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self { events_max: 2_000, bytes_max: MESSAGE_BYTES_MAX }
    }
}

/// Collects events of one stream for one subject, in counting order.
#[derive(Debug)]
pub struct ReplayPacker {
    subject: String,
    limits: ReplayLimits,
    body: Vec<u8>,
    item: Vec<u8>,
    events: usize,
}

impl ReplayPacker {
    /// An empty packer for one subject.
    pub const fn new(subject: String, limits: ReplayLimits) -> Self {
        Self { subject, limits, body: Vec::new(), item: Vec::new(), events: 0 }
    }

    /// Adds an event. Returns the message that this event filled, or the previous message if the
    /// event did not fit into it.
    pub fn push(&mut self, position: Position, event: &Event) -> Option<Sealed> {
        self.item.clear();
        let place = (position.epoch, position.sequence, position.index);
        bincode::encode_into_std_write(place, &mut self.item, config::standard())
            .expect("numbers into memory");
        v1::write_item(&mut self.item, event);
        let fits = self.body.len() + self.item.len() + v1::FRAME_BYTES_MAX <= self.limits.bytes_max;
        let before = if fits { None } else { self.flush() };
        v1::append_item(&mut self.body, &self.item);
        self.events += 1;
        let is_full =
            self.events >= self.limits.events_max || self.body.len() >= self.limits.bytes_max;
        if before.is_none() && is_full { self.flush() } else { before }
    }

    /// Returns the current message; `None` if it is empty.
    pub fn flush(&mut self) -> Option<Sealed> {
        if self.events == 0 {
            return None;
        }
        let payload = v1::payload(self.events, &self.body);
        self.body.clear();
        let events = std::mem::take(&mut self.events);
        Some(Sealed::new(self.subject.clone(), CONTENT_TYPE, payload, events))
    }
}

/// Whether a header names a message of a replay run.
pub fn is_replay(content_type: Option<&str>) -> bool {
    content_type == Some(CONTENT_TYPE)
}

/// Reads a message of a replay run.
///
/// # Errors
///
/// The message is not of a replay run, has another version, or is damaged.
pub fn read_replay(headers: &Headers, payload: &[u8]) -> Result<Vec<(Position, Event)>, Refusal> {
    let content_type = headers.content_type()?;
    if !is_replay(content_type) {
        let detail = format!("content type {content_type:?} is not {CONTENT_TYPE}");
        return Err(Refusal::whole(Reason::Undecodable, detail));
    }
    v1::split(payload)?
        .into_iter()
        .map(|item| {
            let (position, event) = cut(item)?;
            let decoded = v1::decode(event).map_err(|undecoded| undecoded.refusal)?;
            // Our own runs write the id of every event.
            Ok((position, decoded.or_id(|| EventId::from_bytes([0; 16]))))
        })
        .collect()
}

/// The position of an item and the bytes of its event.
pub(crate) fn cut(item: &[u8]) -> Result<(Position, &[u8]), Refusal> {
    let ((epoch, sequence, index), used) =
        bincode::decode_from_slice::<(u32, u64, u32), _>(item, config::standard())
            .map_err(|error| Refusal::whole(Reason::Undecodable, error.to_string()))?;
    Ok((Position { epoch, sequence, index }, &item[used..]))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::fixtures;

    fn packer(events_max: usize) -> ReplayPacker {
        let limits = ReplayLimits { events_max, ..ReplayLimits::default() };
        ReplayPacker::new("replay.r.lake.0".to_owned(), limits)
    }

    proptest! {
        #[test]
        fn what_is_packed_is_read_back_with_its_positions(
            events in vec((fixtures::any_event(), any::<(u32, u64, u32)>()), 0..30),
            events_max in 1_usize..8,
        ) {
            let events: Vec<(Position, Event)> = events
                .into_iter()
                .map(|(event, (epoch, sequence, index))| {
                    (Position { epoch, sequence, index }, event)
                })
                .collect();
            let mut packer = packer(events_max);
            let mut messages: Vec<Sealed> = events
                .iter()
                .filter_map(|(position, event)| packer.push(*position, event))
                .collect();
            messages.extend(packer.flush());
            let read: Vec<(Position, Event)> = messages
                .iter()
                .flat_map(|sealed| {
                    read_replay(&Headers::of(&sealed.content_type), &sealed.payload).unwrap()
                })
                .collect();
            prop_assert_eq!(read, events);
            prop_assert!(messages.iter().all(|sealed| sealed.events <= events_max));
        }

        #[test]
        fn no_bytes_make_reading_panic(payload in vec(any::<u8>(), 0..300)) {
            let mut payload = payload;
            payload.insert(0, v1::VERSION);
            // The result does not matter, only that there is one.
            drop(read_replay(&Headers::of(CONTENT_TYPE), &payload));
        }
    }

    #[test]
    fn no_message_of_a_run_is_larger_than_its_bound_unless_one_event_is() {
        // Bounds one byte apart, so that some of them end exactly at the end of an event.
        for bytes_max in 900..1_100 {
            let limits = ReplayLimits { events_max: 1_000, bytes_max };
            let mut packer = ReplayPacker::new("replay.r.lake.0".to_owned(), limits);
            let mut sealed = Vec::new();
            for sequence in 0..100 {
                let position = Position { epoch: 1, sequence, index: 0 };
                let key = if sequence == 50 { "k".repeat(2_000) } else { sequence.to_string() };
                sealed.extend(packer.push(position, &fixtures::access_of(&key)));
            }
            sealed.extend(packer.flush());
            assert_eq!(sealed.iter().map(|sealed| sealed.events).sum::<usize>(), 100);
            let beyond: Vec<&Sealed> =
                sealed.iter().filter(|sealed| sealed.payload.len() > bytes_max).collect();
            assert_eq!((beyond.len(), beyond[0].events), (1, 1), "{bytes_max}");
            assert!(sealed.len() < 30, "messages are filled: {} of {bytes_max}", sealed.len());
        }
    }

    #[test]
    fn a_live_message_is_no_replayed_one_and_the_other_way_round() {
        let mut packer = packer(9);
        let position = Position { epoch: 1, sequence: 7, index: 3 };
        packer.push(position, &fixtures::one_of_each()[0]);
        let sealed = packer.flush().unwrap();
        for headers in [Headers::of("application/json"), Headers::default()] {
            assert!(read_replay(&headers, &sealed.payload).is_err());
        }
        let message = crate::Message {
            sequence: 1,
            broker_ns: fixtures::AT.0 * 1_000,
            subject: "lake.access.0.x",
            headers: &Headers::of(CONTENT_TYPE),
            payload: &sealed.payload,
        };
        let reading = crate::read(domain::Stream::lake(0), &message, &domain::Rules::default());
        assert!(matches!(&reading.items[..], [crate::Item::Refused(_)]), "{reading:?}");
        // People may decode such a message all the same.
        let raw = crate::decode(&Headers::of(CONTENT_TYPE), &sealed.payload).unwrap();
        assert_eq!(raw.len(), 1);
        assert!(raw[0].decoded.is_ok());
    }

    /// The bytes of version 1, which may never change.
    #[test]
    fn a_position_stands_before_its_event() {
        let mut packer = packer(9);
        packer.push(Position { epoch: 1, sequence: 7, index: 3 }, &fixtures::one_of_each()[0]);
        let payload = packer.flush().unwrap().payload;
        let plain = v1::encode(&fixtures::one_of_each()[..1]);
        // The version, one event, its length (three bytes more), the position, and the event as in
        // other messages.
        assert_eq!(payload[..2], plain[..2]);
        assert_eq!(payload[2], plain[2] + 3);
        assert_eq!(payload[3..6], [1, 7, 3]);
        assert_eq!(payload[6..], plain[3..]);
    }
}
