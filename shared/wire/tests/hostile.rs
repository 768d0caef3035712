//! Bytes of any origin: no decoder panics, and none reserves memory for what is not there.
//!
//! This is a test binary of its own, because its allocator counts and one test runs at a time.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::sync::{Mutex, PoisonError};

use domain::{
    Event, EventId, Fact, LakeAccess, LakeInventory, Mark, Operation, Outcome, Rules, Run, Sample,
    SampleValues, Statement, Stream, StreamState, Timestamp, WarehouseQuery,
};
use peak_alloc::PeakAlloc;
use proptest::{collection::vec, prelude::*, sample::Index};
use wire::{Format, Message, Subjects, seal, snapshot};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// The measured peak is that of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Bytes of memory that reading a message may take per byte of the message: for items, refusals and
/// texts.
const MESSAGE_MULTIPLE: usize = 64;
/// Bytes of memory besides: what the binary form may claim (8 MiB), and a refusal of each of 20,000
/// items.
const MESSAGE_BYTES: usize = 24 << 20;
/// Bytes of memory that a state may take per byte of its snapshot: for maps of small numbers.
const STATE_MULTIPLE: usize = 64;
/// Bytes of memory besides: the fixed parts of a state.
const STATE_BYTES: usize = 64 << 10;
/// Where the digest of a snapshot ends and its body begins.
const SNAPSHOT_HEAD: usize = 1 + blake3::OUT_LEN;

const AT: Timestamp = Timestamp(1_795_416_180_123_456);

fn event(number: u64, side: u64) -> Event {
    let fact = match side {
        0 => Fact::LakeAccess(LakeAccess {
            bucket: format!("bucket-{}", number % 3),
            key: format!("a/b \"ü\" {number}.parquet"),
            operation: Operation::Write,
            bytes: number * 1_000,
            object_bytes: Some(number),
            sequencer: number.is_multiple_of(2).then(|| format!("{number:016X}")),
            duration_us: 5_200,
            outcome: Outcome::Ok,
            principal: "spark".to_owned(),
        }),
        1 => Fact::LakeInventory(LakeInventory {
            bucket: "bucket-1".to_owned(),
            objects: number,
            bytes: number * 7,
        }),
        _ => Fact::WarehouseQuery(WarehouseQuery {
            warehouse: format!("warehouse-{}", number % 3),
            database: "dw".to_owned(),
            statement: Statement::Select,
            queued_us: number,
            executed_us: 52_000,
            rows_processed: 1_000,
            rows_returned: 10,
            bytes_scanned: 123_456,
            cache_hit: false,
            outcome: Outcome::Ok,
            principal: "bi".to_owned(),
            fingerprint: "5d41402a".to_owned(),
        }),
    };
    let id = match number % 4 {
        0 => EventId::from_bytes([u8::try_from(number % 251).unwrap(); 16]),
        run => EventId::sequenced(Run::new(run, 7), number * 2),
    };
    let micros = AT.0 + i64::try_from(number).unwrap() * 1_500_000;
    Event { id, occurred_at: Timestamp(micros), fact }
}

/// Real messages: each kind of event in each form, and samples.
fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for format in [Format::Json, Format::Bincode] {
        for side in 0..3 {
            let events: Vec<Event> = (1..6).map(|number| event(number, side)).collect();
            messages.push(seal("lake.access.0.x", format, &events).payload.to_vec());
        }
    }
    let buckets = [("raw".to_owned(), 3), ("curated".to_owned(), -7)].into();
    let sample = Sample {
        stream: Stream::lake(0),
        epoch: 2,
        sequence: 77,
        broker_ns: AT.0 * 1_000,
        values: SampleValues::Lake { used_bytes: -4, accesses: 9, buckets },
    };
    messages.push(wire::encode_sample(Subjects::new("").sample(0), &sample).payload.to_vec());
    messages
}

/// Real snapshots, one of each side, and the sets of the archiver.
fn states() -> [Vec<u8>; 3] {
    let rules = Rules { objects_max: 20, derived_ids_max: 10, labels_max: 2, ..Rules::default() };
    let mark = Mark { epoch: 3, sequence: 77, broker_ns: 5_000_000_001, created_ns: 9 };
    let mut lake = StreamState::new(Stream::lake(0), rules.clone());
    let mut warehouse = StreamState::new(Stream::warehouse(0), rules);
    for number in 1..60 {
        lake.apply(&event(number, u64::from(number.is_multiple_of(9))));
        warehouse.apply(&event(number, 2));
    }
    let runs = snapshot::encode_runs(lake.seen().runs());
    [snapshot::encode_state(&lake, &mark), snapshot::encode_state(&warehouse, &mark), runs]
}

/// Damage to bytes on their way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Without(Index, Index),
    Splice(Index, Vec<u8>),
    Repeat(Index, Index, usize),
    /// A length in the binary form that asks for far more than is there.
    Bomb(Index, u64),
    /// A very long sequence of opening brackets.
    Nest(Index, bool, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<Index>;
    prop_oneof![
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => place().prop_map(Damage::Cut),
        1 => (place(), place()).prop_map(|(from, to)| Damage::Without(from, to)),
        2 => (place(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Splice(at, bytes)),
        2 => (place(), place(), 1..50_usize)
            .prop_map(|(from, to, times)| Damage::Repeat(from, to, times)),
        3 => (place(), any::<u64>()).prop_map(|(at, length)| Damage::Bomb(at, length)),
        1 => (place(), any::<bool>(), 1..30_000_usize)
            .prop_map(|(at, array, depth)| Damage::Nest(at, array, depth)),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len() + 1;
        let range = |from: &Index, to: &Index| {
            let (from, to) = (from.index(length), to.index(length));
            from.min(to)..from.max(to)
        };
        match damage {
            Damage::Flip(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= *byte;
            }
            Damage::Flip(..) => {}
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Without(from, to) => drop(bytes.drain(range(from, to))),
            Damage::Splice(at, other) => {
                let at = at.index(length);
                bytes.splice(at..at, other.iter().copied());
            }
            Damage::Repeat(from, to, times) => {
                let part = bytes[range(from, to)].to_vec();
                let at = to.index(length);
                // A message is at most 1 MiB on the wire.
                let times = (*times).min((1 << 20) / (part.len() + 1));
                bytes.splice(at..at, part.repeat(times));
            }
            Damage::Bomb(at, claim) => {
                let at = at.index(length);
                let bomb = std::iter::once(253).chain(claim.to_le_bytes());
                bytes.splice(at..(at + 1).min(bytes.len()), bomb);
            }
            Damage::Nest(at, array, depth) => {
                let at = at.index(length);
                let open: &[u8] = if *array { b"[" } else { b"{\"a\":" };
                bytes.splice(at..at, open.repeat(*depth));
            }
        }
    }
    bytes
}

/// The peak memory of a call, beyond the memory that was in use before it.
fn peak<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let answer = call();
    (answer, ALLOCATED.peak_usage().saturating_sub(before))
}

fn read_every_way(payload: &[u8]) {
    let rules = Rules::default();
    let (_, taken) = peak(|| {
        for stream in Stream::of_partition(0) {
            let (sequence, broker_ns, subject) = (7, AT.0 * 1_000, "lake.access.0.x");
            for content_type in [None, Some("application/x-bincode; v=1"), Some("text/plain")] {
                let headers = &content_type.into();
                let message = Message { sequence, broker_ns, subject, headers, payload };
                drop(wire::read(stream, &message, &rules));
            }
        }
        drop(wire::decode_sample(payload));
    });
    let allowed = payload.len() * MESSAGE_MULTIPLE + MESSAGE_BYTES;
    assert!(taken <= allowed, "{taken} bytes for {} bytes", payload.len());
}

fn decode_state_and_runs(bytes: &[u8]) -> Option<(StreamState, Mark)> {
    let (state, taken) = peak(|| {
        drop(snapshot::decode_runs(bytes, &Rules::default()));
        snapshot::decode_state(bytes).ok()
    });
    let allowed = bytes.len() * STATE_MULTIPLE + STATE_BYTES;
    assert!(taken <= allowed, "{taken} bytes for {} bytes", bytes.len());
    state
}

/// The same bytes with a matching digest, as an attacker would write them.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() > SNAPSHOT_HEAD {
        let digest = blake3::hash(&bytes[SNAPSHOT_HEAD..]);
        bytes[0] = snapshot::SNAPSHOT_VERSION;
        bytes[1..SNAPSHOT_HEAD].copy_from_slice(digest.as_bytes());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_message_costs_no_panic_and_bounded_memory(
        base in any::<Index>(),
        damages in vec(damage(), 1..5),
    ) {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = messages();
        read_every_way(&damaged(messages[base.index(messages.len())].clone(), &damages));
    }

    #[test]
    fn a_damaged_snapshot_is_refused_unless_it_is_the_same(
        base in any::<Index>(),
        damages in vec(damage(), 1..5),
    ) {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let states = states();
        let whole = &states[base.index(states.len())];
        let damaged = damaged(whole.clone(), &damages);
        let accepted = decode_state_and_runs(&damaged);
        prop_assert!(accepted.is_none() || damaged == *whole, "a damaged snapshot was accepted");
    }

    #[test]
    fn an_enemys_snapshot_costs_no_panic_and_bounded_memory(
        base in any::<Index>(),
        damages in vec(damage(), 1..5),
    ) {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let states = states();
        let body = states[base.index(states.len())][SNAPSHOT_HEAD..].to_vec();
        let mut bytes = vec![0; SNAPSHOT_HEAD];
        bytes.extend(damaged(body, &damages));
        decode_state_and_runs(&resealed(bytes));
    }
}

#[test]
fn a_megabyte_of_the_least_items_stays_within_the_bounds() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for least in ["\n", "x\n", "{}\n", "[],", "[[", "{\"a\":", "\"\\u0000\","] {
        let mut payload = least.repeat((1 << 20) / least.len());
        read_every_way(payload.as_bytes());
        payload.insert(0, '[');
        read_every_way(payload.as_bytes());
    }
    // Version 1, and as many empty items as one megabyte can hold.
    for items in [wire::ITEMS_MAX, wire::ITEMS_MAX + 1, 1 << 20] {
        let mut payload = vec![1, 252];
        payload.extend(u32::try_from(items).unwrap().to_le_bytes());
        payload.extend(std::iter::repeat_n(0, items));
        read_every_way(&payload);
    }
}
