#![no_main]

use collector::sources::seaweedfs;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| lakegauge_fuzz::read_report(seaweedfs::parse, payload));
