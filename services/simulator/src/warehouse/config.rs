//! The settings of the warehouse's simulator.

use domain::Statement;
use service_kit::Settings;

use crate::{
    settings::{Common, load_mix, simulator_settings},
    warehouse::{TENANTS_MAX, WarehouseShape},
};

simulator_settings! {
    "SIMULATE_WAREHOUSE", rate = "200", source = "warehouse-simulator", burst = "4",
    own = [MIX, WAREHOUSES, FAILURE_SHARE, CACHE_HIT_SHARE]
}

const MIX: Setting = setting(
    "SIMULATE_WAREHOUSE_MIX",
    "mix",
    Some(
        "select=42.3,insert=17.8,copy=6.9,delete=6.3,update=3.6,create_table_as=1.9,\
         maintenance=10,other=11.2",
    ),
    "Weights of the statements. By default after van Renen et al., PVLDB 17(11) 2024, as far as it \
     is cited: 1.9 % create table as, about 10 % maintenance; the others from memory.",
);
const WAREHOUSES: Setting = setting(
    "SIMULATE_WAREHOUSE_WAREHOUSES",
    "warehouses",
    Some("200"),
    "Number of warehouses, the busiest first, up to 200; a few of them do most of the work.",
);
const FAILURE_SHARE: Setting = setting(
    "SIMULATE_WAREHOUSE_FAILURE_SHARE",
    "failure-share",
    Some("0.00508"),
    "Share of the queries that do not end well; by default what Redset has as aborted.",
);
const CACHE_HIT_SHARE: Setting = setting(
    "SIMULATE_WAREHOUSE_CACHE_HIT_SHARE",
    "cache-hit-share",
    Some("0.1063"),
    "Share of the queries answered from the result cache, by default that of Redset. Only repeated \
     reads can be: with few reads in the mix it is lower.",
);

/// What the warehouse's simulator is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What both simulators are told.
    pub common: Common,
    /// How the warehouse behaves.
    pub shape: WarehouseShape,
}

impl Config {
    /// Reads the settings; problems are left in them.
    pub fn load(settings: &mut Settings<'_>) -> Option<Self> {
        let common = Common::load(settings, &NAMES, "lakegauge simulate warehouse");
        let mix = load_mix(settings, &MIX, Statement::from_name);
        let warehouses = settings.in_range(&WAREHOUSES, 1..=TENANTS_MAX);
        let failure_share = settings.in_range(&FAILURE_SHARE, 0.0..=1.0);
        let cache_hit_share = settings.in_range(&CACHE_HIT_SHARE, 0.0..=1.0);
        let shape = WarehouseShape {
            mix: mix?,
            warehouses: warehouses?,
            failure_share: failure_share?,
            cache_hit_share: cache_hit_share?,
        };
        Some(Self { common: common?, shape })
    }
}
