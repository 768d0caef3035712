//! `lakegauge tail`: prints events as they are stored, one line each.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use bus::{Bus, BusSettings, Observed, StoredMessage};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser};
use domain::{
    Fact, LakeAccessRestored, LakeAccessWithdrawn, Operation, Outcome, Refusal, Statement,
    WarehouseQueryWithdrawn,
};
use service_kit::terminal::plain;
use wire::{Raw, json::Decoded};

use crate::{addresses::DatabaseLogin, command as flags, decode, readable, stop::Stop};

/// The subjects if none is given.
const SUBJECTS: [&str; 2] = ["lake.>", "warehouse.>"];

const KINDS: [&str; 4] = ["access", "inventory", "query", "correction"];

pub(crate) fn command() -> Command {
    let operations = Operation::ALL.iter().map(|it| it.name());
    let statements = Statement::ALL.iter().map(|it| it.name());
    let actions: BTreeSet<&str> = operations.chain(statements).collect();
    let command = Command::new("tail")
        .about("Print events as they are stored, one line each")
        .after_help(
            "Both formats of messages are read. Filters of one kind are alternatives; those of\n\
             different kinds must all match. Begins with the next stored event and skips none.\n\
             Example: lakegauge tail 'lake.access.>' --bucket raw --operation write --json",
        )
        .arg(
            Arg::new("subject")
                .value_name("SUBJECT")
                .help("Subject to look at, * for any token and > for any rest [default: lake.> and warehouse.>]"),
        )
        .arg(filter("bucket", "Only requests and inventories of this bucket"))
        .arg(filter("warehouse", "Only queries of this warehouse"))
        .arg(
            filter("operation", "Only this operation or kind of statement")
                .value_parser(PossibleValuesParser::new(actions))
                .hide_possible_values(true),
        )
        .arg(
            filter("outcome", "Only this outcome")
                .value_parser(PossibleValuesParser::new(Outcome::ALL.iter().map(|it| it.name()))),
        )
        .arg(filter("kind", "Only events of this kind").value_parser(PossibleValuesParser::new(KINDS)))
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print each event as one JSON object"),
        );
    flags::of_tool(command, &BusSettings::table())
}

fn filter(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("NAME").action(ArgAction::Append).help(help)
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = flags::ToolArguments::of(matches, &BusSettings::table(), DatabaseLogin::Reader);
    let bus = match given.load(|settings| BusSettings::load_named("lakegauge tail", settings)) {
        Ok(bus) => bus,
        Err(status) => return status,
    };
    let filters = Filters::of(matches);
    let subjects = match matches.get_one::<String>("subject") {
        Some(subject) => vec![subject.clone()],
        None => SUBJECTS.map(str::to_owned).to_vec(),
    };
    let json = matches.get_flag("json");
    flags::report(flags::block_on_until_stopped(async |stop| {
        tail(&bus, &subjects, &filters, json, stop).await
    }))
}

/// Prints until a signal, which is the normal end.
async fn tail(
    settings: &BusSettings,
    subjects: &[String],
    filters: &Filters,
    json: bool,
    mut stop: Stop,
) -> anyhow::Result<()> {
    let bus = stop.unless(Bus::connect(settings)).await??;
    let mut watch = stop.unless(bus.watch(subjects)).await??;
    loop {
        tokio::select! {
            _stopped = stop.asked() => return Ok(()),
            watched = watch.next() => match watched {
                Some(watched) => print(&watched, filters, json)?,
                None => anyhow::bail!("nothing more can be read; start the command again"),
            }
        }
    }
}

fn print(watched: &Observed, filters: &Filters, json: bool) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    match watched {
        Observed::Message(message) => write_message(&mut lines, message, filters, json),
        // The missed messages may match the filters; the JSON output has no place for this note.
        Observed::Missed(why) if json => eprintln!("! {}", plain(why)),
        Observed::Missed(why) => write_told(&mut lines, why),
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&lines)?;
    stdout.flush()?;
    Ok(())
}

fn write_message(lines: &mut Vec<u8>, message: &StoredMessage, filters: &Filters, json: bool) {
    // Filters choose events, so problems are shown only without filters.
    let tells_problems = !json && filters.is_empty();
    let raw = match wire::decode(&message.headers, &message.payload) {
        Ok(raw) => raw,
        Err(refusal) if tells_problems => return write_problem(lines, message, &refusal),
        Err(_) => return,
    };
    for Raw { bytes, decoded } in raw {
        match decoded {
            Ok(decoded) if filters.choose(&decoded) => write_event(lines, bytes, decoded, json),
            Err(undecoded) if tells_problems => write_problem(lines, message, &undecoded.refusal),
            Ok(_) | Err(_) => {}
        }
    }
}

fn write_problem(lines: &mut Vec<u8>, message: &StoredMessage, refusal: &Refusal) {
    write_told(lines, &format!("{}: {refusal}", message.subject));
}

fn write_told(lines: &mut Vec<u8>, text: &str) {
    lines.extend_from_slice(b"! ");
    lines.extend_from_slice(plain(text).as_bytes());
    lines.push(b'\n');
}

fn write_event(lines: &mut Vec<u8>, bytes: &[u8], decoded: Decoded, json: bool) {
    if json {
        decode::write_event(lines, bytes, decoded);
    } else {
        lines.extend_from_slice(readable::line(&decoded).as_bytes());
        lines.push(b'\n');
    }
}

/// Which events are shown; an empty list does not filter.
#[derive(Debug, Default)]
struct Filters {
    buckets: Vec<String>,
    warehouses: Vec<String>,
    operations: Vec<String>,
    outcomes: Vec<String>,
    kinds: Vec<String>,
}

impl Filters {
    fn of(matches: &ArgMatches) -> Self {
        let all = |name: &str| {
            matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>()
        };
        Self {
            buckets: all("bucket"),
            warehouses: all("warehouse"),
            operations: all("operation"),
            outcomes: all("outcome"),
            kinds: all("kind"),
        }
    }

    fn is_empty(&self) -> bool {
        [&self.buckets, &self.warehouses, &self.operations, &self.outcomes, &self.kinds]
            .iter()
            .all(|filter| filter.is_empty())
    }

    fn choose(&self, event: &Decoded) -> bool {
        let (kind, bucket, warehouse, operation, outcome) = match &event.fact {
            Fact::LakeAccess(access)
            | Fact::LakeAccessWithdrawn(LakeAccessWithdrawn { access, .. })
            | Fact::LakeAccessRestored(LakeAccessRestored { access, .. }) => (
                "access",
                Some(access.bucket.as_str()),
                None,
                Some(access.operation.name()),
                Some(access.outcome.name()),
            ),
            Fact::LakeInventory(inventory) => {
                ("inventory", Some(inventory.bucket.as_str()), None, None, None)
            }
            Fact::WarehouseQuery(query)
            | Fact::WarehouseQueryWithdrawn(WarehouseQueryWithdrawn { query, .. }) => (
                "query",
                None,
                Some(query.warehouse.as_str()),
                Some(query.statement.name()),
                Some(query.outcome.name()),
            ),
        };
        let kind = if event.fact.is_correction() { "correction" } else { kind };
        let holds = |filter: &[String], value: Option<&str>| {
            filter.is_empty() || value.is_some_and(|value| filter.iter().any(|it| it == value))
        };
        holds(&self.kinds, Some(kind))
            && holds(&self.buckets, bucket)
            && holds(&self.warehouses, warehouse)
            && holds(&self.operations, operation)
            && holds(&self.outcomes, outcome)
    }
}

#[cfg(test)]
mod tests {
    use wire::Headers;

    use super::*;

    const ACCESS: &str = r#"{"type":"lake.access","occurred_at":0,"bucket":"raw","key":"k","operation":"delete","bytes":1,"duration_us":2,"outcome":"denied","principal":""}"#;
    const INVENTORY: &str =
        r#"{"type":"lake.inventory","bucket":"raw","objects":1,"bytes":2,"as_of":0}"#;
    const QUERY: &str = r#"{"type":"warehouse.query","occurred_at":0,"warehouse":"raw","database":"dw","statement":"delete","queued_us":0,"executed_us":0,"rows_processed":0,"rows_returned":0,"bytes_scanned":0,"cache_hit":false,"outcome":"ok","principal":"","fingerprint":""}"#;

    fn filters(arguments: &[&str]) -> Filters {
        let arguments = ["tail"].iter().chain(arguments);
        Filters::of(&command().try_get_matches_from(arguments).unwrap())
    }

    fn chosen(arguments: &[&str]) -> Vec<&'static str> {
        let filters = filters(arguments);
        let chosen =
            |text: &&str| filters.choose(&wire::json::decode_line(text.as_bytes()).unwrap());
        [ACCESS, INVENTORY, QUERY].into_iter().filter(chosen).collect()
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_all_kinds_must_hold() {
        assert_eq!(chosen(&[]), [ACCESS, INVENTORY, QUERY]);
        assert_eq!(chosen(&["--bucket", "raw"]), [ACCESS, INVENTORY]);
        assert_eq!(chosen(&["--warehouse", "raw"]), [QUERY]);
        assert_eq!(chosen(&["--operation", "delete"]), [ACCESS, QUERY]);
        assert_eq!(chosen(&["--operation", "delete", "--outcome", "denied"]), [ACCESS]);
        assert_eq!(chosen(&["--kind", "inventory", "--kind", "query"]), [INVENTORY, QUERY]);
        assert_eq!(chosen(&["--bucket", "other"]), [""; 0]);
    }

    #[test]
    fn a_filter_that_nothing_can_match_is_a_usage_error() {
        for arguments in [["--operation", "delte"], ["--outcome", "failed"], ["--kind", "sample"]] {
            let arguments = ["tail"].iter().chain(&arguments);
            assert!(command().try_get_matches_from(arguments).is_err());
        }
    }

    fn printed(payload: &str, json: bool, filters: &Filters) -> String {
        let payload = payload.to_owned().into();
        let seen = StoredMessage {
            subject: "lake.access.0.x".to_owned(),
            headers: Headers::default(),
            payload,
        };
        let mut lines = Vec::new();
        write_message(&mut lines, &seen, filters, json);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn json_is_json_and_nothing_else() {
        let payload = format!("{ACCESS}\ngarbage\n{QUERY}");
        let none = Filters::default();
        assert_eq!(printed(&payload, true, &none), format!("{ACCESS}\n{QUERY}\n"));
    }

    #[test]
    fn what_is_no_event_is_said_where_nothing_is_filtered() {
        let text = printed("garbage\u{1b}", false, &Filters::default());
        assert!(text.starts_with("! lake.access.0.x: undecodable: "), "{text}");
        assert_eq!(printed("garbage", false, &filters(&["--bucket", "raw"])), "");
    }
}
