//! A snapshot's state and the archiver's sets: what decodes must encode to itself.

#![no_main]

use domain::Rules;
use libfuzzer_sys::fuzz_target;
use wire::snapshot::{decode_runs, decode_state, encode_state};

fuzz_target!(|bytes: &[u8]| {
    drop(decode_runs(bytes, &Rules::default()));
    if let Ok((state, mark)) = decode_state(bytes) {
        assert_eq!(decode_state(&encode_state(&state, &mark)).ok(), Some((state, mark)));
    }
});
