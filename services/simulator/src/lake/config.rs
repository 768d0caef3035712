//! The settings of the lake's simulator.

use domain::Operation;
use service_kit::Settings;

use crate::{
    lake::LakeShape,
    settings::{Common, load_mix, simulator_settings},
};

/// Objects that exist when a run starts: some times as many as are asked for again and again.
const OBJECTS_AT_START: u32 = 10_000;

simulator_settings! {
    "SIMULATE_LAKE", rate = "1000", source = "lake-simulator", burst = "18",
    own = [MIX, BUCKETS, PRINCIPALS, FAILURE_SHARE, OVERWRITE_SHARE, OBJECTS_MAX]
}

const MIX: Setting = setting(
    "SIMULATE_LAKE_MIX",
    "mix",
    Some("head=73.17,read=23.22,write=2.40,copy=1.17,delete=0.04,list=0,other=0"),
    "Weights of the operations; by default those of IBM COS trace 000 (read-heavy). Trace 001 has \
     40 % writes.",
);
const BUCKETS: Setting = setting(
    "SIMULATE_LAKE_BUCKETS",
    "buckets",
    Some("raw,curated,analytics,models"),
    "Names of the buckets, the busiest first.",
);
const PRINCIPALS: Setting =
    setting("SIMULATE_LAKE_PRINCIPALS", "principals", Some("24"), "Number of principals.");
const FAILURE_SHARE: Setting = setting(
    "SIMULATE_LAKE_FAILURE_SHARE",
    "failure-share",
    Some("0.01"),
    "Share of the requests that fail. No published figure: the traces hold only what succeeded.",
);
const OVERWRITE_SHARE: Setting = setting(
    "SIMULATE_LAKE_OVERWRITE_SHARE",
    "overwrite-share",
    Some("0.07"),
    "Share of the writes that replace an existing object.",
);
const OBJECTS_MAX: Setting = setting(
    "SIMULATE_LAKE_OBJECTS_MAX",
    "objects-max",
    Some("200000"),
    "Keys that a run makes at most; beyond it writes replace objects. Used space is exact as long \
     as all runs together stay below the aggregator's bound of objects.",
);

/// What the lake's simulator is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What both simulators are told.
    pub common: Common,
    /// How the lake behaves.
    pub shape: LakeShape,
}

impl Config {
    /// Reads the settings; problems are left in them.
    pub fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let common = Common::load(settings, &NAMES, "lakegauge simulate lake");
        let shape = load_shape(settings);
        Some(Self { common: common?, shape: shape? })
    }
}

fn load_shape(settings: &mut Settings<'_>) -> Option<LakeShape> {
    let mix = load_mix(settings, &MIX, Operation::from_name);
    let buckets = settings
        .text(&BUCKETS)
        .map(|text| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<String>>());
    let long = |name: &String| name.is_empty() || name.len() > 255;
    if buckets.as_ref().is_some_and(|buckets| buckets.len() > 256 || buckets.iter().any(long)) {
        settings.problem(&BUCKETS, "must be at most 256 names with commas between them");
    }
    let principals = settings.in_range(&PRINCIPALS, 1..=10_000);
    let failure_share = settings.in_range(&FAILURE_SHARE, 0.0..=1.0);
    let overwrite_share = settings.in_range(&OVERWRITE_SHARE, 0.0..=1.0);
    // Some more than the objects at the start, so that there is something to delete.
    let objects_max = settings.in_range(&OBJECTS_MAX, 2 * OBJECTS_AT_START..=50_000_000);
    Some(LakeShape {
        mix: mix?,
        buckets: buckets?,
        principals: principals?,
        failure_share: failure_share?,
        overwrite_share: overwrite_share?,
        objects_at_start: OBJECTS_AT_START,
        objects_max: objects_max?,
    })
}
