//! The settings of the lake's simulator.

use bus::service::BusConfig;
use domain::Operation;
use service_kit::Setting;

use crate::settings::{Common, SimulatorNames, mix};

/// Number of objects that exist when a run starts: several times as many as are read repeatedly.
const OBJECTS_AT_START: u32 = 10_000;

service_kit::settings! {
    /// Settings of the lake's simulator.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// Settings that both simulators have.
        #[settings(Common::table().into_iter().map(named).collect())]
        pub common: Common = Common::load_as(named),
        /// NATS.
        #[settings(bus::service::table())]
        pub bus: BusConfig = bus::service::load("lakegauge simulate lake"),
        /// How the lake behaves.
        #[settings(LakeShape::table())]
        pub shape: LakeShape = LakeShape::load(),
    }
}

fn named(setting: Setting) -> Setting {
    let lake = SimulatorNames {
        prefix: "SIMULATE_LAKE",
        rate: "16",
        burst_events: "18",
        source: "lake-simulator",
    };
    lake.named(setting)
}

service_kit::settings! {
    /// How the lake behaves.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LakeShape {
        /// Weights of the operations. The defaults are those of IBM COS trace 000 (read-heavy);
        /// trace 001 has 40 % writes.
        #[setting(
            SIMULATE_LAKE_MIX, "mix",
            default = "head=73.17,read=23.22,write=2.40,copy=1.17,delete=0.04,list=0,other=0"
        )]
        pub mix: Vec<(Operation, f64)> = parse_by(|text| mix(text, Operation::from_name)),
        /// Names of the buckets, the busiest first.
        #[setting(SIMULATE_LAKE_BUCKETS, "buckets", default = "raw,curated,analytics,models")]
        pub buckets: Vec<String> = parse_by(buckets),
        /// Number of principals.
        #[setting(SIMULATE_LAKE_PRINCIPALS, "principals", default = "24")]
        pub principals: u32 = in_range(1..=10_000),
        /// Share of the requests that fail. There is no published figure: the traces hold only
        /// successful requests.
        #[setting(SIMULATE_LAKE_FAILURE_SHARE, "failure-share", default = "0.01")]
        pub failure_share: f64 = in_range(0.0..=1.0),
        /// Share of the writes that replace an existing object.
        #[setting(SIMULATE_LAKE_OVERWRITE_SHARE, "overwrite-share", default = "0.07")]
        pub overwrite_share: f64 = in_range(0.0..=1.0),
        /// Objects that exist before the run and were never seen by the pipeline: reads find them,
        /// and used space counts them once they are written.
        #[fixed(OBJECTS_AT_START)]
        pub objects_at_start: u32,
        /// Most keys that a run makes; after that, writes replace objects. Used space is exact as
        /// long as all runs together stay below the aggregator's bound of objects.
        // More than the objects at the start, so that there is something to delete.
        #[setting(SIMULATE_LAKE_OBJECTS_MAX, "objects-max", default = "200000")]
        pub objects_max: u32 = in_range(2 * OBJECTS_AT_START..=50_000_000),
    }
}

fn buckets(text: &str) -> Result<Vec<String>, &'static str> {
    let buckets: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let is_wrong = |name: &String| name.is_empty() || name.len() > 255;
    if buckets.len() > 256 || buckets.iter().any(is_wrong) {
        return Err("must be at most 256 names, separated by commas");
    }
    Ok(buckets)
}
