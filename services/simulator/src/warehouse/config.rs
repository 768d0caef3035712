//! The settings of the warehouse's simulator.

use bus::service::BusConfig;
use domain::Statement;
use service_kit::Setting;

use crate::{
    settings::{Common, SimulatorNames, mix},
    warehouse::TENANTS_MAX,
};

service_kit::settings! {
    /// Settings of the warehouse's simulator.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// Settings that both simulators have.
        #[settings(Common::table().into_iter().map(named).collect())]
        pub common: Common = Common::load_as(named),
        /// NATS.
        #[settings(bus::service::table())]
        pub bus: BusConfig = bus::service::load("lakegauge simulate warehouse"),
        /// How the warehouse behaves.
        #[settings(WarehouseShape::table())]
        pub shape: WarehouseShape = WarehouseShape::load(),
    }
}

fn named(setting: Setting) -> Setting {
    let warehouse = SimulatorNames {
        prefix: "SIMULATE_WAREHOUSE",
        rate: "4",
        burst_events: "4",
        source: "warehouse-simulator",
    };
    warehouse.named(setting)
}

service_kit::settings! {
    /// How the warehouse behaves.
    #[derive(Clone, Debug, PartialEq)]
    pub struct WarehouseShape {
        /// Weights of the statements. The defaults follow van Renen et al., PVLDB 17(11) 2024, as
        /// far as it is cited: 1.9 % create table as, about 10 % maintenance. The others are from
        /// memory.
        #[setting(
            SIMULATE_WAREHOUSE_MIX, "mix",
            default = "select=42.3,insert=17.8,copy=6.9,delete=6.3,update=3.6,create_table_as=1.9,\
                       maintenance=10,other=11.2"
        )]
        pub mix: Vec<(Statement, f64)> = parse_by(|text| mix(text, Statement::from_name)),
        /// Number of warehouses, the busiest first, up to 200; a few of them run most of the
        /// queries.
        #[setting(SIMULATE_WAREHOUSE_WAREHOUSES, "warehouses", default = "200")]
        pub warehouses: u32 = in_range(1..=TENANTS_MAX),
        /// Share of the queries that fail. The default is the share of aborted queries in Redset.
        #[setting(SIMULATE_WAREHOUSE_FAILURE_SHARE, "failure-share", default = "0.00508")]
        pub failure_share: f64 = in_range(0.0..=1.0),
        /// Share of the queries that are answered from the result cache. The default is that of
        /// Redset. Only repeated reads can be answered so: with few reads in the mix the share is
        /// lower.
        #[setting(SIMULATE_WAREHOUSE_CACHE_HIT_SHARE, "cache-hit-share", default = "0.1063")]
        pub cache_hit_share: f64 = in_range(0.0..=1.0),
    }
}
