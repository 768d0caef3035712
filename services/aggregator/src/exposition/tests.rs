use domain::{
    Event, EventId, Fact, LakeAccess, Operation, Rules, Run, Timestamp, WarehouseQuery,
    accept::QUANTITY_MAX,
};

use super::*;

const SEEDS: [&str; 4] = [
    "data_lake_espaco_utilizado_gb",
    "data_lake_numero_acessos",
    "data_warehouse_tempo_resposta_ms",
    "data_warehouse_registros_processados",
];

fn event(number: u64, fact: Fact) -> Event {
    let occurred_at = Timestamp(i64::try_from(number).unwrap() * 1_000_000);
    Event { id: EventId::sequenced(Run::new(1, 1), number), occurred_at, fact }
}

fn write(number: u64, bucket: &str, bytes: u64) -> Event {
    let fact = Fact::LakeAccess(LakeAccess {
        bucket: bucket.to_owned(),
        operation: Operation::Write,
        bytes,
        duration_us: 10_000,
        ..test_support::lake_access()
    });
    event(number, fact)
}

fn query(number: u64, warehouse: &str, executed_us: u64) -> Event {
    let fact = Fact::WarehouseQuery(WarehouseQuery {
        warehouse: warehouse.to_owned(),
        queued_us: 500,
        executed_us,
        rows_processed: 10,
        rows_returned: 1,
        bytes_scanned: 5,
        cache_hit: true,
        ..test_support::warehouse_query()
    });
    event(number, fact)
}

fn text(events: &[Event], rules: &Rules) -> String {
    let (mut lake, mut warehouse) = (LakeState::new(rules), WarehouseState::new(rules));
    for event in events {
        lake.apply(event);
        warehouse.apply(event);
    }
    page(&lake, &warehouse)
}

fn value<'a>(text: &'a str, series: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
}

#[test]
fn the_four_are_there_unlabelled_before_the_first_event() {
    let text = text(&[], &Rules::default());
    for name in SEEDS {
        assert_eq!(value(&text, name), "0");
    }
    assert!(!text.contains("newest_event"), "no event has happened");
}

#[test]
fn the_four_say_what_the_design_says() {
    let events =
        [write(1, "raw", 1_500_000_000), write(2, "raw", 500_000_000), query(3, "etl", 2_500)];
    let text = text(&events, &Rules::default());
    let said: Vec<_> = SEEDS.iter().map(|name| value(&text, name)).collect();
    assert_eq!(said, ["0.5", "2", "3", "10"]);
}

#[test]
fn every_sum_has_a_series_in_the_unit_of_its_name() {
    let mut missed = write(2, "raw", 40);
    let Fact::LakeAccess(access) = &mut missed.fact else { unreachable!() };
    (access.operation, access.outcome) = (Operation::Read, domain::Outcome::NotFound);
    access.duration_us = 200_000_000;
    let events = [write(1, "raw", 2_500), missed, query(3, "etl", 2_499_500), query(4, "etl", 500)];
    let text = text(&events, &Rules::default());
    for (series, expected) in [
        ("lake_accesses_total{bucket=\"raw\",operation=\"read\",outcome=\"not_found\"}", "1"),
        ("lake_transferred_bytes_total{bucket=\"raw\",operation=\"read\"}", "40"),
        ("lake_transferred_bytes_total{bucket=\"raw\",operation=\"write\"}", "2500"),
        ("lake_request_duration_seconds_bucket{bucket=\"raw\",le=\"0.005\"}", "0"),
        ("lake_request_duration_seconds_bucket{bucket=\"raw\",le=\"0.01\"}", "1"),
        ("lake_request_duration_seconds_bucket{bucket=\"raw\",le=\"+Inf\"}", "2"),
        ("lake_request_duration_seconds_sum{bucket=\"raw\"}", "200.01"),
        ("lake_forgotten_objects", "0"),
        ("lake_tracked_objects", "1"),
        ("lake_newest_event_timestamp_seconds", "2"),
        ("warehouse_response_window_seconds", "2.501"),
        ("warehouse_response_window_queries", "2"),
        ("warehouse_newest_event_timestamp_seconds", "4"),
        ("warehouse_response_duration_seconds_sum{warehouse=\"etl\"}", "2.501"),
        ("warehouse_response_duration_seconds_count{warehouse=\"etl\"}", "2"),
        ("warehouse_queries_total{warehouse=\"etl\",statement=\"select\",outcome=\"ok\"}", "2"),
        ("warehouse_queued_seconds_total{warehouse=\"etl\"}", "0.001"),
        ("warehouse_records_processed_total{warehouse=\"etl\"}", "20"),
        ("warehouse_bytes_scanned_total{warehouse=\"etl\"}", "10"),
        ("warehouse_cache_hits_total{warehouse=\"etl\"}", "2"),
    ] {
        assert_eq!(value(&text, &format!("data_{series}")), expected, "{series}");
    }
}

#[test]
fn objects_beyond_the_bound_are_said_to_be_forgotten() {
    let events = ["a", "b", "c"].map(|key| {
        let mut event = write(1, "raw", 1);
        let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
        access.key = key.to_owned();
        event
    });
    let rules = Rules { objects_max: 2, ..Rules::default() };
    let text = text(&events, &rules);
    assert_eq!(value(&text, "data_lake_forgotten_objects"), "1");
    assert_eq!(value(&text, "data_lake_tracked_objects"), "2");
}

#[test]
fn used_space_is_right_after_more_bytes_than_64_bits_hold_have_come_and_gone() {
    let mut events = Vec::new();
    for number in 0..2_100 {
        let mut event = write(number, "raw", QUANTITY_MAX);
        let Fact::LakeAccess(access) = &mut event.fact else { unreachable!() };
        access.key = (number % 1_100).to_string();
        if number >= 1_100 {
            access.operation = Operation::Delete;
        }
        events.push(event);
    }
    let text = text(&events, &Rules::default());
    let expected = float(100 * i128::from(QUANTITY_MAX)).to_string();
    assert_eq!(value(&text, "data_lake_storage_used_bytes{bucket=\"raw\"}"), expected);
    assert_eq!(value(&text, SEEDS[0]), (float(100 * i128::from(QUANTITY_MAX)) / 1e9).to_string());
}

#[test]
fn the_labelled_metrics_agree_with_the_key_metrics() {
    let events = [write(1, "raw", 7), write(2, "curated", 3), query(3, "etl", 9_500)];
    let text = text(&events, &Rules::default());
    assert_eq!(value(&text, "data_lake_storage_used_bytes{bucket=\"raw\"}"), "7");
    assert_eq!(
        value(
            &text,
            "data_lake_accesses_total{bucket=\"curated\",operation=\"write\",outcome=\"ok\"}"
        ),
        "1"
    );
    let bucket = "data_warehouse_response_duration_seconds_bucket{warehouse=\"etl\",le=";
    assert_eq!(value(&text, &format!("{bucket}\"0.005\"}}")), "0");
    assert_eq!(value(&text, &format!("{bucket}\"0.01\"}}")), "1");
    assert_eq!(value(&text, &format!("{bucket}\"+Inf\"}}")), "1");
    assert_eq!(value(&text, "data_warehouse_cache_hits_total{warehouse=\"etl\"}"), "1");
}

#[test]
fn no_input_makes_the_number_of_series_grow_without_end() {
    let rules = Rules { labels_max: 2, ..Rules::default() };
    let events: Vec<_> = (0..500)
        .map(|number| write(number, &format!("bucket-{number}"), 1))
        .chain((500..900).map(|number| query(number, &format!("warehouse-{number}"), 1)))
        .collect();
    let few = text(&events[..10], &rules).lines().count();
    let text = text(&events, &rules);
    assert_eq!(value(&text, "data_lake_storage_used_bytes{bucket=\"other\"}"), "498");
    assert!(text.lines().count() < few + 120, "{} lines", text.lines().count());
}
