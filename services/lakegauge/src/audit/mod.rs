//! `lakegauge audit`: checks that every stored message is in the archive, exactly once.

mod compare;
mod finding;
mod report;
mod stream;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use bus::{Bus, BusSettings};
use clap::{Arg, ArgAction, ArgMatches, Command};
use event_store::{StoreSettings, audit::AuditView, audit::StreamLedger};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use service_kit::Setting;

use crate::{addresses::DatabaseLogin, command, identity};
use compare::Comparisons;
use finding::Finding;
use report::{AuditedPipeline, Certificate, OfStream};
use stream::Before;

const ARCHIVE_ONLY: &str = "archive-only";
const JSON: &str = "json";

fn settings() -> Vec<Setting> {
    [BusSettings::table(), event_store::service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("audit")
        .about("Check that every stored event is in the archive, exactly once")
        .long_about(
            "Compares the rows and dead letters of the archive with its ledger at one moment, and \
             the ledger with the streams: messages that still exist are read again; for trimmed \
             ones only the ledger is checked. Can run during live traffic and changes nothing.",
        )
        .after_help(
            "Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Messages that the broker lost before they could be archived are listed as declared \
             lost;\nthey are no finding.\n\
             Exit status: 0 if all is well, 1 if something was found or could not be read, 64 for \
             wrong arguments,\n78 if broker and archive are not one pipeline (--archive-only still \
             checks the archive).",
        )
        .arg(
            Arg::new(ARCHIVE_ONLY)
                .long(ARCHIVE_ONLY)
                .action(ArgAction::SetTrue)
                .help("Check only the archive, not the streams"),
        )
        .arg(
            Arg::new(JSON)
                .long(JSON)
                .action(ArgAction::SetTrue)
                .help("Print a certificate as one JSON object: ranges, counts, digest"),
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Reader);
    let loaded = given.load(|settings| {
        let bus = BusSettings::load_named("lakegauge audit", settings);
        let store = event_store::service::load("lakegauge-audit", settings);
        Ok((bus?, store?))
    });
    let (bus, store) = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::say_raised_tls(&store);
    let bus = (!matches.get_flag(ARCHIVE_ONLY)).then_some(bus);
    let json = matches.get_flag(JSON);
    command::report_status(command::block_on(async {
        let certificate = audit(&store, bus.as_ref()).await?;
        let mut out = std::io::stdout().lock();
        if json {
            certificate.write_json(&mut out)?
        } else {
            certificate.write(&mut out)?
        }
        out.flush()?;
        Ok(certificate.well)
    }))
}

/// Audits every stream of the archive.
///
/// # Errors
///
/// The archive can't be read. If the broker can't be read, the report says that it was not checked.
async fn audit(store: &StoreSettings, bus: Option<&BusSettings>) -> anyhow::Result<Certificate> {
    let mut unchecked = Vec::new();
    let names = AuditView::open(store).await?.streams();
    let looked = match bus {
        None => Err(anyhow::anyhow!("--archive-only")),
        Some(settings) => look(settings, store, &names).await,
    };
    let looked = match looked {
        Ok(looked) => Some(looked),
        // The streams of another pipeline prove nothing about this archive.
        Err(error) if command::mismatch(&error).is_some() => return Err(error),
        Err(error) => {
            unchecked.push(format!("the streams: {error:#}"));
            None
        }
    };
    // This view is taken after the streams were read: whatever was trimmed there by then is
    // archived here.
    let mut view = AuditView::open(store).await?;
    let (mut streams, mut findings) = (Vec::new(), Vec::new());
    for name in view.streams() {
        let bar = bar(&format!("{name}: counting rows"));
        let ledger = view.ledger(&name, |events| bar.inc(events)).await?;
        bar.finish_and_clear();
        let (compared, found) = of_stream(&ledger, looked.as_ref(), &mut unchecked).await;
        if compared.ranges_dropped > 0 {
            unchecked.push(format!(
                "{name}: the rows of {} ranges separately, because retention dropped days of them; \
                 their sum was checked",
                compared.ranges_dropped
            ));
        }
        findings.extend(found);
        streams.push(OfStream::new(&ledger, compared));
    }
    let bar = bar("searching for identities that exist twice");
    findings.extend(finding::doubled(&view.doubled().await?));
    bar.finish_and_clear();
    let identity = AuditedPipeline::of(&event_store::archive_side(store).await?, looked.is_some());
    Ok(Certificate::new(view.taken_at().to_owned(), identity, streams, findings, unchecked)?)
}

/// The broker, and the state of its streams before the view of the archive was taken.
struct BrokerStatus {
    bus: Bus,
    before: BTreeMap<String, Before>,
}

async fn look(
    settings: &BusSettings,
    store: &StoreSettings,
    names: &[String],
) -> anyhow::Result<BrokerStatus> {
    let bus = Bus::connect(settings).await?;
    identity::compare(&bus, store).await?;
    let mut looked = BrokerStatus { bus, before: BTreeMap::new() };
    for name in names {
        let before = stream::before(&looked.bus, name).await?;
        looked.before.insert(name.clone(), before);
    }
    Ok(looked)
}

async fn of_stream(
    ledger: &StreamLedger,
    looked: Option<&BrokerStatus>,
    unchecked: &mut Vec<String>,
) -> (Comparisons, Vec<Finding>) {
    let mut reread = None;
    if let (Some(BrokerStatus { bus, before }), Some(_)) = (looked, ledger.checkpoint)
        && let Some(before) = before.get(&ledger.stream)
    {
        let bar = bar(&format!("{}: reading messages again", ledger.stream));
        match stream::reread(bus, before, ledger, |messages| bar.inc(messages)).await {
            Ok(read) => reread = Some(read),
            Err(error) => unchecked.push(format!("the stream {}: {error:#}", ledger.stream)),
        }
        bar.finish_and_clear();
    }
    let (findings, compared) = compare::compare(ledger, reread.as_ref());
    (compared, findings)
}

/// A counter on the terminal, for work without a known end.
fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::no_length()
        .with_style(
            ProgressStyle::with_template("{spinner} {msg}  {human_pos}  {per_sec}  {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        )
        .with_message(what.to_owned());
    if std::io::stderr().is_terminal() {
        bar.enable_steady_tick(std::time::Duration::from_millis(100));
    } else {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}
