//! Identity: what makes two deliveries the same event.

use std::fmt;

/// The twelve custom bits of a UUIDv8 that mark an id as ours: a run prefix and a running number.
const MARKER: u128 = 0x1a6;
const SALT_BITS: u32 = 20;
const NUMBER_BITS: u32 = 42;

/// The largest running number of a run: at 100,000 events/s it lasts for 500 days.
pub const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;

/// The origin of a sequenced id: one run of one producer.
///
/// Ordered by start time, then by salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// When the run started, in milliseconds since 1970; 48 bits are kept.
    start_ms: u64,
    /// Distinguishes runs that start in the same millisecond; 20 bits are kept.
    salt: u32,
}

impl Run {
    /// A run from its start and a salt. Bits for which an id has no room are cut off.
    pub const fn new(start_ms: u64, salt: u32) -> Self {
        Self { start_ms: start_ms & ((1 << 48) - 1), salt: salt & ((1 << SALT_BITS) - 1) }
    }

    /// When the run started, in milliseconds since 1970.
    pub const fn start_ms(self) -> u64 {
        self.start_ms
    }

    /// The number that distinguishes this run from others of the same millisecond.
    pub const fn salt(self) -> u32 {
        self.salt
    }
}

/// Formats a run as twelve and five hexadecimal digits, which are safe in an object key or a file
/// name.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{:05x}", self.start_ms, self.salt)
    }
}

/// A UUID, given once at the origin. The id and the time of an event together are the event's
/// identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; 16]);

/// What an id shows about its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// From our own producers: a run and a running number.
    Sequenced {
        /// The run that gave the id.
        run: Run,
        /// The number in the run, from 0, without gaps.
        number: u64,
    },
    /// Any other UUID: derived from the natural key of a real source.
    Derived,
}

impl EventId {
    /// An id from its sixteen bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes of the id, in the order of the text form.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of event number `number` of a run. Numbers above [`NUMBER_MAX`] lose their upper
    /// bits.
    ///
    /// The id is a UUIDv8 (RFC 9562 section 5.8): 48 bits of start time, 12 marker bits, 20 bits of
    /// salt and 42 bits of number. Ids of one run ascend with their number, as bytes and as text.
    pub fn sequenced(run: Run, number: u64) -> Self {
        let value = (u128::from(run.start_ms) << 80)
            | (0x8 << 76)
            | (MARKER << 64)
            | (0b10 << 62)
            | (u128::from(run.salt) << NUMBER_BITS)
            | u128::from(number & NUMBER_MAX);
        Self(value.to_be_bytes())
    }

    /// The kind of the id, by our marker bits.
    pub fn kind(self) -> IdKind {
        let value = u128::from_be_bytes(self.0);
        let marked = (value >> 64) & 0xffff == (0x8 << 12 | MARKER) && (value >> 62) & 0b11 == 0b10;
        if !marked {
            return IdKind::Derived;
        }
        let low = low_64(value);
        let salt = u32::try_from((low >> NUMBER_BITS) & ((1 << SALT_BITS) - 1));
        let run = Run::new(low_64(value >> 80), salt.expect("20 bits fit into 32"));
        IdKind::Sequenced { run, number: low & NUMBER_MAX }
    }
}

fn low_64(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).expect("64 bits fit into 64")
}

/// The usual text form of a UUID, lower case.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequenced_id_gives_back_its_run_and_number() {
        for (start_ms, salt, number) in
            [(0, 0, 0), (1_763_880_180_123, 0xfffff, NUMBER_MAX), (1, 77, 1 << 41)]
        {
            let run = Run::new(start_ms, salt);
            assert_eq!(EventId::sequenced(run, number).kind(), IdKind::Sequenced { run, number });
        }
    }

    #[test]
    fn a_run_tells_its_start_and_salt_and_is_written_with_both() {
        let run = Run::new(0x019a_bcde_f012, 0xabcde);
        assert_eq!((run.start_ms(), run.salt()), (0x019a_bcde_f012, 0xabcde));
        assert_eq!(run.to_string(), "019abcdef012-abcde");
        assert_eq!(Run::new(u64::MAX, u32::MAX).to_string(), "ffffffffffff-fffff");
    }

    #[test]
    fn ids_of_a_run_ascend_with_their_number_and_runs_with_their_start() {
        let early = Run::new(1_000, 0xfffff);
        let late = Run::new(1_001, 0);
        assert!(EventId::sequenced(early, 1) < EventId::sequenced(early, 2));
        assert!(EventId::sequenced(early, NUMBER_MAX) < EventId::sequenced(late, 0));
    }

    #[test]
    fn an_id_without_our_marker_is_derived() {
        let ours = u128::from_be_bytes(*EventId::sequenced(Run::new(5, 6), 7).as_bytes());
        for bit in [62, 63, 64, 70, 75, 76, 79] {
            let other = EventId::from_bytes((ours ^ (1 << bit)).to_be_bytes());
            assert_eq!(other.kind(), IdKind::Derived, "bit {bit}");
        }
    }

    #[test]
    fn the_text_form_is_that_of_a_uuid_of_version_8() {
        let id = EventId::sequenced(Run::new(0x019a_bcde_f012, 0xabcde), 0x3ff);
        assert_eq!(id.to_string(), "019abcde-f012-81a6-aaf3-7800000003ff");
        assert_eq!(format!("{id:?}"), id.to_string());
    }
}
