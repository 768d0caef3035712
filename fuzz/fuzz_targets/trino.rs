#![no_main]

use collector::sources::trino;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| lakegauge_fuzz::read_report(trino::parse, payload));
