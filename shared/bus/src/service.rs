//! The bus as a service takes it: settings from the command line and the environment, a connection
//! that waits for the server, streams that stand.

use std::time::Duration;

use domain::Rules;
use service_kit::{Backoff, Condition, Context, Setting, Settings};

use crate::{
    connection::Bus,
    error::{BusError, Recovery},
    settings::{self, BusSettings},
    topology::{Topology, TopologyOverrides},
};

/// First and longest pause before the server is asked again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(5);
/// How late readiness may tell that the connection was lost or stands again.
const CONNECTION_POLL: Duration = Duration::from_millis(500);

const EVENT_STREAM_MAX_BYTES: Setting = Setting {
    key: "NATS_EVENT_STREAM_MAX_BYTES",
    flag: "nats-event-stream-max-bytes",
    default: None,
    help: "Bytes that each event stream may hold before producers have to wait; without it new \
           streams get what nats/streams.json says and existing ones keep theirs.",
    secret: false,
};
const REPLICAS: Setting = Setting {
    key: "NATS_REPLICAS",
    flag: "nats-replicas",
    default: None,
    help: "Copies of each stream in a cluster, 1 to 5; without it existing streams keep theirs.",
    secret: false,
};
const STREAM_RULES: Setting = Setting {
    key: "NATS_STREAM_RULES",
    flag: "nats-stream-rules",
    default: Some(""),
    help: "Rules for streams that are made now, as name=value with semicolons between them: \
           derived_ids_max, runs_max, holes_per_run_max, objects_max, labels_max, future_skew_s, \
           retention_days, window_lengths_s, sample_interval_s. Existing streams keep theirs.",
    secret: false,
};

const OWN: [Setting; 3] = [EVENT_STREAM_MAX_BYTES, REPLICAS, STREAM_RULES];

/// Every setting of the bus.
pub const SETTINGS: &[Setting] = &all();

const fn all() -> [Setting; settings::SETTINGS.len() + OWN.len()] {
    let mut all = [OWN[0]; settings::SETTINGS.len() + OWN.len()];
    let mut place = 0;
    while place < settings::SETTINGS.len() {
        let plain = &settings::SETTINGS[place];
        all[place] = Setting {
            key: plain.key,
            flag: plain.flag,
            default: plain.default,
            help: plain.help,
            secret: plain.secret,
        };
        place += 1;
    }
    while place < all.len() {
        all[place] = OWN[place - settings::SETTINGS.len()];
        place += 1;
    }
    all
}

/// What a service is told about the bus.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// How to reach it.
    pub settings: BusSettings,
    /// The streams that must stand.
    pub topology: Topology,
    /// The rules that streams get which are made now.
    pub rules: Rules,
}

/// Reads every setting of the bus, for a connection of this name.
pub fn load(name: &str, settings: &mut Settings<'_>) -> Option<BusConfig> {
    let mut values = Vec::new();
    for setting in SETTINGS.iter().filter(|setting| OWN.iter().all(|own| own.key != setting.key)) {
        if let Some(value) = settings.optional::<String>(setting)? {
            values.push((setting.key, value));
        }
    }
    let value = |plain: &settings::BusSetting| {
        values.iter().find(|(key, _)| *key == plain.key).map(|(_, value)| value.clone())
    };
    let loaded = BusSettings::load(name, value);
    let overrides = TopologyOverrides {
        event_stream_max_bytes: settings.optional(&EVENT_STREAM_MAX_BYTES)?,
        replicas: settings.optional(&REPLICAS)?,
    };
    let rules = settings.optional::<String>(&STREAM_RULES)?.unwrap_or_default();
    let rules = rules_from(&rules).map_err(|why| settings.problem(&STREAM_RULES, &why));
    match loaded {
        Ok(loaded) => {
            let rules = rules.ok()?;
            let topology = Topology::embedded(&loaded.subject_prefix, &overrides, &rules);
            Some(BusConfig { settings: loaded, topology, rules })
        }
        Err(problems) => {
            for problem in problems {
                if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == problem.key) {
                    settings.problem(setting, &problem.detail);
                }
            }
            None
        }
    }
}

fn rules_from(text: &str) -> Result<Rules, String> {
    let mut metadata = Rules::default().to_metadata();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or("must be name=value;name=value")?;
        let known = metadata
            .get_mut(&format!("lakegauge.{}", name.trim()))
            .ok_or("names a rule that does not exist")?;
        value.trim().clone_into(known);
    }
    Rules::from_metadata(&metadata)
        .map_err(|_| "gives a rule a value that it can't have".to_owned())
}

/// Connects and makes the streams stand, however long the server needs; nothing: the service
/// drains.
///
/// # Errors
///
/// What only a person can change.
pub async fn connect(config: &BusConfig, context: &Context) -> Result<Option<Bus>, BusError> {
    let mut jitter = context.jitter();
    let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LONGEST)
        .expect("the first pause is shorter than the longest");
    let condition = context.readiness.condition("nats");
    loop {
        let error = match attempt(config).await {
            Ok(bus) => {
                tokio::spawn(watch_connection(bus.clone(), condition));
                return Ok(Some(bus));
            }
            Err(error) if error.recovery() == Recovery::Retry => error,
            Err(error) => return Err(error),
        };
        condition.fail(error.to_string());
        if backoff.attempts() == 0 {
            tracing::warn!(%error, "waiting for NATS");
        }
        let pause = backoff.next(&mut jitter);
        tokio::select! {
            () = context.lifecycle.draining() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Keeps readiness true to the connection for as long as the process lives.
async fn watch_connection(bus: Bus, condition: Condition) {
    loop {
        if bus.is_connected() {
            condition.pass(format!("connected, version {}", bus.server_version()));
        } else {
            condition.fail("the connection is lost; connecting again by itself");
        }
        tokio::time::sleep(CONNECTION_POLL).await;
    }
}

async fn attempt(config: &BusConfig) -> Result<Bus, BusError> {
    let bus = Bus::connect(&config.settings).await?;
    for applied in bus.apply_topology(&config.topology).await? {
        if applied.made || !applied.changed.is_empty() {
            let stream = applied.stream;
            tracing::info!(stream, made = applied.made, changed = ?applied.changed, "stream");
        }
    }
    Ok(bus)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::Flags;

    use super::*;

    fn loaded(environment: &BTreeMap<&str, &str>) -> Result<BusConfig, String> {
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, environment);
        let config = load("test", &mut settings);
        settings.finish().map_err(|problems| problems.to_string())?;
        config.ok_or_else(|| "no problem was named".to_owned())
    }

    #[test]
    fn the_defaults_load() {
        let config = loaded(&BTreeMap::new()).unwrap();
        assert_eq!(config.settings.url, "nats://127.0.0.1:4222");
    }

    #[test]
    fn rules_for_new_streams_are_named_one_by_one() {
        let rules = rules_from("derived_ids_max=7; window_lengths_s=1,60").unwrap();
        assert_eq!((rules.derived_ids_max, rules.window_lengths_s), (7, vec![1, 60]));
        for wrong in ["derived_ids_max", "no_such_rule=1", "labels_max=0"] {
            assert!(rules_from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_problem_is_reported_by_its_setting() {
        let environment = BTreeMap::from([("NATS_USER", "u"), ("NATS_STREAM_RULES", "x")]);
        let problems = loaded(&environment).unwrap_err();
        for key in ["NATS_USER", "NATS_STREAM_RULES"] {
            assert!(problems.contains(key), "{problems}");
        }
    }
}
