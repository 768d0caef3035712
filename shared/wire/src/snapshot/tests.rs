use domain::{Event, Fact, LakeAccess, LakeInventory, WarehouseQuery};

use super::*;

const MARK: Mark = Mark { epoch: 3, sequence: 77, broker_ns: 5_000_000_001, created_ns: 9 };

fn id(number: u64) -> EventId {
    match number % 3 {
        0 => EventId::from_bytes([u8::try_from(number % 251).unwrap(); 16]),
        run => EventId::sequenced(Run::new(run, 7), number * 2),
    }
}

fn lake_event(number: u64) -> Event {
    let bucket = format!("bucket-{}", number % 5);
    let fact = if number.is_multiple_of(17) {
        Fact::LakeInventory(LakeInventory { bucket, objects: 3, bytes: number * 100 })
    } else {
        Fact::LakeAccess(LakeAccess {
            bucket,
            key: format!("key-{}", number % 29),
            operation: Operation::ALL[usize::try_from(number % 7).unwrap()],
            bytes: number,
            object_bytes: number.is_multiple_of(2).then_some(number * 10),
            sequencer: number.is_multiple_of(4).then(|| format!("{number:04x}")),
            duration_us: number,
            outcome: Outcome::ALL[usize::try_from(number % 8 / 6).unwrap()],
            principal: "spark".to_owned(),
        })
    };
    let occurred_at = Timestamp(i64::try_from(number).unwrap() * 1_500_000);
    Event { id: id(number), occurred_at, fact }
}

fn query(number: u64) -> Event {
    let fact = Fact::WarehouseQuery(WarehouseQuery {
        warehouse: format!("warehouse-{}", number % 4),
        database: "dw".to_owned(),
        statement: Statement::ALL[usize::try_from(number % 11).unwrap()],
        queued_us: number,
        executed_us: number * number * 1_000,
        rows_processed: number,
        rows_returned: 1,
        bytes_scanned: number * 8,
        cache_hit: number.is_multiple_of(9),
        outcome: Outcome::Ok,
        principal: "bi".to_owned(),
        fingerprint: "f".to_owned(),
    });
    let occurred_at = Timestamp(i64::try_from(number).unwrap() * 1_500_000);
    Event { id: id(number), occurred_at, fact }
}

fn states() -> [StreamState; 2] {
    let rules = Rules {
        objects_max: 40,
        derived_ids_max: 20,
        holes_per_run_max: 30,
        labels_max: 3,
        ..Rules::default()
    };
    let mut lake = StreamState::new(Stream::lake(0), rules.clone());
    let mut warehouse = StreamState::new(Stream::warehouse(2), rules);
    for number in 0..300 {
        lake.apply(&lake_event(number));
        warehouse.apply(&query(number));
        warehouse.apply_verdict(number / 2, &query(number));
    }
    [lake, warehouse]
}

#[test]
fn a_state_survives_its_snapshot_to_the_bit() {
    for state in states() {
        let (read, mark) = decode_state(&encode_state(&state, &MARK)).unwrap();
        assert_eq!(read, state);
        assert_eq!(mark, MARK);
    }
}

#[test]
fn sums_beyond_64_bits_survive_their_snapshot() {
    let [mut lake, _] = states();
    for number in 1_000..3_000 {
        let mut event = lake_event(number * 14 + 3);
        if let Fact::LakeAccess(access) = &mut event.fact {
            access.key = number.to_string();
            (access.bytes, access.object_bytes) = (u64::MAX, None);
        }
        lake.apply(&event);
    }
    let SideMetrics::Lake(sums) = lake.metrics() else { unreachable!() };
    assert!(sums.used_bytes() > 1_000 * i128::from(i64::MAX), "{}", sums.used_bytes());
    assert_eq!(decode_state(&encode_state(&lake, &MARK)).unwrap().0, lake);
}

#[test]
fn the_sets_of_the_archiver_survive_their_bytes() {
    for state in states() {
        let runs = state.seen().runs();
        assert_eq!(decode_runs(&encode_runs(runs), state.rules()).unwrap(), *runs);
    }
}

#[test]
fn a_cut_lengthened_or_foreign_snapshot_is_refused() {
    for state in states() {
        let bytes = encode_state(&state, &MARK);
        for end in 0..bytes.len() {
            assert!(decode_state(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(decode_state(&longer), Err(SnapshotError::Digest)));
        assert!(matches!(decode_state(&sealed(longer)), Err(SnapshotError::Impossible("length"))));
        let mut foreign = bytes;
        foreign[0] = SNAPSHOT_VERSION + 1;
        assert!(matches!(decode_state(&foreign), Err(SnapshotError::Version { .. })));
    }
}
