//! `lakegauge publish`: publishes events from a file or standard input, and waits for every
//! acknowledgement.

mod archived;
mod input;
mod lanes;
mod lines;
mod pace;
mod preview;
mod progress;
pub(crate) mod unpack;

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, BusSettings};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use domain::{Event, Refusal, Timestamp};
use event_store::StoreSettings;
use service_kit::Clock;
use tokio::sync::mpsc;
use wire::Format;

use crate::{
    addresses::DatabaseLogin,
    command as flags,
    stop::{Stop, Stopped},
};
use archived::ArchivedBefore;
use input::Line;
use lanes::{Lanes, Pushed};
use lines::{Identifier, NoEvent, TooManyLines};
use pace::Pace;
use progress::PublishBar;

/// Pieces of input that were read and not yet published; each comes from one read.
const PIECES_MAX: usize = 8;
/// How long an interrupted run waits for outstanding acknowledgements.
const INTERRUPTED_FLUSH: Duration = Duration::from_secs(10);

const DRY_RUN: &str = "dry-run";

const FORMATS: [(&str, Format); 2] =
    [(Format::Json.name(), Format::Json), (Format::Bincode.name(), Format::Bincode)];

service_kit::settings! {
    /// Settings of the tool.
    #[derive(Debug)]
    pub(crate) struct Config {
        /// NATS.
        #[settings(BusSettings::table())]
        bus: BusSettings = BusSettings::load_named("lakegauge publish"),
        /// The archive, to count how many of the events it already has.
        #[settings(event_store::service::table())]
        store: Option<StoreSettings> = event_store::service::load_optional("lakegauge-publish"),
        /// Name of the source: part of the subject, and of the ids of events without an id. The
        /// n-th occurrence of a line counts once for each source.
        #[setting(PUBLISH_SOURCE, "source", default = "publish")]
        source: String = parse_by(wire::source_name),
        /// Format of the messages: json (readable) or bincode (smaller and faster).
        #[setting(PUBLISH_FORMAT, "format", default = "json")]
        format: Format = choice(&FORMATS),
        /// Stop at the first line that is refused.
        #[setting(PUBLISH_STRICT, "strict", default = "false")]
        strict: bool = switch,
        /// The most lines without an id that are remembered, to distinguish identical ones: about
        /// 40 bytes of memory each.
        #[setting(PUBLISH_LINES_WITHOUT_ID_MAX, "lines-without-id-max", default = "16000000")]
        lines_without_id_max: usize,
        /// Most events per second, so that an import causes no burst in rates; if it is not set,
        /// events are sent as fast as they are stored.
        #[setting(PUBLISH_RATE, "rate")]
        rate: Option<NonZeroU64> = optional_by(pace::rate),
    }
}

pub(crate) fn command() -> Command {
    let command = Command::new("publish")
        .about("Publish events from a file or standard input, and wait until they are stored")
        .after_help(
            "One JSON object per line (see `lakegauge schema`), plain, gzip or zstd. A line that \
             is no event is\nreported with its number and reason and does not stop the rest.\n\
             If the archive can be read, the last line shows how many events it already had; they \
             count once.\n\
             Exit status: 0 if every line was acknowledged, 1 otherwise, 64 for wrong arguments.\n\
             Example: jq -c -f to-events.jq access.log | lakegauge publish --source edge -",
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value("-")
                .help("File to read; - for standard input"),
        )
        .arg(Arg::new(DRY_RUN).long(DRY_RUN).action(ArgAction::SetTrue).help(
            "Only show what would be published: events, times, buckets, bytes, and lines that are \
             refused, without a connection",
        ));
    flags::of_tool(command, &Config::table())
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let given = flags::ToolArguments::of(matches, &Config::table(), DatabaseLogin::Reader);
    let config = match given.load(Config::load) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let Some(file) = matches.get_one::<PathBuf>("file").cloned() else {
        return ExitCode::from(crate::EXIT_USAGE);
    };
    if matches.get_flag(DRY_RUN) {
        return flags::report(flags::block_on_blocking(move || preview::preview(&config, &file)));
    }
    flags::report(flags::block_on_until_stopped(|stop| publish(config, file, stop)))
}

/// Why reading ended.
#[derive(Debug)]
enum End {
    /// All lines were read.
    Complete,
    /// A line was refused, and `--strict` was given.
    Strict,
    /// A signal came.
    Stopped(Stopped),
}

async fn publish(config: Config, file: PathBuf, mut stop: Stop) -> anyhow::Result<()> {
    // A thread of its own, because opening a named pipe waits for its writer.
    let opening = tokio::task::spawn_blocking(move || open(&file));
    let (raw, bytes) = stop.unless(opening).await???;
    let bus = stop.unless(Bus::connect(&config.bus)).await??;
    let progress = PublishBar::new(bytes);
    let lines = read_in_the_background(progress.count(raw))?;
    let archived = stop.unless(ArchivedBefore::open(&config, &bus, &progress)).await?;
    let mut run = PublishRun::new(&config, bus, archived, &progress);
    let ended = run.lines(lines, &mut stop).await;
    let flushed = run.flush(&ended, &mut stop).await;
    let told = progress.end()?;
    let ended = ended?;
    flushed?;
    if let End::Stopped(stopped) = ended {
        anyhow::bail!("{stopped}; the same can be published again: what is stored counts once");
    }
    told.ensure_none_refused()?;
    anyhow::ensure!(
        told.acknowledged == told.lines,
        "only {} of {} lines were acknowledged",
        told.acknowledged,
        told.lines
    );
    Ok(())
}

/// The input and its size, if it has one.
fn open(path: &Path) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    let about = file.metadata().with_context(|| format!("can't open {}", path.display()))?;
    anyhow::ensure!(!about.is_dir(), "{} is a directory", path.display());
    let bytes = about.is_file().then_some(about.len());
    Ok((Box::new(file), bytes))
}

/// Read by a thread of its own, since reading standard input blocks.
type Pieces = mpsc::Receiver<io::Result<Vec<Line>>>;

fn read_in_the_background(raw: impl Read + Send + 'static) -> anyhow::Result<Pieces> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let read = move || {
        let ended = unpack::unpacked(raw).and_then(|input| {
            input::read_lines(input, |lines| sender.blocking_send(Ok(lines)).is_ok())
        });
        if let Err(error) = ended {
            // The other side may have stopped already.
            drop(sender.blocking_send(Err(error)));
        }
    };
    let thread = std::thread::Builder::new().name("input".to_owned());
    thread.spawn(read).context("no thread to read with")?;
    Ok(receiver)
}

struct PublishRun<'a> {
    strict: bool,
    clock: Clock,
    pace: Option<Pace>,
    identifier: Identifier,
    lanes: Lanes,
    archived: ArchivedBefore<'a>,
    progress: &'a PublishBar,
}

/// A line, judged by itself.
struct ReadLine {
    number: u64,
    event: Result<Event, Refusal>,
}

impl<'a> PublishRun<'a> {
    fn new(
        config: &Config,
        bus: Bus,
        archived: ArchivedBefore<'a>,
        progress: &'a PublishBar,
    ) -> Self {
        let clock = Clock::system();
        Self {
            strict: config.strict,
            pace: config.rate.map(|per_s| Pace::new(per_s, clock.monotonic_ms())),
            clock,
            identifier: Identifier::new(config.source.clone(), config.lines_without_id_max),
            lanes: Lanes::new(bus, &config.bus, &config.source, config.format, progress.counts()),
            archived,
            progress,
        }
    }

    /// Publishes line after line. Messages that are not full are sent when they are due, so that
    /// events of a slow source are visible at once.
    async fn lines(&mut self, mut pieces: Pieces, stop: &mut Stop) -> anyhow::Result<End> {
        loop {
            let now_ms = self.clock.monotonic_ms();
            let wait_ms = self.lanes.poll_timeout().map(|due_ms| due_ms.saturating_sub(now_ms));
            let due = async {
                match wait_ms {
                    Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                stopped = stop.asked() => return Ok(End::Stopped(stopped)),
                piece = pieces.recv() => match piece {
                    None => return Ok(End::Complete),
                    Some(piece) => {
                        let lines = piece.context("the input can't be read")?;
                        match stop.unless(self.piece(lines)).await {
                            Ok(goes_on) => if !goes_on? { return Ok(End::Strict) },
                            Err(stopped) => return Ok(End::Stopped(stopped)),
                        }
                    }
                },
                () = due => {
                    let now_ms = self.clock.monotonic_ms();
                    self.lanes.handle_timeout(now_ms).await?;
                }
            }
        }
    }

    /// Publishes some lines. Returns whether to continue.
    async fn piece(&mut self, lines: Vec<Line>) -> anyhow::Result<bool> {
        let (read, too_many) = self.read(lines);
        // Before they are sent: the archiver may archive them at once.
        self.archived.count(read.iter().filter_map(|line| line.event.as_ref().ok())).await;
        for ReadLine { number, event } in read {
            self.progress.line();
            let pushed = match event {
                Ok(event) => self.push(&event).await?,
                Err(refusal) => Pushed::Refused(refusal),
            };
            if let Pushed::Refused(refusal) = pushed {
                self.progress.refused(number, &refusal);
                if self.strict {
                    return Ok(false);
                }
            }
        }
        too_many.map_or(Ok(true), |error| Err(error.into()))
    }

    /// The events of some lines, up to the first line that can't be remembered.
    fn read(&mut self, lines: Vec<Line>) -> (Vec<ReadLine>, Option<TooManyLines>) {
        let mut read = Vec::with_capacity(lines.len());
        for Line { number, text } in lines {
            let text = text.map_err(NoEvent::Refused);
            let event = match text.and_then(|text| self.identifier.event(&text)) {
                Ok(event) => Ok(event),
                Err(NoEvent::Refused(refusal)) => Err(refusal),
                Err(NoEvent::TooMany(error)) => return (read, Some(error)),
            };
            read.push(ReadLine { number, event });
        }
        (read, None)
    }

    async fn push(&mut self, event: &Event) -> anyhow::Result<Pushed> {
        if let Some(pace) = &mut self.pace {
            let now_ms = self.clock.monotonic_ms();
            let wait_ms = pace.wait_ms(now_ms);
            if wait_ms > 0 {
                // Messages that would become due during the wait are sent now.
                self.lanes.handle_timeout(now_ms.saturating_add(wait_ms)).await?;
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
        }
        let now = Timestamp(self.clock.now_us());
        let now_ms = self.clock.monotonic_ms();
        self.lanes.push(event, now, now_ms).await
    }

    /// Waits for all acknowledgements; after a signal only for a limited time.
    async fn flush(&mut self, ended: &anyhow::Result<End>, stop: &mut Stop) -> anyhow::Result<()> {
        let flushed = self.lanes.flush();
        tokio::pin!(flushed);
        if let Ok(End::Complete | End::Strict) = ended {
            tokio::select! {
                flushed = &mut flushed => return flushed,
                // The counts show what is not acknowledged by then.
                _stopped = stop.asked() => {}
            }
        }
        tokio::time::timeout(INTERRUPTED_FLUSH, flushed).await.unwrap_or(Ok(()))
    }
}
