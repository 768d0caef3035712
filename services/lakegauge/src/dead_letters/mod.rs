//! `lakegauge dead-letters`: lists, shows, retries and drops events that could not be archived.

mod retry;
mod show;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use bus::BusSettings;
use clap::{
    Arg, ArgAction, ArgGroup, ArgMatches, Command, builder::PossibleValuesParser, value_parser,
};
use domain::{Reason, SAMPLES, Timestamp};
use event_store::StoreSettings;
use event_store::dead_letters::{ClosedAs, DeadLetterFilter, DeadLetters};
use service_kit::{Clock, Setting};

use crate::{addresses::DatabaseLogin, command, streams};

/// Bytes of a dead letter that a list needs.
const LIST_BYTES_MAX: u32 = 200;
/// All bytes of a dead letter: more than a message can have.
const ALL_BYTES: u32 = u32::MAX;

pub(crate) fn command() -> Command {
    Command::new("dead-letters")
        .about("List, show, retry and drop events that could not be archived")
        .long_about(
            "A dead letter contains the bytes of what was not archived, its position, and the \
             reason. Dead letters are closed, never deleted.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list())
        .subcommand(show_command())
        .subcommand(retry_command())
        .subcommand(drop_command())
}

fn list() -> Command {
    let command = Command::new("list")
        .about("Print dead letters, one line each, in the order in which they were stored")
        .after_help("Example: lakegauge dead-letters list --reason future_dated --since 24h")
        .args(filters())
        .arg(switch("closed", "Only closed dead letters").conflicts_with("all"))
        .arg(switch("all", "Open and closed dead letters [default: open ones]"))
        .arg(switch("json", "Print each dead letter as one JSON object"));
    command::of_tool(command, &settings(false))
}

fn show_command() -> Command {
    let command = Command::new("show")
        .about("Print all that is known of dead letters, and their bytes")
        .arg(numbers().required(true))
        .arg(switch("json", "Print each dead letter as one JSON object"));
    command::of_tool(command, &settings(false))
}

fn retry_command() -> Command {
    let command = Command::new("retry")
        .about("Archive dead letters as events, exactly once")
        .long_about(
            "If the event was counted (PostgreSQL refused the row), the dead letter becomes a row \
             with its window aggregates; nothing is published. Otherwise the event was not \
             counted: it is published again with the id of its first position, and the dead \
             letter is closed when the broker has acknowledged it. If it is refused again, there \
             is a new dead letter.",
        )
        .after_help(
            "Exit status: 0 if every dead letter was retried, 1 otherwise, 64 for wrong \
             arguments.\n\
             Example: lakegauge dead-letters retry --all --reason refused_by_database",
        )
        .arg(numbers())
        .arg(every())
        .args(filters())
        .group(which())
        .arg(
            Arg::new("replace")
                .long("replace")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("every")
                .help("Publish this JSON event, not the dead letter's bytes; - is standard input"),
        )
        .arg(switch(
            "anyway",
            "Also publish what the stream's rules and this clock would refuse again",
        ));
    command::of_tool(command, &settings(true))
}

fn drop_command() -> Command {
    let command = Command::new("drop")
        .about("Close dead letters that are not needed, with a note")
        .after_help(
            "An event that was counted stays counted.\n\
             Example: lakegauge dead-letters drop --all --reason undecodable --note 'a test'",
        )
        .arg(numbers())
        .arg(every())
        .args(filters())
        .group(which())
        .arg(
            Arg::new("note")
                .long("note")
                .value_name("TEXT")
                .required(true)
                .help("The reason, for later readers"),
        );
    command::of_tool(command, &settings(false))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn numbers() -> Arg {
    Arg::new("numbers")
        .value_name("NUMBER")
        .value_parser(value_parser!(u64).range(1..))
        .action(ArgAction::Append)
        .num_args(1..)
        .help("Number of a dead letter, as `list` prints it")
}

fn every() -> Arg {
    switch("every", "All open dead letters that the filters choose").long("all")
}

/// Dead letters are chosen by numbers or by filters.
fn which() -> ArgGroup {
    ArgGroup::new("which").args(["numbers", "every"]).required(true)
}

fn chosen(matches: &ArgMatches, clock: &Clock) -> DeadLetterFilter {
    if matches.get_flag("every") {
        return filter(matches, clock);
    }
    DeadLetterFilter { numbers: Some(given(matches)), ..DeadLetterFilter::default() }
}

fn filters() -> [Arg; 3] {
    let streams = [streams::event_streams(), vec![SAMPLES]].concat();
    [
        Arg::new("reason")
            .long("reason")
            .value_name("REASON")
            .value_parser(PossibleValuesParser::new(Reason::ALL.iter().map(|it| it.name())))
            .help("Only dead letters with this reason"),
        Arg::new("stream")
            .long("stream")
            .value_name("STREAM")
            .value_parser(PossibleValuesParser::new(streams))
            .help("Only dead letters of this stream"),
        Arg::new("since").long("since").value_name("TIME").value_parser(since).help(
            "Only those stored at this time (RFC 3339) or later, or in the last 90s, 15m, 24h, 7d",
        ),
    ]
}

/// A time, or how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    AgoS(i64),
}

fn since(text: &str) -> Result<Since, String> {
    if let Some(at) = wire::json::parse_time(text) {
        return Ok(Since::At(at));
    }
    let wrong = || "must be a time such as 2026-11-23T06:43:00Z, or 90s, 15m, 24h, 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: i64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<u32>().ok());
    let ago = number.and_then(|number| i64::from(number).checked_mul(seconds));
    ago.map(Since::AgoS).ok_or_else(wrong)
}

fn filter(matches: &ArgMatches, clock: &Clock) -> DeadLetterFilter {
    let since = matches.get_one::<Since>("since").map(|since| match since {
        Since::At(at) => *at,
        Since::AgoS(seconds) => Timestamp(clock.now_us()).plus_seconds(-*seconds),
    });
    DeadLetterFilter {
        numbers: None,
        reason: matches.get_one::<String>("reason").and_then(|name| Reason::from_name(name)),
        stream: matches.get_one::<String>("stream").cloned(),
        since,
        open: Some(true),
    }
}

/// Every setting of the tool; only a retry publishes.
fn settings(is_retry: bool) -> Vec<Setting> {
    let nats = if is_retry { BusSettings::table() } else { Vec::new() };
    [nats, event_store::service::table()].concat()
}

fn given(matches: &ArgMatches) -> Vec<u64> {
    matches.get_many::<u64>("numbers").into_iter().flatten().copied().collect()
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let Some((name, matches)) = matches.subcommand() else {
        return ExitCode::from(crate::EXIT_USAGE);
    };
    let is_retry = name == "retry";
    let writes = is_retry || name == "drop";
    let login = if writes { DatabaseLogin::Archiver } else { DatabaseLogin::Reader };
    let loaded = command::ToolArguments::of(matches, &settings(is_retry), login).load(|settings| {
        let store = event_store::service::load("lakegauge-dead-letters", settings);
        let bus = is_retry.then(|| BusSettings::load_named("lakegauge dead-letters", settings));
        Ok((store?, bus.transpose()?))
    });
    let (store, bus) = match loaded {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    command::say_raised_tls(&store);
    let clock = Clock::system();
    command::report_status(command::block_on(async {
        match (name, bus) {
            ("list", _) => print_list(&store, matches, &clock).await,
            ("show", _) => print_letters(&store, matches).await,
            ("retry", Some(bus)) => {
                let which = chosen(matches, &clock);
                let options = retry::Options {
                    replace: matches.get_one::<PathBuf>("replace").cloned(),
                    anyway: matches.get_flag("anyway"),
                };
                retry::retry(&store, &bus, &which, &options, &clock).await
            }
            ("drop", _) => drop_letters(&store, &chosen(matches, &clock), matches).await,
            _ => anyhow::bail!("there is no dead-letters {name}"),
        }
    }))
}

async fn print_list(
    store: &StoreSettings,
    matches: &ArgMatches,
    clock: &Clock,
) -> anyhow::Result<bool> {
    let open = match (matches.get_flag("all"), matches.get_flag("closed")) {
        (true, _) => None,
        (false, closed) => Some(!closed),
    };
    let filter = DeadLetterFilter { open, ..filter(matches, clock) };
    let json = matches.get_flag("json");
    let mut letters = DeadLetters::read(store).await?;
    let mut out = std::io::stdout().lock();
    let mut after = 0;
    loop {
        let page = letters.page(&filter, after, LIST_BYTES_MAX).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        for letter in &page {
            if json {
                show::write_json(&mut out, letter)?;
            } else {
                writeln!(out, "{}", show::line(letter))?;
            }
        }
    }
    out.flush()?;
    Ok(true)
}

async fn print_letters(store: &StoreSettings, matches: &ArgMatches) -> anyhow::Result<bool> {
    let json = matches.get_flag("json");
    let mut letters = DeadLetters::read(store).await?;
    let mut out = std::io::stdout().lock();
    let mut all = true;
    for number in given(matches) {
        let filter =
            DeadLetterFilter { numbers: Some(vec![number]), ..DeadLetterFilter::default() };
        let page = letters.page(&filter, 0, ALL_BYTES).await?;
        match page.first() {
            Some(letter) if json => show::write_json(&mut out, letter)?,
            Some(letter) => show::write(&mut out, letter)?,
            None => {
                eprintln!("there is no dead letter {number}");
                all = false;
            }
        }
    }
    out.flush()?;
    Ok(all)
}

/// Closes the chosen dead letters. Returns whether each one that was named could be closed.
async fn drop_letters(
    store: &StoreSettings,
    which: &DeadLetterFilter,
    matches: &ArgMatches,
) -> anyhow::Result<bool> {
    let note = matches.get_one::<String>("note").map(String::as_str);
    let mut letters = DeadLetters::write(store).await?;
    if let Some(numbers) = &which.numbers {
        return drop_numbers(&mut letters, numbers, note).await;
    }
    let (mut after, mut dropped) = (0, 0_u64);
    loop {
        let page = letters.page(which, after, LIST_BYTES_MAX).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        let numbers: Vec<u64> = page.iter().map(|letter| letter.number).collect();
        dropped = dropped.saturating_add(letters.drop_open(&numbers, note).await?);
    }
    let letters = if dropped == 1 { "dead letter" } else { "dead letters" };
    println_line(&format!("dropped {dropped} {letters}"))?;
    Ok(true)
}

async fn drop_numbers(
    letters: &mut DeadLetters,
    numbers: &[u64],
    note: Option<&str>,
) -> anyhow::Result<bool> {
    let mut all = true;
    for number in numbers {
        match letters.close(*number, ClosedAs::Dropped, note).await {
            Ok(()) => println_line(&format!("dead letter {number}: dropped"))?,
            Err(event_store::StoreError::Inconsistent(why)) => {
                eprintln!("{why}, or does not exist");
                all = false;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

fn println_line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(since("90s"), Ok(Since::AgoS(90)));
        assert_eq!(since("7d"), Ok(Since::AgoS(604_800)));
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Since::At(Timestamp(1_000_000))));
        for wrong in ["", "7", "d", "7w", "-1h", "yesterday"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn retry_wants_numbers_or_all_and_not_both() {
        let parse = |arguments: &[&str]| {
            let all = ["dead-letters", "retry"].iter().chain(arguments);
            command().try_get_matches_from(all).is_ok()
        };
        assert!(parse(&["3", "4"]) && parse(&["--all", "--reason", "too_long"]));
        assert!(parse(&["3", "--replace", "-"]));
        assert!(!parse(&[]) && !parse(&["3", "--all"]) && !parse(&["0"]));
        assert!(!parse(&["--all", "--replace", "-"]) && !parse(&["--all", "--reason", "nonsense"]));
    }

    #[test]
    fn drop_wants_a_note_and_numbers_or_all() {
        let parse = |arguments: &[&str]| {
            let all = ["dead-letters", "drop", "--note", "n"].iter().chain(arguments);
            command().try_get_matches_from(all).is_ok()
        };
        assert!(parse(&["3", "4"]) && parse(&["--all", "--reason", "too_long", "--since", "24h"]));
        assert!(!parse(&[]) && !parse(&["3", "--all"]));
        assert!(command().try_get_matches_from(["dead-letters", "drop", "--all"]).is_err());
    }

    #[test]
    fn a_stream_that_there_is_not_is_refused_with_those_that_there_are() {
        let asked = ["dead-letters", "list", "--stream", "LAKE"];
        let why = command().try_get_matches_from(asked).unwrap_err().to_string();
        assert!(why.contains("LAKE_0") && why.contains(SAMPLES), "{why}");
    }
}
