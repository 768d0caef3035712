//! Packing events of one producer and one partition into messages, by number, age and size.

use domain::Event;

use crate::{Format, MESSAGE_BYTES_MAX, Sealed, json, v1};

/// When a message is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackerLimits {
    /// Events in a message. With a hundred events per message, the broker takes ten times as many
    /// events per second as with one.
    pub events_max: usize,
    /// How long the first event of a message waits for others, in milliseconds.
    pub age_ms_max: u64,
    /// Bytes of a message; fewer if the broker accepts less ([`Packer::bound`]).
    pub bytes_max: usize,
}

impl Default for PackerLimits {
    fn default() -> Self {
        Self { events_max: 100, age_ms_max: 20, bytes_max: MESSAGE_BYTES_MAX }
    }
}

/// Collects events for one subject. The packer has no clock: time is an argument.
///
/// Each event is encoded once, when it is added, so that the size of the message is known exactly.
#[derive(Debug)]
pub struct Packer {
    subject: String,
    format: Format,
    limits: PackerLimits,
    /// How many bytes the broker accepts as one message.
    taken_bytes_max: usize,
    /// The encoded events, as they will be in the message.
    body: Vec<u8>,
    /// The encoded event that is being added.
    item: Vec<u8>,
    events: usize,
    /// When the first event was added.
    since_ms: u64,
}

impl Packer {
    /// An empty packer for one subject.
    pub const fn new(subject: String, format: Format, limits: PackerLimits) -> Self {
        Self {
            subject,
            format,
            limits,
            taken_bytes_max: usize::MAX,
            body: Vec::new(),
            item: Vec::new(),
            events: 0,
            since_ms: 0,
        }
    }

    /// Sets how many bytes the broker accepts as one message, from the next event on. The number
    /// may differ with each connection.
    pub const fn bound(&mut self, taken_bytes_max: usize) {
        self.taken_bytes_max = taken_bytes_max;
    }

    fn bytes_max(&self) -> usize {
        self.limits.bytes_max.min(self.taken_bytes_max)
    }

    /// Adds an event. Returns the message that this event filled, or the previous message if the
    /// event did not fit into it.
    pub fn push(&mut self, now_ms: u64, event: &Event) -> Option<Sealed> {
        self.item.clear();
        match self.format {
            Format::Json => {
                json::write_line(&mut self.item, event);
                self.item.push(b'\n');
            }
            Format::Bincode => v1::write_item(&mut self.item, event),
        }
        let frame = match self.format {
            Format::Json => 0,
            Format::Bincode => v1::FRAME_BYTES_MAX,
        };
        let fits = self.body.len() + self.item.len() + frame <= self.bytes_max();
        let before = if fits { None } else { self.flush() };
        if self.events == 0 {
            self.since_ms = now_ms;
        }
        match self.format {
            Format::Json => self.body.extend_from_slice(&self.item),
            Format::Bincode => v1::append_item(&mut self.body, &self.item),
        }
        self.events += 1;
        if before.is_none() && self.is_full() { self.flush() } else { before }
    }

    /// When the current message is due, in the same milliseconds; `None` if it is empty.
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.events == 0 {
            return None;
        }
        let age_ms = if self.is_full() { 0 } else { self.limits.age_ms_max };
        Some(self.since_ms.saturating_add(age_ms))
    }

    /// Returns the current message if it is due.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Option<Sealed> {
        if self.poll_timeout()? <= now_ms { self.flush() } else { None }
    }

    /// Returns the current message, due or not; `None` if it is empty.
    pub fn flush(&mut self) -> Option<Sealed> {
        if self.events == 0 {
            return None;
        }
        let payload = match self.format {
            Format::Json => self.body.clone(),
            Format::Bincode => v1::payload(self.events, &self.body),
        };
        // The buffer keeps its capacity for the next message.
        self.body.clear();
        let events = std::mem::take(&mut self.events);
        Some(Sealed::new(self.subject.clone(), self.format.content_type(), payload, events))
    }

    fn is_full(&self) -> bool {
        self.events >= self.limits.events_max || self.body.len() >= self.bytes_max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixtures, seal};

    const LIMITS: PackerLimits = PackerLimits { events_max: 3, age_ms_max: 20, bytes_max: 4_096 };

    fn packer(format: Format, limits: PackerLimits) -> Packer {
        Packer::new("lake.access.0.s".to_owned(), format, limits)
    }

    #[test]
    fn a_packed_message_is_the_sealed_one() {
        let mut events = fixtures::one_of_each();
        events.truncate(3);
        for format in [Format::Json, Format::Bincode] {
            let mut packer = packer(format, LIMITS);
            for _ in 0..2 {
                assert_eq!(packer.push(0, &events[0]), None);
                assert_eq!(packer.push(1, &events[1]), None);
                let expected = seal("lake.access.0.s", format, &events);
                assert_eq!(packer.push(2, &events[2]), Some(expected));
                assert_eq!(packer.flush(), None);
            }
        }
    }

    #[test]
    fn the_first_event_decides_when_a_message_is_due() {
        let event = &fixtures::one_of_each()[0];
        let mut packer = packer(Format::Json, LIMITS);
        assert_eq!(packer.poll_timeout(), None);
        assert_eq!(packer.handle_timeout(u64::MAX), None);
        packer.push(100, event);
        packer.push(115, event);
        assert_eq!(packer.poll_timeout(), Some(120));
        assert_eq!(packer.handle_timeout(119), None);
        assert_eq!(packer.handle_timeout(120).map(|sealed| sealed.events), Some(2));
        packer.push(130, event);
        assert_eq!(packer.poll_timeout(), Some(150));
    }

    #[test]
    fn no_message_is_larger_than_its_bound_unless_one_event_is() {
        // Bounds one byte apart, so that some of them end exactly at the end of an event.
        for (format, bytes_max) in [Format::Json, Format::Bincode]
            .into_iter()
            .flat_map(|format| (1_900..2_100).map(move |bytes_max| (format, bytes_max)))
        {
            let limits = PackerLimits { events_max: 1_000, bytes_max, ..LIMITS };
            let mut packer = packer(format, limits);
            let large = fixtures::access_of(&"k".repeat(3_000));
            let mut sealed = Vec::new();
            for number in 0..100 {
                sealed.extend(packer.push(0, &fixtures::access_of(&number.to_string())));
                if number == 50 {
                    sealed.extend(packer.push(0, &large));
                }
            }
            sealed.extend(packer.flush());
            assert_eq!(sealed.iter().map(|sealed| sealed.events).sum::<usize>(), 101);
            let beyond: Vec<&Sealed> =
                sealed.iter().filter(|sealed| sealed.payload.len() > bytes_max).collect();
            assert_eq!(beyond.len(), 1, "{format:?} {bytes_max}");
            assert_eq!(beyond[0].events, 1);
        }
    }

    #[test]
    fn a_message_takes_as_many_events_as_fit_but_for_a_few_bytes() {
        let event = fixtures::access_of("k");
        // The size of the binary form's head and lengths is not known before they are written.
        for (format, spare_bytes) in [(Format::Json, 0), (Format::Bincode, 24)] {
            for events in 2..6 {
                let whole = seal("lake.access.0.s", format, &vec![event.clone(); events]);
                let bytes_max = whole.payload.len() + spare_bytes;
                let limits = PackerLimits { events_max: 1_000, bytes_max, ..LIMITS };
                let mut packer = packer(format, limits);
                let filled = (0..=events).find_map(|_| packer.push(0, &event));
                assert_eq!(filled, Some(whole), "{format:?}");
            }
        }
    }

    #[test]
    fn what_the_broker_takes_bounds_a_message_from_the_next_event_on() {
        let event = &fixtures::one_of_each()[0];
        let limits = PackerLimits { events_max: 1_000, ..LIMITS };
        let mut packer = packer(Format::Json, limits);
        assert_eq!((packer.push(0, event), packer.push(0, event)), (None, None));
        packer.bound(1);
        assert_eq!(packer.push(0, event).map(|sealed| sealed.events), Some(2));
        packer.bound(usize::MAX);
        assert_eq!(packer.push(0, event), None);
        assert_eq!(packer.flush().map(|sealed| sealed.events), Some(2), "our own bound again");
    }
}
