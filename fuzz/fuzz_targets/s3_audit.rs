#![no_main]

use collector::sources::s3_audit;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| lakegauge_fuzz::read_report(s3_audit::parse, payload));
