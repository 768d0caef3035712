//! The sets of identities stay within their bound, however many ids they have seen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;

use domain::{Event, EventId, Fact, Judgement, LakeInventory, Rules, Seen, Timestamp};

/// Memory that one identity takes at most, in bytes: 24 for the identity, and the free room that a
/// B-tree has when it is filled in order.
const IDENTITY_BYTES_MAX: usize = 100;
/// Memory that the test and the allocator may take besides, in kilobytes.
const BESIDES_KB: usize = 8 * 1_024;

/// How many ids the test passes: fifty million with `LAKEGAUGE_TEST_FULL`, else fewer.
fn ids() -> u64 {
    if std::env::var_os("LAKEGAUGE_TEST_FULL").is_some() { 50_000_000 } else { 1_500_000 }
}

/// The peak memory of this process, in kilobytes, as Linux reports it.
fn peak_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

fn derived(number: u64) -> Event {
    // Times are not ascending, so that the tree is filled everywhere.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mixed.to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    let jitter = i64::try_from(mixed % 10_000_000).unwrap();
    Event {
        id: EventId::from_bytes(id),
        occurred_at: Timestamp(i64::try_from(number).unwrap() * 100 + jitter),
        fact: Fact::LakeInventory(LakeInventory { bucket: String::new(), objects: 0, bytes: 0 }),
    }
}

#[test]
fn fifty_million_derived_ids_stay_within_the_bound_of_the_set() {
    let rules = Rules::default();
    let ids_max = rules.derived_ids_max;
    let mut seen = Seen::new(&rules);
    let before_kb = peak_kb();
    let mut recent = VecDeque::new();
    for number in 0..ids() {
        let event = derived(number);
        assert_eq!(seen.judge(&event), Judgement::New, "its time lies above the floor");
        assert!(seen.derived().kept().len() <= ids_max);
        recent.push_back(event);
        if recent.len() > 1_000 {
            let again = recent.pop_front().unwrap();
            assert_eq!(seen.judge(&again), Judgement::Duplicate);
        }
        if number.is_multiple_of(1_000) && number > 1_000_000 {
            let old = derived(number / 10);
            assert_eq!(seen.judge(&old), Judgement::TooOld);
        }
    }
    assert_eq!(seen.derived().kept().len(), ids_max);
    let grown_kb = peak_kb() - before_kb;
    let bound_kb = ids_max * IDENTITY_BYTES_MAX / 1_024 + BESIDES_KB;
    assert!(grown_kb <= bound_kb, "{grown_kb} kB for {ids_max} ids, {bound_kb} kB are allowed");
}
