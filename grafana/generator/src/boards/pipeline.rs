//! The pipeline itself, in the order in which data flows.

use crate::{
    board::{Board, Row, Variable},
    panel::{Form, Panel},
};

pub(super) fn board() -> Board {
    Board {
        uid: "lakegauge-pipeline",
        title: "Pipeline",
        description: "Does every event arrive, and how late? From left to right as data flows.",
        from: "now-1h",
        refresh: "10s",
        variables: vec![Variable::Prometheus, Variable::Environment],
        rows: vec![publish(), collect(), stream(), aggregate(), archive(), recover(), resources()],
    }
}

fn lines(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel::new(Form::Lines, title, unit, description).size(8, 7)
}

fn rate(metric: &str, by: &str) -> String {
    format!("sum by ({by}) (rate({metric}[$__rate_interval]))")
}

fn publish() -> Row {
    Row {
        title: "1. Publish",
        panels: vec![
            lines(
                "Events published",
                "eps",
                "Events a second, and those sent twice on purpose. Flat at 0: the simulator is \
                 down, silent by its scenario, or waits (next panels).",
            )
            .ask(rate("lakegauge_simulator_events_total", "service"), "{{service}}")
            .ask(rate("lakegauge_simulator_duplicates_total", "service"), "{{service}}, twice"),
            lines(
                "Events by source",
                "eps",
                "Events a second that were counted, by who sent them: simulators, collectors, `publish`, \
                 any client. A source that is missing has sent nothing: see the next panel.",
            )
            .ask(rate("lakegauge_aggregator_source_events_total", "source"), "{{source}}"),
            lines(
                "Sources last heard",
                "s",
                "Since when nothing has come from each source. One that grows alone has stopped, or \
                 delivers in batches.",
            )
            .ask(
                "time() - max by (source) \
                 (lakegauge_aggregator_source_last_message_timestamp_seconds)",
                "{{source}}",
            ),
            lines(
                "Behind its plan",
                "s",
                "How much later than it should the last message went out. Growing: the simulator or \
                 the broker can't keep up; lower the rate.",
            )
            .ask("lakegauge_simulator_lag_seconds", "{{service}}"),
            lines(
                "Unconfirmed, and waiting",
                "short",
                "Messages sent and not yet acknowledged, by whom; 'full' is 1 while the stream is \
                 full and publishing waits (LakegaugePublishersWait): see the stream.",
            )
            .ask("lakegauge_publisher_unconfirmed_messages", "{{service}} {{messages}} {{stream}}")
            .ask("lakegauge_publisher_stream_full", "{{service}} {{messages}} {{stream}}, full"),
            lines(
                "Acknowledged",
                "ops",
                "Messages that the broker acknowledged, by whom. At 0 with nothing unconfirmed: there is \
                 nothing to publish.",
            )
            .ask(
                rate("lakegauge_publisher_acknowledged_messages_total", "service, messages, stream"),
                "{{service}} {{messages}} {{stream}}",
            ),
            lines(
                "Oldest unconfirmed",
                "s",
                "How long the oldest message that is not acknowledged has waited. Above some seconds \
                 (LakegaugePublishUnconfirmed) the broker is away, its disk is full, or no stream takes it.",
            )
            .ask(
                "lakegauge_publisher_oldest_unconfirmed_seconds",
                "{{service}} {{messages}} {{stream}}",
            ),
        ],
    }
}

fn collect() -> Row {
    Row {
        title: "Collect: what real lakes and warehouses report",
        panels: vec![
            lines(
                "Records received",
                "eps",
                "Records a second that other systems reported to collectors, by what became of them: \
                 published, ignored (nothing to count), refused (a dead letter). Empty where no \
                 collector runs.",
            )
            .ask(
                rate("lakegauge_collector_records_total", "report, result"),
                "{{report}} {{result}}",
            ),
            lines(
                "Requests by answer",
                "reqps",
                "2xx is stored. 5xx: the broker is away or full, and the sender tries again. 4xx: it \
                 was turned away, and is lost where the sender does not repeat it \
                 (LakegaugeCollectorTurnsAway).",
            )
            .ask(rate("lakegauge_collector_requests_total", "status"), "{{status}}"),
            lines(
                "Refused records",
                "ops",
                "Records that could not be read, by the reason: dead letters with their bytes \
                 (`lakegauge dead-letters list`).",
            )
            .ask(
                rate("lakegauge_collector_refused_records_total", "report, reason"),
                "{{report}} {{reason}}",
            ),
            lines(
                "Lag and silence",
                "s",
                "'behind': how long after it happened the newest record of the last report was stored. \
                 'silent': since when nothing was stored (LakegaugeCollectorSilent).",
            )
            .ask("lakegauge_collector_lag_seconds", "{{report}}, behind")
            .ask(
                "time() - lakegauge_collector_last_success_timestamp_seconds",
                "{{report}}, silent",
            ),
        ],
    }
}

fn stream() -> Row {
    Row {
        title: "2. Stream (NATS JetStream)",
        panels: vec![
            lines(
                "Room in use",
                "percentunit",
                "It is trimmed above a half. Above 80 % (LakegaugeStreamNearlyFull) something keeps it from \
                 that: which position stands still, archive or snapshot?",
            )
            .ask(
                "lakegauge_archiver_stream_bytes / lakegauge_archiver_stream_max_bytes",
                "{{stream}}",
            )
            .colours(&[(0.8, "red")])
            .between(0.0, 1.0),
            lines(
                "Positions",
                "short",
                "Sequence that each reader has reached. Lines that part: the lower one is behind, \
                 and the stream keeps what is between.",
            )
            .ask("lakegauge_aggregator_counted_sequence", "counted {{stream}}")
            .ask("lakegauge_archiver_committed_sequence", "archived {{stream}}")
            .ask("lakegauge_aggregator_snapshot_sequence", "snapshot {{stream}}")
            .ask("lakegauge_archiver_trimmed_below_sequence", "trimmed {{stream}}"),
            lines(
                "Connections",
                "short",
                "1 while the connection of a service to NATS stands, or while PostgreSQL answers the \
                 archiver; 'refused' is 1 while a login that was good before is refused \
                 (LakegaugeLoginRefused).",
            )
            .ask("lakegauge_nats_connected", "{{service}}")
            .ask("lakegauge_postgres_connected", "{{service}}, PostgreSQL")
            .ask("lakegauge_nats_login_refused", "{{service}}, NATS refused")
            .ask("lakegauge_postgres_login_refused", "{{service}}, PostgreSQL refused")
            .between(0.0, 1.0),
            lines(
                "Trims",
                "cpm",
                "How often a minute the stream was trimmed as far as is allowed. 0: the archiver \
                 does not run, or the broker refuses.",
            )
            .ask(
                "sum by (stream) (rate(lakegauge_archiver_trims_total[$__rate_interval])) * 60",
                "{{stream}}",
            ),
        ],
    }
}

fn aggregate() -> Row {
    Row {
        title: "3. Aggregate",
        panels: vec![
            lines(
                "Messages not counted yet",
                "short",
                "Growing (LakegaugeAggregatorLagGrowing): is the aggregator at one processor core? See \
                 resources. Standing still (LakegaugeAggregatorStale): readyz?verbose says why.",
            )
            .ask("lakegauge_aggregator_lag_messages", "{{stream}}"),
            lines(
                "Age of the newest event",
                "s",
                "Time since the newest event counted happened. Rising while messages arrive: clocks \
                 or a late source; rising while none do: the source is silent (LakegaugeDataStale).",
            )
            .ask("lakegauge:data_age:seconds", "{{side}}")
            .ask("time() - max(data_lake_newest_event_timestamp_seconds)", "lake, exactly")
            .ask("time() - max(data_warehouse_newest_event_timestamp_seconds)", "warehouse, exactly"),
            lines(
                "Events by judgement",
                "eps",
                "duplicate: redelivered or sent twice, counted once. too_old: late beyond what the \
                 sets hold; the archive decides. Many of either: a source repeats itself.",
            )
            .ask(rate("lakegauge_aggregator_events_total", "judgement"), "{{judgement}}")
            .ask(rate("lakegauge_aggregator_dead_letters_total", "reason"), "dead: {{reason}}"),
            lines(
                "Messages and samples",
                "mps",
                "Messages read a second, and samples published for the archive (one each 10 s and \
                 stream).",
            )
            .ask(rate("lakegauge_aggregator_messages_total", "stream"), "{{stream}}")
            .ask(rate("lakegauge_aggregator_samples_total", "stream"), "samples of {{stream}}"),
            lines(
                "Verdicts on what was too late to judge",
                "eps",
                "counted: the archive found them new. ahead: out of turn; somebody else publishes \
                 into lake.late or warehouse.late.",
            )
            .ask(rate("lakegauge_aggregator_verdicts_total", "result"), "{{result}}")
            .ask(rate("lakegauge_aggregator_fields_ignored_total", "stream"), "unknown fields"),
            lines(
                "Owner of the partition",
                "short",
                "Exactly one aggregator has 1. Ownership that is lost again and again: two \
                 processes, and a machine that stalls.",
            )
            .ask("lakegauge_aggregator_owner", "{{instance}}")
            .ask("increase(lakegauge_aggregator_ownerships_lost_total[1h])", "lost, {{instance}}"),
        ],
    }
}

fn archive() -> Row {
    Row {
        title: "4. Archive",
        panels: vec![
            lines(
                "Messages not archived yet",
                "short",
                "Growing (LakegaugeArchiveLagGrowing): see commit duration. Nothing is lost, the stream \
                 keeps them.",
            )
            .ask("lakegauge_archiver_lag_messages", "{{stream}}"),
            lines(
                "Commit duration",
                "s",
                "p50 and p99 of a transaction. Rising: the database's disk, a long query, or a \
                 lock; see pg_stat_activity.",
            )
            .ask(commit("0.5"), "p50")
            .ask(commit("0.99"), "p99"),
            lines(
                "Age of the checkpoint",
                "s",
                "Time since the last commit. Rising while messages wait (LakegaugeArchiveStale): \
                 readyz?verbose of the archiver says what for.",
            )
            .ask("time() - lakegauge_archiver_last_commit_timestamp_seconds", "{{stream}}"),
            lines(
                "Rollups behind the rows",
                "s",
                "How long rows have been archived that the rollups by day and by key do not include. \
                 About a minute is normal. Rising (LakegaugeRollupsStale): readyz?verbose of the \
                 archiver says what they wait for.",
            )
            .ask("max by (stream) (lakegauge_archive_rollup_lag_seconds)", "{{stream}}"),
            lines(
                "Events by what became of them",
                "eps",
                "inserted, duplicate (known by its key), dead (kept with its reason). too_old: rows \
                 that get a verdict.",
            )
            .ask(rate("lakegauge_archiver_events_total", "result"), "{{result}}")
            .ask(rate("lakegauge_archiver_too_old_total", "stream"), "too old, {{stream}}"),
            lines(
                "Dead letters",
                "short",
                "Open letters, and those of the last 15 minutes (LakegaugeDeadLetters): `lakegauge \
                 dead-letters list` shows them.",
            )
            .ask("sum by (reason) (lakegauge_archive_dead_letters_open) > 0", "open: {{reason}}")
            .ask("sum(lakegauge_archive_dead_letters_open)", "open")
            .ask("sum(increase(lakegauge_archiver_dead_letters_total[15m]))", "15 minutes"),
            lines(
                "Must be 0",
                "short",
                "Alarms, gaps in the ledger, lost messages (LakegaugeArchiveAlarm, LakegaugeMessagesLost): run \
                 `lakegauge audit`.",
            )
            .ask("sum by (alarm) (lakegauge_archiver_alarms_total)", "{{alarm}}")
            .ask("sum(lakegauge_archive_ledger_gaps)", "gaps")
            .ask("sum(lakegauge_archiver_lost_messages_total)", "lost")
            .ask("sum(lakegauge_archive_declared_lost_messages_total)", "declared lost"),
            lines(
                "The ledger",
                "short",
                "What the archive's ledger adds up to since the first event; events = inserted + \
                 duplicates + dead.",
            )
            .ask("sum by (result) (lakegauge_archive_ledger_events_total)", "{{result}}"),
            lines(
                "Size of the database",
                "decbytes",
                "With its limit, where ARCHIVER_DATABASE_LIMIT_BYTES says one. Near it: retention \
                 (docs/supabase.md) drops old days, or the plan grows.",
            )
            .ask("lakegauge_archive_database_bytes", "used")
            .ask("lakegauge_archive_database_limit_bytes", "limit"),
            lines(
                "Time until the database is full",
                "s",
                "At the growth of the last six hours; nothing in the first ten minutes. Less than a \
                 week: set retention, or a larger plan.",
            )
            .ask("lakegauge_archive_database_time_to_limit_seconds", "until the limit"),
            lines(
                "Bytes of an event",
                "decbytes",
                "Of the database for each event in it, indexes and windows included. Rising without \
                 more events: keys or principals are getting long, or tables are bloated.",
            )
            .ask("lakegauge_archive_event_bytes", "an event"),
            lines(
                "Batches tried again",
                "cpm",
                "Batches a minute that failed and were tried again. Steady: the database refuses \
                 something; its log says what.",
            )
            .ask("sum by (stream) (rate(lakegauge_archiver_retries_total[$__rate_interval])) * 60", "{{stream}}"),
            lines(
                "Verdicts waiting",
                "short",
                "given, noted, and waiting for their way back through the stream. Waiting for long: \
                 the stream is full or the archiver behind.",
            )
            .ask("sum(lakegauge_archiver_verdicts_given_total)", "given")
            .ask("sum(lakegauge_archiver_verdicts_noted_total)", "noted")
            .ask("sum(lakegauge_archiver_verdicts_waiting)", "waiting")
            .ask("sum(lakegauge_archiver_verdicts_published_again_total)", "published again"),
        ],
    }
}

fn commit(share: &str) -> String {
    format!(
        "histogram_quantile({share}, sum by (le) \
         (rate(lakegauge_archiver_commit_duration_seconds_bucket[$__rate_interval])))"
    )
}

fn recover() -> Row {
    Row {
        title: "5. Replay and recovery",
        panels: vec![
            lines(
                "Age of the snapshot",
                "s",
                "Time since the state was stored. Rising (LakegaugeSnapshotStale): a restart takes longer, \
                 and the stream can't be trimmed.",
            )
            .ask("time() - lakegauge_aggregator_snapshot_timestamp_seconds", "{{stream}}"),
            lines(
                "Size of the snapshot",
                "decbytes",
                "Grows with objects and identities up to its bounds, then stays.",
            )
            .ask("lakegauge_aggregator_snapshot_bytes", "{{stream}}"),
            lines(
                "Snapshots refused, rebuilds",
                "short",
                "Each is a start that took long. Rebuilds after an upgrade are normal; damaged ones \
                 are not: check the broker's disk.",
            )
            .ask("sum by (reason) (lakegauge_aggregator_snapshots_refused_total)", "{{reason}}")
            .ask("sum(lakegauge_aggregator_snapshot_failures_total)", "not stored")
            .ask("sum(lakegauge_aggregator_rebuilds_total)", "rebuilds from the archive"),
            lines(
                "Epochs",
                "short",
                "Raised when a stream was made again or lost its tail. All services must show the \
                 same; a step is worth a look at declared losses.",
            )
            .ask("lakegauge_aggregator_epoch", "counted {{stream}}")
            .ask("lakegauge_archiver_epoch", "archived {{stream}}")
            .ask("sum(lakegauge_aggregator_epochs_ended_total)", "ended, aggregator")
            .ask("sum(lakegauge_archiver_epochs_begun_total)", "begun, archiver"),
            lines(
                "Dropped by retention",
                "short",
                "Partitions and rows that retention dropped. Only where retention is set; windows \
                 are kept.",
            )
            .ask("sum(lakegauge_archiver_dropped_partitions_total)", "partitions")
            .ask("sum(lakegauge_archiver_dropped_rows_total)", "rows"),
            Panel::new(
                Form::Table,
                "Releases",
                "none",
                "What runs. More than one version for long: an upgrade was not finished.",
            )
            .ask("max by (service, version, instance) (lakegauge_build_info)", "")
            .size(8, 7),
        ],
    }
}

fn resources() -> Row {
    let of_ours = "{job=\"lakegauge-admin\"}";
    Row {
        title: "6. Resources",
        panels: vec![
            lines(
                "Processor cores",
                "short",
                "Cores in use. An aggregator at 1 is at its limit: split the partition.",
            )
            .ask(
                format!("rate(process_cpu_seconds_total{of_ours}[$__rate_interval])"),
                "{{service}}",
            ),
            lines(
                "Memory",
                "bytes",
                "Resident memory. It follows the bounds of the rules; growth without end is a \
                 defect.",
            )
            .ask(format!("process_resident_memory_bytes{of_ours}"), "{{service}}"),
            lines(
                "Open files",
                "percentunit",
                "Share of the limit. Rising without end: connections that are not closed.",
            )
            .ask(format!("process_open_fds{of_ours} / process_max_fds{of_ours}"), "{{service}}"),
            lines(
                "Up",
                "short",
                "1 where a scrape succeeds. The page of the four metrics is 0 while the aggregator \
                 catches up.",
            )
            .ask("up{job=~\"lakegauge.*\"}", "{{service}} ({{job}})"),
            lines(
                "Ready",
                "short",
                "0 while a service does not do its job (LakegaugeServiceNotReady), unless it stands by for \
                 another.",
            )
            .ask("lakegauge_ready", "{{service}}")
            .ask("lakegauge_standby", "{{service}}, stands by"),
            lines(
                "Parts that are not well",
                "short",
                "What keeps a service from being ready; nothing while all are well.",
            )
            .ask("lakegauge_part_ready == 0", "{{service}}: {{part}}"),
            lines(
                "Series of a scrape",
                "short",
                "Bounded by the labels; Prometheus refuses everything above 20,000 \
                 (LakegaugeScrapeNearLimit).",
            )
            .ask(
                "scrape_samples_post_metric_relabeling{job=~\"lakegauge.*\"}",
                "{{service}} ({{job}})",
            ),
            lines(
                "Duration of a scrape",
                "s",
                "Above a second a page is too large or its service too busy.",
            )
            .ask("scrape_duration_seconds{job=~\"lakegauge.*\"}", "{{service}} ({{job}})"),
        ],
    }
}
