//! `lakegauge doctor`: checks servers, permissions and settings, and shows how to correct problems.

mod check;
mod nats;
mod postgres;
mod receiver;

use std::io::Write as _;
use std::process::ExitCode;

use bus::Bus;
use clap::{ArgMatches, Command};
use domain::{ArchiveSide, BrokerSide, Stream};
use event_store::StoreSettings;
use service_kit::{Clock, Setting, SettingProblem, Settings, settings::Recorded};

use self::{
    check::{Check, bad},
    nats::of_nats,
    postgres::Room,
    postgres::of_postgres,
    receiver::of_receiver,
};
use crate::{
    addresses::{self, DatabaseLogin},
    command, identity, services,
    waiting::WaitingMessages,
};

fn settings() -> Vec<Setting> {
    [bus::service::table(), event_store::service::table()].concat()
}

pub(crate) fn command() -> Command {
    let command = Command::new("doctor")
        .about("Check servers, permissions and settings, and show how to correct problems")
        .after_help(
            "Addresses that are not set are those of the `lakegauge up` that runs in --data-dir.\n\
             Exit status: 0 if nothing is wrong, 1 otherwise.",
        );
    command::of_tool(command, &settings())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = command::ToolArguments::of(matches, &settings(), DatabaseLogin::Reader);
    let findings = command::block_on(async {
        let mut settings = given.settings()?;
        let bus = bus::service::load("doctor", &mut settings);
        let store = event_store::service::load_optional("lakegauge-doctor", &mut settings);
        let mut problems = problems(settings);
        let mut all = given.settings()?;
        services::load_everything(&mut all);
        let room = Room::load(&mut given.settings()?);
        for problem in self::problems(all) {
            // A missing setting is no mistake here, because not every service runs everywhere.
            if !problem.is_missing && !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let mut findings: Vec<Check> = problems.iter().map(of_problem).collect();
        if findings.is_empty() {
            findings.push(Check::Good("every setting can be read".to_owned()));
        }
        findings.extend(local::servers().into_iter().map(|tool| match tool {
            Ok(found) => Check::Good(found),
            Err(missing) => Check::Note(format!("{missing} (only `up` needs it)")),
        }));
        findings.extend(addresses::told().map(|told| Check::Note(told.to_owned())));
        if let Ok(bus) = &bus {
            findings.extend(of_nats(bus).await);
        }
        let receiver = collector::http::Config::load(&mut given.settings()?).ok();
        if let Some(receiver) = receiver.filter(collector::http::Config::is_set) {
            findings.extend(of_receiver(&receiver).await);
        }
        match store {
            Ok(Some(store)) => {
                findings.extend(of_postgres(&store, &room).await);
                if let Ok(bus) = &bus
                    && let Ok(bus) = Bus::connect(&bus.settings).await
                {
                    findings.push(of_identity(identity::compare(&bus, &store).await));
                    findings.extend(of_backlog(&bus, &store).await.unwrap_or_else(|error| {
                        vec![Check::Note(format!("waiting messages were not checked: {error}"))]
                    }));
                }
            }
            Ok(None) => findings.push(Check::Note(
                "PostgreSQL was not checked: DATABASE_URL is not set".to_owned(),
            )),
            Err(Recorded) => {}
        }
        Ok(findings)
    });
    command::report_status(findings.and_then(|findings| tell(&findings)))
}

/// Writes the findings. Returns whether none is bad.
fn tell(findings: &[Check]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let mut wrong = 0;
    for finding in findings {
        match finding {
            Check::Good(what) => writeln!(out, "ok    {what}")?,
            Check::Note(what) => writeln!(out, "note  {what}")?,
            Check::Bad { what, todo } => {
                wrong += 1;
                writeln!(out, "WRONG {what}\n      -> {todo}")?;
            }
        }
    }
    match wrong {
        0 => writeln!(out, "nothing is wrong")?,
        1 => writeln!(out, "one thing is wrong")?,
        _ => writeln!(out, "{wrong} things are wrong")?,
    }
    Ok(wrong == 0)
}

fn problems(settings: Settings<'_>) -> Vec<SettingProblem> {
    settings.finish().err().map(|problems| problems.0).unwrap_or_default()
}

fn of_problem(problem: &SettingProblem) -> Check {
    bad(format!("setting {problem}"), "`lakegauge settings` shows what each means")
}

/// Messages that have waited too long to be archived or counted.
async fn of_backlog(bus: &Bus, store: &StoreSettings) -> anyhow::Result<Vec<Check>> {
    let now_us = Clock::system().now_us();
    let mut findings = Vec::new();
    for stream in Stream::of_partition(0) {
        let stream = stream.to_string();
        let archived = event_store::read_checkpoint(store, &stream).await?;
        let counted = bus.snapshots().pointer(&stream).await?.map(|(pointer, _)| pointer.mark);
        for (mark, done, part) in
            [(archived, "archived", "archiver"), (counted, "counted", "aggregator")]
        {
            let after = mark.map_or(0, |mark| mark.sequence);
            let waiting = WaitingMessages::look(bus, &stream, after, now_us).await?;
            findings.push(of_waiting(&stream, after, waiting, done, part));
        }
    }
    Ok(findings)
}

/// Whether broker and archive belong to one pipeline.
fn of_identity(compared: anyhow::Result<(Option<BrokerSide>, ArchiveSide)>) -> Check {
    match compared {
        Ok((Some(broker), archive)) if broker.archive.is_some() => Check::Good(format!(
            "broker and archive are one: pipeline {}, archive {}",
            broker.pipeline.id, archive.id
        )),
        Ok(_) => Check::Note(
            "broker and archive are not joined yet: the archiver's first start joins them"
                .to_owned(),
        ),
        Err(error) => match command::mismatch(&error) {
            Some(mismatch) if mismatch.is_adoptable() => bad(
                format!("broker and archive are not one pipeline: {mismatch}"),
                "point NATS_URL or DATABASE_URL at the one that belongs to the other",
            ),
            Some(mismatch) => {
                bad(format!("broker and archive don't fit: {mismatch}"), "see the text")
            }
            None => Check::Note(format!("broker and archive were not compared: {error:#}")),
        },
    }
}

fn of_waiting(
    stream: &str,
    after: u64,
    waiting: Option<WaitingMessages>,
    done: &str,
    part: &str,
) -> Check {
    match waiting {
        Some(WaitingMessages { messages, oldest_s })
            if waiting.is_some_and(|it| it.is_overdue()) =>
        {
            bad(
                format!(
                    "stream {stream}: {messages} messages wait behind message {after} to be {done}, \
                 the oldest for {oldest_s} s"
                ),
                format!(
                    "is the {part} running? /readyz?verbose of its admin port shows why it waits"
                ),
            )
        }
        Some(_) | None => Check::Good(format!("stream {stream}: all messages are {done}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_long_is_wrong_and_what_came_just_now_is_not() {
        let of = |oldest_s| {
            let waiting = Some(WaitingMessages { messages: 3, oldest_s });
            of_waiting("LAKE_0", 7, waiting, "archived", "archiver")
        };
        assert!(matches!(of(3), Check::Good(_)));
        assert!(matches!(of(300), Check::Bad { .. }));
    }
}
