//! `lakegauge publish`: events from a file or standard input, every acknowledgement awaited.

mod input;
mod lanes;
mod lines;
mod progress;
pub(crate) mod unpack;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, BusSettings};
use clap::{Arg, ArgMatches, Command, value_parser};
use domain::Timestamp;
use service_kit::{Clock, Settings};
use tokio::sync::mpsc;
use wire::Format;

use crate::{
    addresses::DatabaseLogin,
    command as flags,
    stop::{Stop, Stopped},
};
use input::Line;
use lanes::Lanes;
use lines::{Identifier, NoEvent};
use progress::PublishBar;

/// Pieces of input that were read and not yet published: each is what one read gave.
const PIECES_MAX: usize = 8;
/// How long an interrupted run waits for the acknowledgements of what it has sent.
const INTERRUPTED_FLUSH: Duration = Duration::from_secs(10);

const FORMATS: [(&str, Format); 2] =
    [(Format::Json.name(), Format::Json), (Format::Bincode.name(), Format::Bincode)];

service_kit::settings! {
    /// What the tool is told.
    #[derive(Debug)]
    pub(crate) struct Config {
        /// NATS.
        #[settings(BusSettings::table())]
        bus: BusSettings = connection(),
        /// Name of the source: part of the subject, and of the ids of events that have none. The same
        /// line of the same source, at the same of its occurrences, counts once.
        #[setting(PUBLISH_SOURCE, "source", default = "publish")]
        source: String = text,
        /// Form of the messages: json (readable) or bincode (smaller and faster).
        #[setting(PUBLISH_FORMAT, "format", default = "json")]
        format: Format = choice(&FORMATS),
        /// Stop at the first line that is refused.
        #[setting(PUBLISH_STRICT, "strict", default = "false")]
        strict: bool = switch,
        /// Lines without an id that are remembered, to tell identical ones apart: about 40 bytes of
        /// memory each.
        #[setting(PUBLISH_LINES_WITHOUT_ID_MAX, "lines-without-id-max", default = "16000000")]
        lines_without_id_max: usize,
    }
}

fn connection(settings: &mut Settings<'_>) -> Option<BusSettings> {
    Some(bus::service::load("lakegauge publish", settings)?.settings)
}

pub(crate) fn command() -> Command {
    let command = Command::new("publish")
        .about("Publish events from a file or standard input, and wait until they are stored")
        .after_help(
            "One JSON object a line (see `lakegauge schema`), plain, gzip or zstd. A line that is \
             no event is\nreported with its number and reason and does not stop the rest.\n\
             Exit status: 0 if every line was acknowledged, 1 otherwise, 64 for wrong arguments.\n\
             Example: jq -c -f to-events.jq access.log | lakegauge publish --source edge -",
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value("-")
                .help("File to read; - for standard input"),
        );
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
    flags::report(flags::block_on_until_stopped(|stop| publish(config, file, stop)))
}

/// Why no more lines are read.
#[derive(Debug)]
enum End {
    /// Every line was.
    Complete,
    /// A line was refused, and `--strict` was given.
    Strict,
    /// A signal.
    Stopped(Stopped),
}

async fn publish(config: Config, file: PathBuf, mut stop: Stop) -> anyhow::Result<()> {
    // Apart: to open a named pipe is to wait for who writes into it.
    let opening = tokio::task::spawn_blocking(move || open(&file));
    let (raw, bytes) = stop.unless(opening).await???;
    let bus = stop.unless(Bus::connect(&config.bus)).await??;
    let progress = PublishBar::new(bytes);
    let lines = read_in_the_background(progress.count(raw))?;
    let mut run = PublishRun::new(&config, bus, &progress);
    let ended = run.lines(lines, &mut stop).await;
    let flushed = run.flush(&ended, &mut stop).await;
    let told = progress.end()?;
    let ended = ended?;
    flushed?;
    if let End::Stopped(stopped) = ended {
        anyhow::bail!("{stopped}; the same can be published again: what is stored counts once");
    }
    anyhow::ensure!(told.refused == 0, "{} of {} lines were refused", told.refused, told.lines);
    anyhow::ensure!(
        told.acknowledged == told.lines,
        "only {} of {} lines were acknowledged",
        told.acknowledged,
        told.lines
    );
    Ok(())
}

/// The input and its size, where it has one.
fn open(path: &PathBuf) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    let about = file.metadata().with_context(|| format!("can't open {}", path.display()))?;
    anyhow::ensure!(!about.is_dir(), "{} is a directory", path.display());
    let bytes = about.is_file().then_some(about.len());
    Ok((Box::new(file), bytes))
}

/// What a thread of its own reads, since standard input can only be waited for by blocking.
type Pieces = mpsc::Receiver<io::Result<Vec<Line>>>;

fn read_in_the_background(raw: impl Read + Send + 'static) -> anyhow::Result<Pieces> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let read = move || {
        let ended = unpack::unpacked(raw).and_then(|input| {
            input::read_lines(input, |lines| sender.blocking_send(Ok(lines)).is_ok())
        });
        if let Err(error) = ended {
            // Nobody to tell when the other side has stopped already.
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
    identifier: Identifier,
    lanes: Lanes,
    progress: &'a PublishBar,
}

impl<'a> PublishRun<'a> {
    fn new(config: &Config, bus: Bus, progress: &'a PublishBar) -> Self {
        Self {
            strict: config.strict,
            clock: Clock::system(),
            identifier: Identifier::new(config.source.clone(), config.lines_without_id_max),
            lanes: Lanes::new(bus, &config.bus, &config.source, config.format, progress.counts()),
            progress,
        }
    }

    /// Publishes line after line. What is not yet full is sent when it is due, so that a slow source
    /// is seen at once.
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

    /// Publishes some lines; says whether to go on.
    async fn piece(&mut self, lines: Vec<Line>) -> anyhow::Result<bool> {
        for line in lines {
            self.progress.line();
            if let Err(refusal) = self.line(&line).await? {
                self.progress.refused(line.number, &refusal);
                if self.strict {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn line(&mut self, line: &Line) -> anyhow::Result<Result<(), domain::Refusal>> {
        let text = match &line.text {
            Ok(text) => text,
            Err(refusal) => return Ok(Err(refusal.clone())),
        };
        let event = match self.identifier.event(text) {
            Ok(event) => event,
            Err(NoEvent::Refused(refusal)) => return Ok(Err(refusal)),
            Err(NoEvent::TooMany(error)) => return Err(error.into()),
        };
        let now = Timestamp(self.clock.now_us());
        let now_ms = self.clock.monotonic_ms();
        self.lanes.push(&event, now, now_ms).await
    }

    /// Waits for the acknowledgement of everything that was sent, for a while only if somebody wants
    /// to go.
    async fn flush(&mut self, ended: &anyhow::Result<End>, stop: &mut Stop) -> anyhow::Result<()> {
        let flushed = self.lanes.flush();
        tokio::pin!(flushed);
        if let Ok(End::Complete | End::Strict) = ended {
            tokio::select! {
                flushed = &mut flushed => return flushed,
                // What is not acknowledged by then is in the counts.
                _stopped = stop.asked() => {}
            }
        }
        tokio::time::timeout(INTERRUPTED_FLUSH, flushed).await.unwrap_or(Ok(()))
    }
}
