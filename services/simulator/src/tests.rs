//! Properties of whole runs: pure, from settings to the bytes of messages.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Event, EventId, Fact, IdKind, LakeAccess, Operation, Outcome, Rules, Run, Stream, Timestamp,
};
use proptest::prelude::*;
use service_kit::{Flags, Settings};
use wire::{Format, Item};

use crate::{
    RunSeed,
    feed::{MessageSource, Pulled, SealedMessage},
    lake::{self, Change, Lake},
    model::{Expected, Model, Oracle as _},
    rng::{length, to_f64},
    scenario::Scenario,
    settings::Common,
    warehouse::{self, Warehouse},
};

const START: Timestamp = Timestamp(1_767_225_600_000_000);
const NEVER: Timestamp = Timestamp(i64::MAX);

fn lake_config(flags: &[(&str, &str)]) -> lake::Config {
    let none = BTreeMap::<&str, &str>::new();
    let flags = with_flags("SIMULATE_LAKE_", flags);
    let mut settings = Settings::new(&flags, &none);
    let config = lake::Config::load(&mut settings);
    assert_eq!(settings.finish(), Ok(()));
    config.unwrap()
}

fn warehouse_config(flags: &[(&str, &str)]) -> warehouse::Config {
    let none = BTreeMap::<&str, &str>::new();
    let flags = with_flags("SIMULATE_WAREHOUSE_", flags);
    let mut settings = Settings::new(&flags, &none);
    let config = warehouse::Config::load(&mut settings);
    assert_eq!(settings.finish(), Ok(()));
    config.unwrap()
}

fn with_flags(prefix: &str, given: &[(&str, &str)]) -> Flags {
    let mut flags = Flags::default();
    for (name, value) in given {
        flags.set(&format!("{prefix}{name}"), *value);
    }
    flags
}

fn lake_feed(config: &lake::Config, origin: RunSeed) -> MessageSource<Lake> {
    let scenario = origin.scenario(&config.common);
    let model = Lake::new(origin.model_draw(), config.shape.clone(), scenario, origin.run);
    origin.feed(model, &config.common, "lake.access.0.s".to_owned())
}

fn warehouse_feed(config: &warehouse::Config, origin: RunSeed) -> MessageSource<Warehouse> {
    let scenario = origin.scenario(&config.common);
    let model = Warehouse::new(origin.model_draw(), config.shape.clone(), scenario);
    origin.feed(model, &config.common, "warehouse.query.0.s".to_owned())
}

fn origin(seed: u64, name: &str) -> RunSeed {
    RunSeed::new(seed, START, Ok(name), Stream::lake(0))
}

fn all<M: Model>(mut feed: MessageSource<M>) -> Vec<SealedMessage<M::Note>> {
    let mut messages = Vec::new();
    while let Pulled::Message(message) = feed.pull(NEVER) {
        messages.push(message);
    }
    assert_eq!(feed.held(), 0);
    messages
}

/// What a consumer reads: events, decoded and accepted, in the order of the stream.
fn read<N>(messages: &[SealedMessage<N>], stream: Stream) -> Vec<Event> {
    let rules = Rules::default();
    let read_one = |message: &SealedMessage<N>| {
        let delivered = wire::Message {
            sequence: 1,
            broker_ns: message.due.0 * 1_000,
            subject: &message.sealed.subject,
            headers: &wire::Headers::of(&message.sealed.content_type),
            payload: &message.sealed.payload,
        };
        let items = wire::read(stream, &delivered, &rules).items;
        items.into_iter().map(|item| match item {
            Item::Event(event) => event,
            other @ (Item::Verdict(_) | Item::Refused(_)) => panic!("{other:?}"),
        })
    };
    messages.iter().flat_map(read_one).collect()
}

fn access(event: &Event) -> &LakeAccess {
    let Fact::LakeAccess(access) = &event.fact else { panic!("{event:?}") };
    access
}

fn distinct(events: &[Event]) -> Vec<&Event> {
    let mut seen = BTreeSet::new();
    events.iter().filter(|event| seen.insert(event.identity())).collect()
}

#[test]
fn the_same_run_gives_the_same_bytes_and_another_gives_none_of_them() {
    for format in ["json", "bincode"] {
        let flags = [("EVENTS", "20000"), ("FORMAT", format), ("RATE", "3000")];
        let config = lake_config(&flags);
        let messages = all(lake_feed(&config, origin(7, "a")));
        assert_eq!(messages, all(lake_feed(&config, origin(7, "a"))));
        let keys = |messages| {
            let events = read(messages, Stream::lake(0));
            events.iter().map(|event| access(event).key.clone()).collect::<BTreeSet<_>>()
        };
        let others = all(lake_feed(&config, origin(7, "b")));
        assert!(keys(&messages).is_disjoint(&keys(&others)), "two runs of a seed share a key");

        let config = warehouse_config(&flags);
        let messages = all(warehouse_feed(&config, origin(7, "a")));
        assert_eq!(messages, all(warehouse_feed(&config, origin(7, "a"))));
        assert_ne!(messages, all(warehouse_feed(&config, origin(8, "a"))));
    }
}

#[test]
fn when_the_feed_is_asked_does_not_change_what_it_says() {
    let config = lake_config(&[("EVENTS", "3000"), ("RATE", "200")]);
    let at_once = all(lake_feed(&config, origin(3, "x")));
    let mut feed = lake_feed(&config, origin(3, "x"));
    let (mut now, mut messages) = (START, Vec::new());
    loop {
        match feed.pull(now) {
            Pulled::Message(message) => {
                assert!(message.due <= now, "nothing goes out before its time");
                messages.push(message);
            }
            Pulled::Wait(until) => {
                assert!(until > now);
                // Sometimes at the requested time, sometimes too late.
                now = Timestamp(until.0 + (until.0 % 3) * 70_000);
            }
            Pulled::End => break,
        }
    }
    assert_eq!(messages, at_once);
}

#[test]
fn as_many_events_happen_as_are_asked_for_and_numbers_have_no_holes() {
    let config = lake_config(&[("EVENTS", "30000"), ("LATE_SHARE", "0.05")]);
    let events = read(&all(lake_feed(&config, origin(1, "n"))), Stream::lake(0));
    let (mut next, mut late, mut again) = (0, 0, 0);
    let mut newest = Timestamp(0);
    for event in &events {
        let IdKind::Sequenced { number, run } = event.id.kind() else { panic!("{event:?}") };
        assert_eq!(run, origin(1, "n").run);
        if number < next {
            again += 1;
            continue;
        }
        assert_eq!(number, next, "numbers are given when an event is handed over");
        next += 1;
        late += u32::from(event.occurred_at < newest);
        newest = newest.max(event.occurred_at);
    }
    assert_eq!(next, 30_000);
    let share = |count: u32| f64::from(count) / 30_000.0;
    assert!((share(late) - 0.05).abs() < 0.01, "{late} were late");
    assert!((share(again) - 0.002).abs() < 0.001, "{again} came twice");
}

#[test]
fn an_event_that_comes_again_is_the_same() {
    let config = warehouse_config(&[("EVENTS", "20000"), ("DUPLICATE_SHARE", "0.1")]);
    let events = read(&all(warehouse_feed(&config, origin(1, "n"))), Stream::warehouse(0));
    let mut first: BTreeMap<EventId, &Event> = BTreeMap::new();
    let mut again = 0;
    for event in &events {
        if let Some(before) = first.insert(event.id, event) {
            assert_eq!(before, event);
            again += 1;
        }
    }
    assert!(again > 1_500, "{again}");
}

/// All operations often and few keys, so that objects are written, replaced, removed and written
/// again.
const BUSY: &[(&str, &str)] = &[
    ("MIX", "write=30,copy=15,delete=25,head=10,read=15,list=5"),
    ("OBJECTS_MAX", "20000"),
    ("OVERWRITE_SHARE", "0.4"),
    ("FAILURE_SHARE", "0.1"),
    ("LATE_SHARE", "0.1"),
    ("DUPLICATE_SHARE", "0.1"),
    ("EVENTS", "40000"),
];

/// Used space by a plain map, from the events in the order in which they happened.
fn replay(events: &[&Event]) -> u64 {
    let mut changes: Vec<&Event> =
        events.iter().copied().filter(|event| access(event).outcome == Outcome::Ok).collect();
    changes.sort_by_key(|event| (event.occurred_at, access(event).sequencer.clone(), event.id));
    let mut sizes: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in changes {
        let access = access(event);
        let key = (access.bucket.as_str(), access.key.as_str());
        match access.operation {
            Operation::Read | Operation::Head | Operation::List | Operation::Other => continue,
            Operation::Delete => sizes.remove(&key),
            Operation::Write | Operation::Copy => sizes.insert(key, access.object_bytes.unwrap()),
        };
    }
    sizes.values().sum()
}

#[test]
fn the_lakes_oracle_equals_a_naive_replay() {
    for flags in [BUSY, &[("EVENTS", "60000")]] {
        let config = lake_config(flags);
        let messages = all(lake_feed(&config, origin(11, "oracle")));
        let mut expected = Expected::<lake::LakeOracle>::default();
        // Acknowledgements may come in any order.
        messages.iter().rev().for_each(|message| expected.enter(&message.page));
        let events = read(&messages, Stream::lake(0));
        let distinct = distinct(&events);
        assert_eq!(expected.published, u64::try_from(distinct.len()).unwrap());
        let sent = u64::try_from(events.len()).unwrap();
        assert_eq!(expected.published + expected.duplicates_sent, sent);
        assert!(expected.oracle.used_bytes() > 0);
        assert_eq!(expected.oracle.used_bytes(), replay(&distinct));
    }
}

#[test]
fn only_objects_that_exist_are_deleted() {
    let config = lake_config(BUSY);
    let origin = origin(5, "deletes");
    let mut model =
        Lake::new(origin.model_draw(), config.shape.clone(), Scenario::calm(), origin.run);
    let mut arrivals = origin.arrivals(&config.common, Scenario::calm());
    // Whether each object exists, by the changes so far. Objects from before the run exist at
    // first.
    let mut exists: BTreeMap<u32, bool> = BTreeMap::new();
    let (mut deleted, mut written_again) = (0, 0);
    for _ in 0..100_000 {
        let draft = model.happen(arrivals.advance());
        let Some(Change { slot, bytes, .. }) = draft.note else { continue };
        let at_start = slot < config.shape.objects_at_start;
        let before = exists.insert(slot, bytes.is_some());
        if bytes.is_none() {
            assert!(before.unwrap_or(at_start), "object {slot} did not exist");
            deleted += 1;
        } else if before == Some(false) {
            written_again += 1;
        }
        assert!(slot < 20_000, "no more keys than were allowed");
    }
    assert!(deleted > 10_000 && written_again > 1_000, "{deleted}, {written_again}");
}

#[test]
fn the_warehouses_oracle_equals_a_naive_replay() {
    let flags = [("EVENTS", "50000"), ("RATE", "300"), ("LATE_SHARE", "0.1")];
    let config = warehouse_config(&flags);
    let messages = all(warehouse_feed(&config, origin(2, "oracle")));
    let mut expected = Expected::<warehouse::WarehouseOracle>::default();
    messages.iter().rev().for_each(|message| expected.enter(&message.page));
    let events = read(&messages, Stream::warehouse(0));
    let queries: Vec<(i64, u64, u64)> = distinct(&events)
        .into_iter()
        .map(|event| {
            let Fact::WarehouseQuery(query) = &event.fact else { panic!("{event:?}") };
            let response_us = query.queued_us + query.executed_us;
            (event.occurred_at.second(), response_us, query.rows_processed)
        })
        .collect();
    let newest = queries.iter().map(|(second, ..)| *second).max().unwrap();
    let window: Vec<u64> =
        queries.iter().filter(|query| query.0 > newest - 60).map(|query| query.1).collect();
    let rows: u128 = queries.iter().map(|query| u128::from(query.2)).sum();
    assert_eq!(expected.oracle.rows(), rows);
    let sum: u128 = window.iter().copied().map(u128::from).sum();
    assert_eq!(expected.oracle.responses(), (u64::try_from(window.len()).unwrap(), sum));
    let metrics = expected.oracle.metrics(expected.published);
    let mean_ms = metrics["data_warehouse_tempo_resposta_ms"].as_f64().unwrap();
    let expected_ms = to_f64(window.iter().sum()) / to_f64(length(&window)) / 1e3;
    assert!((mean_ms / expected_ms - 1.0).abs() < 1e-9, "{mean_ms} is not {expected_ms}");
}

#[test]
fn draining_publishes_everything_that_has_happened_and_nothing_that_has_not() {
    let flags = [("RATE", "50"), ("LATE_SHARE", "0.2"), ("DUPLICATE_SHARE", "0.2")];
    let config = lake_config(&flags);
    let mut feed = lake_feed(&config, origin(4, "drain"));
    let stop = START.plus_seconds(90);
    let mut messages = Vec::new();
    while let Pulled::Message(message) = {
        let pulled = feed.pull(stop);
        if matches!(pulled, Pulled::Wait(_)) {
            feed.drain()
        }
        match pulled {
            Pulled::Wait(_) => feed.pull(stop),
            Pulled::Message(_) | Pulled::End => pulled,
        }
    } {
        messages.push(message);
    }
    assert_eq!(feed.held(), 0);
    let events = read(&messages, Stream::lake(0));
    assert!(events.iter().all(|event| event.occurred_at <= stop));
    let numbers = distinct(&events).len();
    assert!(numbers > 1_000, "{numbers}");
    let twice = events.len() - numbers;
    assert!(twice > numbers / 10, "{twice} of {numbers} came again");
}

#[test]
fn at_full_speed_times_come_from_the_clock_and_ascend() {
    let config = lake_config(&[("RATE", "max"), ("LATE_SHARE", "0"), ("DUPLICATE_SHARE", "0")]);
    assert_eq!(config.common.format(), Format::Bincode);
    let mut feed = lake_feed(&config, origin(1, "max"));
    let (mut now, mut messages) = (START, Vec::new());
    for _ in 0..100 {
        now = Timestamp(now.0 + 250);
        let Pulled::Message(message) = feed.pull(now) else { panic!("there is always more") };
        messages.push(message);
    }
    let events = read(&messages, Stream::lake(0));
    assert_eq!(events.len(), 10_000);
    assert!(events.iter().map(|event| event.occurred_at).is_sorted());
    assert!(events.iter().all(|event| (START..=now).contains(&event.occurred_at)));
    let times = events.iter().map(|event| event.occurred_at).collect::<BTreeSet<_>>();
    assert!(times.len() > 5_000, "only {} different times", times.len());
}

#[test]
fn silence_holds_at_full_speed_too() {
    let config = lake_config(&[("RATE", "max"), ("SCENARIO", "silence"), ("LATE_SHARE", "0")]);
    let mut feed = lake_feed(&config, origin(1, "max"));
    assert!(matches!(feed.pull(START.plus_seconds(1)), Pulled::Message(_)));
    let quiet = START.plus_seconds(20);
    let until = loop {
        match feed.pull(quiet) {
            Pulled::Message(message) => assert!(message.due <= quiet),
            Pulled::Wait(until) => break until,
            Pulled::End => panic!("there is always more"),
        }
    };
    assert!(until > quiet);
    assert!(matches!(feed.pull(START.plus_seconds(61)), Pulled::Message(_)));
}

#[test]
fn the_form_follows_the_rate() {
    let form = |rate| lake_config(&[("RATE", rate)]).common.format();
    assert_eq!(form("10000"), Format::Json);
    assert_eq!(form("10001"), Format::Bincode);
}

#[test]
fn incidents_can_be_seen_within_a_minute() {
    let of = |scenario: &str, seconds: (i64, i64)| {
        let flags = [("RATE", "500"), ("SCENARIO", scenario), ("EVENTS", "60000")];
        let config = lake_config(&flags);
        let events = read(&all(lake_feed(&config, origin(9, scenario))), Stream::lake(0));
        let (from, to) = (START.plus_seconds(seconds.0), START.plus_seconds(seconds.1));
        let within = |event: &Event| (from..to).contains(&event.occurred_at);
        events.into_iter().filter(within).collect::<Vec<Event>>()
    };
    let count = |events: &[Event], holds: fn(&LakeAccess) -> bool| {
        events.iter().filter(|event| holds(access(event))).count()
    };
    let (calm, incident) = ((0, 15), (16, 31));
    assert!(of("silence", incident).is_empty() && of("silence", calm).len() > 1_000);
    let failed = |access: &LakeAccess| access.outcome != Outcome::Ok;
    assert!(count(&of("failure-storm", incident), failed) > of("failure-storm", calm).len() / 5);
    let writes = |access: &LakeAccess| access.operation == Operation::Write;
    assert!(
        count(&of("storage-growth", incident), writes)
            > 5 * count(&of("storage-growth", calm), writes)
    );
    let slow = |access: &LakeAccess| access.duration_us > 40_000;
    assert!(
        count(&of("latency-regression", incident), slow)
            > 3 * count(&of("latency-regression", calm), slow)
    );
    let noisy = |access: &LakeAccess| access.principal == "noisy-tenant";
    assert!(count(&of("noisy-tenant", incident), noisy) > 1_000);
    assert_eq!(count(&of("noisy-tenant", calm), noisy), 0);
}

#[test]
fn settings_say_all_that_is_wrong_with_them() {
    let none = BTreeMap::<&str, &str>::new();
    let wrong = [
        ("RATE", "fast"),
        ("FORMAT", "xml"),
        ("SCENARIO", "flood"),
        ("START_TIME", "yesterday"),
        ("LATE_SHARE", "1.5"),
        ("MIX", "read=-1"),
        ("BUCKETS", "a,,b"),
    ];
    let flags = with_flags("SIMULATE_LAKE_", &wrong);
    let mut settings = Settings::new(&flags, &none);
    drop(lake::Config::load(&mut settings));
    let problems = settings.finish().unwrap_err().0;
    assert_eq!(problems.len(), wrong.len(), "{problems:?}");
    for table in [lake::Config::table(), warehouse::Config::table()] {
        let keys: BTreeSet<&str> = table.iter().map(|setting| setting.key).collect();
        let names: BTreeSet<&str> = table.iter().map(|setting| setting.flag).collect();
        assert_eq!((keys.len(), names.len()), (table.len(), table.len()), "names are unique");
        assert!(table.iter().all(|setting| !setting.help.is_empty()));
    }
}

#[test]
fn a_start_time_is_read_as_it_stands() {
    let common: Common = lake_config(&[("START_TIME", "2026-01-01T01:00:00+01:00")]).common;
    assert_eq!(common.start_time, Some(START));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_oracle_equals_a_replay_for_any_seed(seed in any::<u64>(), events in 1_u32..4_000) {
        let events = events.to_string();
        let mut flags = BUSY.to_vec();
        flags.retain(|(name, _)| *name != "EVENTS");
        flags.push(("EVENTS", &events));
        let config = lake_config(&flags);
        let messages = all(lake_feed(&config, origin(seed, "p")));
        let mut expected = Expected::<lake::LakeOracle>::default();
        messages.iter().for_each(|message| expected.enter(&message.page));
        let events = read(&messages, Stream::lake(0));
        prop_assert_eq!(expected.oracle.used_bytes(), replay(&distinct(&events)));
    }
}

#[test]
fn a_run_id_decides_the_salt_and_the_two_sides_differ() {
    let run = |name, stream| RunSeed::new(1, START, Ok(name), stream).run;
    assert_eq!(run("a", Stream::lake(0)), run("a", Stream::lake(0)));
    assert_ne!(run("a", Stream::lake(0)), run("b", Stream::lake(0)));
    assert_ne!(run("a", Stream::lake(0)), run("a", Stream::warehouse(0)));
    let salted = RunSeed::new(1, START, Err(5), Stream::lake(0)).run;
    assert_eq!(salted, Run::new(1_767_225_600_000, 5));
}
