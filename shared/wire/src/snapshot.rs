//! State to bytes and back: the aggregator's snapshot and the archiver's sets.
//!
//! The bytes are a version byte, for a state the digest of what follows, and bincode of tuples in a
//! fixed order. Bytes of another version are refused and the state is rebuilt from the archive, so
//! old versions need no conversion. Lists are read item by item: a length reserves no memory for
//! items that are not there.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{BorrowDecode, Encode, config};
use domain::{
    EventId, Mark, Operation, Outcome, Rules, Run, Seen, SideMetrics, Statement, Stream,
    StreamState, Timestamp,
    labels::Labels,
    lake::{BucketSums, LakeState},
    objects::{Object, Objects, Version},
    runs::{Runs, SequenceSet},
    seen::Derived,
    space::Space,
    warehouse::{RecentResponses, WarehouseState, WarehouseSums},
};

/// The version of a state's bytes that this program writes and reads; it belongs to version 1 of
/// the rules. Version 2 added the number of counted verdicts and the digest, version 3 the
/// durations of lake requests, version 4 what was withdrawn. No release wrote a version before 4.
pub const SNAPSHOT_VERSION: u8 = 4;
/// The version of the bytes of the archiver's sets. They are versioned separately, because a
/// checkpoint of another version could not be rebuilt from anything.
const RUNS_VERSION: u8 = 1;
/// Length of the digest, which is of blake3, in bytes.
const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// The most memory that decoding may claim, in bytes: more than the largest state that [`Rules`]
/// allow by default (500,000 objects and 250,000 ids: about 60 MB), less than a machine has.
const DECODED_BYTES_MAX: usize = 1 << 30;

const CONFIG: config::Configuration<
    config::LittleEndian,
    config::Varint,
    config::Limit<DECODED_BYTES_MAX>,
> = config::standard().with_limit::<DECODED_BYTES_MAX>();

/// Why bytes are not a state that this program can read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes were written by another release.
    #[error("the snapshot has version {found}, but this program reads version {known}")]
    Version {
        /// The version of the bytes.
        found: u8,
        /// The version that this program reads.
        known: u8,
    },
    /// There are no bytes.
    #[error("the snapshot is empty")]
    Empty,
    /// The bytes are cut, damaged or not a snapshot.
    #[error("the snapshot cannot be decoded")]
    Damaged(#[source] bincode::error::DecodeError),
    /// The bytes are not those that were written.
    #[error("the snapshot is damaged: its bytes do not match its digest")]
    Digest,
    /// The bytes are well formed, but contain something impossible.
    #[error("the snapshot holds an impossible {0}")]
    Impossible(&'static str),
}

type RunKey = (u64, u32);
type IdentityKey = (i64, [u8; 16]);
type VersionKey<'a> = (i64, Option<&'a str>, [u8; 16]);
/// The form in which runs are written; they are read item by item.
type RunsForm = (Option<RunKey>, Vec<(RunKey, u64, u64, Vec<(u64, u64)>)>);

/// The sequenced ids of a stream as bytes, for the archiver's checkpoint.
pub fn encode_runs(runs: &Runs) -> Vec<u8> {
    let mut bytes = vec![RUNS_VERSION];
    put(&mut bytes, &runs_form(runs));
    bytes
}

/// Decodes the bytes of [`encode_runs`], with the bounds in force.
///
/// # Errors
///
/// The bytes have another version, or are cut or damaged.
pub fn decode_runs(bytes: &[u8], rules: &Rules) -> Result<Runs, SnapshotError> {
    let mut rest = versioned(bytes, RUNS_VERSION)?;
    let runs = take_runs(&mut rest, rules)?;
    finished(rest)?;
    Ok(runs)
}

/// A state after the message at `mark`, as bytes.
pub fn encode_state(state: &StreamState, mark: &Mark) -> Vec<u8> {
    let mut bytes = vec![SNAPSHOT_VERSION];
    bytes.extend_from_slice(&[0; DIGEST_BYTES]);
    put(&mut bytes, &state.stream().to_string());
    put(&mut bytes, &state.rules().to_metadata());
    put(&mut bytes, &(mark.epoch, mark.sequence, mark.broker_ns, mark.created_ns));
    put(&mut bytes, &state.verdicts());
    put(&mut bytes, &runs_form(state.seen().runs()));
    let derived = state.seen().derived();
    put(&mut bytes, &derived.floor().map(identity_form));
    put(&mut bytes, &length(derived.kept().len()));
    for identity in derived.kept() {
        put(&mut bytes, &identity_form(*identity));
    }
    match state.metrics() {
        SideMetrics::Lake(lake) => put_lake(&mut bytes, lake),
        SideMetrics::Warehouse(warehouse) => put_warehouse(&mut bytes, warehouse),
    }
    sealed(bytes)
}

/// Decodes the bytes of [`encode_state`].
///
/// # Errors
///
/// The bytes have another version, or are cut or damaged.
pub fn decode_state(bytes: &[u8]) -> Result<(StreamState, Mark), SnapshotError> {
    decode_state_by(bytes, None)
}

/// Decodes a state under these rules instead of those in the bytes: a base of the archive is kept
/// longer than the epoch whose rules it followed.
///
/// # Errors
///
/// The same as of [`decode_state`].
pub fn decode_state_under(bytes: &[u8], rules: &Rules) -> Result<StreamState, SnapshotError> {
    decode_state_by(bytes, Some(rules)).map(|(state, _)| state)
}

fn decode_state_by(
    bytes: &[u8],
    in_force: Option<&Rules>,
) -> Result<(StreamState, Mark), SnapshotError> {
    let mut rest = unsealed(versioned(bytes, SNAPSHOT_VERSION)?)?;
    let stream: &str = take(&mut rest)?;
    let stream = Stream::from_name(stream).ok_or(SnapshotError::Impossible("stream"))?;
    let rules = take_names(&mut rest, |rest| take::<&str>(rest).map(str::to_owned))?;
    let own =
        Rules::from_metadata(&rules).map_err(|_| SnapshotError::Impossible("set of rules"))?;
    let rules = in_force.cloned().unwrap_or(own);
    let (epoch, sequence, broker_ns, created_ns) = take(&mut rest)?;
    let verdicts = take(&mut rest)?;
    let runs = take_runs(&mut rest, &rules)?;
    let floor: Option<IdentityKey> = take(&mut rest)?;
    let kept: BTreeSet<_> = take_list(&mut rest, |rest| take(rest).map(identity_of))?;
    let derived = Derived::restore(rules.derived_ids_max, kept, floor.map(identity_of));
    let metrics = match stream.side {
        domain::Side::Lake => SideMetrics::Lake(take_lake(&mut rest, &rules)?),
        domain::Side::Warehouse => SideMetrics::Warehouse(take_warehouse(&mut rest, &rules)?),
    };
    finished(rest)?;
    let seen = Seen::restore(runs, derived);
    let state = StreamState::restore(stream, rules, seen, verdicts, metrics);
    Ok((state, Mark { epoch, sequence, broker_ns, created_ns }))
}

fn put(bytes: &mut Vec<u8>, value: &impl Encode) {
    bincode::encode_into_std_write(value, bytes, CONFIG)
        .expect("writing into memory does not fail, and tuples of integers and texts encode");
}

/// Takes a value that reserves no memory beyond its own size: numbers, tuples, borrowed texts.
fn take<'a, T: BorrowDecode<'a, ()>>(rest: &mut &'a [u8]) -> Result<T, SnapshotError> {
    let (value, read) =
        bincode::borrow_decode_from_slice(rest, CONFIG).map_err(SnapshotError::Damaged)?;
    *rest = &rest[read..];
    Ok(value)
}

/// Takes a length and as many items; memory is reserved only for items that are there.
fn take_list<'a, T, C: FromIterator<T>>(
    rest: &mut &'a [u8],
    mut item: impl FnMut(&mut &'a [u8]) -> Result<T, SnapshotError>,
) -> Result<C, SnapshotError> {
    let items: u64 = take(rest)?;
    (0..items).map(|_| item(rest)).collect()
}

/// Takes a map whose keys are names.
fn take_names<'a, T>(
    rest: &mut &'a [u8],
    mut value: impl FnMut(&mut &'a [u8]) -> Result<T, SnapshotError>,
) -> Result<BTreeMap<String, T>, SnapshotError> {
    take_list(rest, |rest| Ok((take::<&str>(rest)?.to_owned(), value(rest)?)))
}

fn versioned(bytes: &[u8], known: u8) -> Result<&[u8], SnapshotError> {
    match bytes.split_first() {
        None => Err(SnapshotError::Empty),
        Some((found, rest)) if *found == known => Ok(rest),
        Some((found, _)) => Err(SnapshotError::Version { found: *found, known }),
    }
}

/// Writes the digest of the bytes after it.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let (head, body) = bytes.split_at_mut(1 + DIGEST_BYTES);
    head[1..].copy_from_slice(blake3::hash(body).as_bytes());
    bytes
}

/// The bytes after the digest, if they are those that were written.
fn unsealed(bytes: &[u8]) -> Result<&[u8], SnapshotError> {
    let (digest, body) = bytes.split_first_chunk::<DIGEST_BYTES>().ok_or(SnapshotError::Digest)?;
    if blake3::hash(body).as_bytes() == digest { Ok(body) } else { Err(SnapshotError::Digest) }
}

const fn finished(rest: &[u8]) -> Result<(), SnapshotError> {
    if rest.is_empty() { Ok(()) } else { Err(SnapshotError::Impossible("length")) }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits into 64 bits")
}

fn runs_form(runs: &Runs) -> RunsForm {
    let kept = runs.kept().iter().map(|(run, numbers)| {
        let holes = numbers.holes.iter().map(|(start, end)| (*start, *end)).collect();
        (run_form(*run), numbers.next, numbers.floor, holes)
    });
    (runs.floor().map(run_form), kept.collect())
}

fn take_runs(rest: &mut &[u8], rules: &Rules) -> Result<Runs, SnapshotError> {
    let floor: Option<RunKey> = take(rest)?;
    let kept: BTreeMap<Run, SequenceSet> = take_list(rest, |rest| {
        let (run, next, floor) = take(rest)?;
        let holes = take_list(rest, take::<(u64, u64)>)?;
        Ok((run_of(run), SequenceSet { next, floor, holes }))
    })?;
    Ok(Runs::restore(rules.runs_max, rules.holes_per_run_max, kept, floor.map(run_of)))
}

const fn run_form(run: Run) -> RunKey {
    (run.start_ms(), run.salt())
}

const fn run_of((start_ms, salt): RunKey) -> Run {
    Run::new(start_ms, salt)
}

const fn identity_form((at, id): domain::EventIdentity) -> IdentityKey {
    (at.0, *id.as_bytes())
}

const fn identity_of((at, id): IdentityKey) -> domain::EventIdentity {
    (Timestamp(at), EventId::from_bytes(id))
}

fn version_form(version: &Version) -> VersionKey<'_> {
    (version.occurred_at.0, version.sequencer.as_deref(), *version.id.as_bytes())
}

fn version_of((at, sequencer, id): VersionKey<'_>) -> Version {
    Version {
        occurred_at: Timestamp(at),
        sequencer: sequencer.map(Box::from),
        id: EventId::from_bytes(id),
    }
}

fn put_lake(bytes: &mut Vec<u8>, lake: &LakeState) {
    put(bytes, &(lake.accesses, lake.newest.0));
    put(bytes, lake.labels.by_name());
    put(bytes, &length(lake.buckets.len()));
    for (label, sums) in &lake.buckets {
        let accesses: Vec<(u8, u8, u64)> = sums
            .accesses
            .iter()
            .map(|((operation, outcome), count)| (operation.code(), outcome.code(), *count))
            .collect();
        let transferred: Vec<(u8, u128)> =
            sums.transferred.iter().map(|(operation, bytes)| (operation.code(), *bytes)).collect();
        put(bytes, &(*label, accesses, transferred));
        put(bytes, &(sums.durations.to_vec(), sums.duration_us, sums.withdrawn));
        let space = &sums.space;
        let inventory = space.inventory.map(|(identity, at)| (identity_form(identity), at));
        put(bytes, &(space.tracked, space.offset, inventory));
        put(bytes, &space.slots);
    }
    put(bytes, &lake.objects.floor().map(version_form));
    put(bytes, &lake.objects.forgotten_objects());
    put(bytes, &length(lake.objects.kept().len()));
    for (key, object) in lake.objects.kept() {
        put(bytes, &(*key, version_form(&object.version), object.bytes, object.label));
    }
}

fn take_lake(rest: &mut &[u8], rules: &Rules) -> Result<LakeState, SnapshotError> {
    let mut lake = LakeState::new(rules);
    let (accesses, newest) = take(rest)?;
    (lake.accesses, lake.newest) = (accesses, Timestamp(newest));
    lake.labels = Labels::restore(rules.labels_max, take_names(rest, take)?);
    lake.buckets = take_list(rest, take_bucket)?;
    let floor: Option<VersionKey<'_>> = take(rest)?;
    let forgotten = take(rest)?;
    let kept: BTreeMap<_, _> = take_list(rest, |rest| {
        let (key, version, bytes, label) = take(rest)?;
        Ok((key, Object { version: version_of(version), bytes, label }))
    })?;
    lake.objects = Objects::restore(rules.objects_max, kept, floor.map(version_of), forgotten);
    Ok(lake)
}

fn take_bucket(rest: &mut &[u8]) -> Result<(u16, BucketSums), SnapshotError> {
    let label = take(rest)?;
    let mut sums = BucketSums {
        accesses: take_list(rest, |rest| {
            let (op, outcome, count) = take(rest)?;
            Ok(((operation(op)?, outcome_of(outcome)?), count))
        })?,
        transferred: take_list(rest, |rest| {
            let (op, bytes) = take(rest)?;
            Ok((operation(op)?, bytes))
        })?,
        durations: take_histogram(rest)?,
        duration_us: take(rest)?,
        withdrawn: take(rest)?,
        ..BucketSums::default()
    };
    let (tracked, offset, inventory): (i128, i128, Option<(IdentityKey, i64)>) = take(rest)?;
    let inventory = inventory.map(|(identity, at)| (identity_of(identity), at));
    sums.space = Space { tracked, offset, inventory, slots: take_list(rest, take)? };
    Ok((label, sums))
}

fn put_warehouse(bytes: &mut Vec<u8>, warehouse: &WarehouseState) {
    put(bytes, &(warehouse.records, warehouse.newest.0));
    put(bytes, &warehouse.responses.seconds);
    put(bytes, warehouse.labels.by_name());
    put(bytes, &length(warehouse.warehouses.len()));
    for (label, sums) in &warehouse.warehouses {
        let queries: Vec<(u8, u8, u64)> = sums
            .queries
            .iter()
            .map(|((statement, outcome), count)| (statement.code(), outcome.code(), *count))
            .collect();
        put(bytes, &(*label, queries, sums.responses.to_vec()));
        put(bytes, &(sums.response_us, sums.queued_us, sums.records, sums.scanned));
        put(bytes, &(sums.cache_hits, sums.withdrawn, sums.withdrawn_records));
    }
}

fn take_warehouse(rest: &mut &[u8], rules: &Rules) -> Result<WarehouseState, SnapshotError> {
    let mut warehouse = WarehouseState::new(rules);
    let (records, newest) = take(rest)?;
    (warehouse.records, warehouse.newest) = (records, Timestamp(newest));
    warehouse.responses = RecentResponses { seconds: take_list(rest, take)? };
    warehouse.labels = Labels::restore(rules.labels_max, take_names(rest, take)?);
    let warehouses: u64 = take(rest)?;
    for _ in 0..warehouses {
        let label = take(rest)?;
        let queries: Vec<(u8, u8, u64)> = take_list(rest, take)?;
        let responses = take_histogram(rest)?;
        let (response_us, queued_us, records, scanned) = take(rest)?;
        let mut sums = WarehouseSums {
            responses,
            response_us,
            queued_us,
            records,
            scanned,
            cache_hits: take(rest)?,
            withdrawn: take(rest)?,
            withdrawn_records: take(rest)?,
            ..WarehouseSums::default()
        };
        for (kind, outcome, count) in queries {
            let kind = Statement::from_code(kind).ok_or(SnapshotError::Impossible("statement"))?;
            sums.queries.insert((kind, outcome_of(outcome)?), count);
        }
        warehouse.warehouses.insert(label, sums);
    }
    Ok(warehouse)
}

fn take_histogram<const BUCKETS: usize>(rest: &mut &[u8]) -> Result<[u64; BUCKETS], SnapshotError> {
    let counts: Vec<u64> = take_list(rest, take)?;
    counts.try_into().map_err(|_| SnapshotError::Impossible("number of histogram buckets"))
}

fn operation(code: u8) -> Result<Operation, SnapshotError> {
    Operation::from_code(code).ok_or(SnapshotError::Impossible("operation"))
}

fn outcome_of(code: u8) -> Result<Outcome, SnapshotError> {
    Outcome::from_code(code).ok_or(SnapshotError::Impossible("outcome"))
}

#[cfg(test)]
mod tests;
