#![no_main]

use collector::sources::postgres_log::PostgresLog;

libfuzzer_sys::fuzz_target!(|lines: &[u8]| {
    for has_plans in [false, true] {
        let log = PostgresLog { warehouse: "pg".to_owned(), has_plans };
        lakegauge_fuzz::read_report(|lines| Ok(log.read(lines).parsed), lines);
    }
});
