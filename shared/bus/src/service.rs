//! The bus in a service: settings from the command line and the environment, a connection that
//! waits for the server, and streams that exist.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::Rules;
use service_kit::{Backoff, Condition, Context, Setting, Settings, settings::Recorded};

use crate::{
    connection::Bus,
    error::{BusError, Recovery},
    room::TopologyOverrides,
    settings::BusSettings,
    topology::Topology,
};

/// How late readiness may report that the connection was lost or is back.
const CONNECTION_POLL: Duration = Duration::from_millis(500);

service_kit::settings! {
    struct NewPipeline {
        /// Rules of a new pipeline, as name=value, separated by semicolons: derived_ids_max,
        /// runs_max, holes_per_run_max, objects_max, labels_max, future_skew_s, retention_days,
        /// sample_interval_s, and windows: the lengths of windows and how long each is kept,
        /// 10s:1d,60s:3d,3600s unless set. The rules are fixed for the pipeline's life; a rule that
        /// is set later must equal the one in force.
        #[setting(NATS_STREAM_RULES, "nats-stream-rules", default = "")]
        rules: (Rules, BTreeMap<String, String>) = parse_by(rules_from),
    }
}

/// Every setting of the bus.
pub fn table() -> Vec<Setting> {
    [BusSettings::table(), TopologyOverrides::table(), NewPipeline::table()].concat()
}

/// Settings of the bus in a service.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// How to reach the bus.
    pub settings: BusSettings,
    /// The streams that must exist.
    pub topology: Topology,
    /// The rules of a new pipeline.
    pub rules: Rules,
}

impl BusConfig {
    /// The streams of a pipeline that is begun with these rules, whatever the settings say.
    #[must_use]
    pub fn begun_with(&self, rules: &Rules) -> Topology {
        self.topology.clone().begun_with(rules)
    }
}

/// The setting for the rules of a new pipeline.
pub fn rules_table() -> Vec<Setting> {
    NewPipeline::table()
}

/// Reads the rules of a new pipeline, for a tool that creates no streams.
pub fn load_rules(settings: &mut Settings<'_>) -> Result<Rules, Recorded> {
    Ok(NewPipeline::load(settings)?.rules.0)
}

/// Reads every setting of the bus, for a connection of this name.
pub fn load(name: &str, settings: &mut Settings<'_>) -> Result<BusConfig, Recorded> {
    let connection = BusSettings::load_named(name, settings);
    let overrides = TopologyOverrides::load(settings);
    let rules = NewPipeline::load(settings);
    let (settings, (rules, named)) = (connection?, rules?.rules);
    let topology = Topology::embedded(&settings.subject_prefix, &overrides?, &rules);
    Ok(BusConfig { settings, topology: topology.demanding(named), rules })
}

/// The rules of a new pipeline, and those of them that were set, by their keys in metadata.
fn rules_from(text: &str) -> Result<(Rules, BTreeMap<String, String>), String> {
    let mut metadata = Rules::default().to_metadata();
    let mut names = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or("must be name=value;name=value")?;
        let key = format!("lakegauge.{}", name.trim());
        let known = metadata.get_mut(&key).ok_or("names a rule that does not exist")?;
        value.trim().clone_into(known);
        names.push(key);
    }
    let rules = Rules::from_metadata(&metadata)
        .map_err(|error| format!("gives a rule a value that it can't have: {error}"))?;
    // Values are compared in the form in which the rules themselves write them.
    let mut named = rules.to_metadata();
    named.retain(|key, _| names.contains(key));
    Ok((rules, named))
}

/// Connects and creates the missing streams, however long the server needs. `None` if the service
/// drains first.
///
/// # Errors
///
/// Errors that only a person can correct.
pub async fn connect(config: &BusConfig, context: &Context) -> Result<Option<Bus>, BusError> {
    let mut jitter = context.jitter();
    let mut backoff = Backoff::default();
    let condition = context.readiness.condition("nats");
    let gauges = ConnectionGauges::register(&context.registry)
        .map_err(|error| BusError::Setting { key: "metrics", detail: error.to_string() })?;
    let mut was_connected = false;
    loop {
        let attempted = tokio::select! {
            () = context.lifecycle.draining() => return Ok(None),
            attempted = attempt(config, &mut was_connected) => attempted,
        };
        let error = match attempted {
            Ok(bus) => {
                tokio::spawn(watch_connection(bus.clone(), condition, gauges));
                return Ok(Some(bus));
            }
            Err(error) if error.recovery() == Recovery::Retry => error,
            // The login was valid a moment ago.
            Err(error @ (BusError::Refused { .. } | BusError::Setting { .. })) if was_connected => {
                error
            }
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

service_kit::metrics! {
    /// The state of the connection, for monitoring.
    struct ConnectionGauges {
        connected: gauge("lakegauge_nats_connected",
            "1 while there is a connection to NATS, otherwise 0."),
        refused: gauge("lakegauge_nats_login_refused",
            "1 while NATS refuses a login that it accepted before, or the login's file can't be \
             read, otherwise 0; /readyz reports which and since when."),
    }
}

/// Keeps readiness and metrics up to date for as long as the process lives.
async fn watch_connection(bus: Bus, condition: Condition, gauges: ConnectionGauges) {
    loop {
        let (connected, outage) = (bus.is_connected(), bus.outage());
        let is_refused = outage.as_ref().is_some_and(|outage| outage.login_since_us.is_some());
        gauges.connected.set(i64::from(connected));
        gauges.refused.set(i64::from(is_refused));
        match outage {
            _ if connected => {
                condition.pass(format!("connected, version {}", bus.server_version()))
            }
            Some(outage) => condition.fail(outage.to_string()),
            None => condition.fail("no connection; connecting again by itself"),
        }
        tokio::time::sleep(CONNECTION_POLL).await;
    }
}

async fn attempt(config: &BusConfig, was_connected: &mut bool) -> Result<Bus, BusError> {
    let bus = Bus::connect(&config.settings).await?;
    *was_connected = true;
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
    use service_kit::{Flags, Secret};

    use super::*;

    fn loaded(environment: &BTreeMap<&str, &str>) -> Result<BusConfig, String> {
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, environment);
        let config = load("test", &mut settings);
        settings.finish().map_err(|problems| problems.to_string())?;
        config.map_err(|Recorded| "no problem was named".to_owned())
    }

    #[test]
    fn the_defaults_load() {
        let config = loaded(&BTreeMap::new()).unwrap();
        assert_eq!(config.settings.url, Secret::from("nats://127.0.0.1:4222"));
    }

    #[test]
    fn rules_for_new_streams_are_named_one_by_one() {
        let (rules, named) = rules_from("derived_ids_max=07; windows=1s:2d, 60s").unwrap();
        assert_eq!((rules.derived_ids_max, rules.windows.to_string()), (7, "1s:2d,60s".to_owned()));
        let named: Vec<(&str, &str)> =
            named.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(named, [("lakegauge.derived_ids_max", "7"), ("lakegauge.windows", "1s:2d,60s")]);
        for wrong in ["derived_ids_max", "no_such_rule=1", "labels_max=0", "windows=7s"] {
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
