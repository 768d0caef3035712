//! The output of `up`: permanent lines, and on a terminal one line that is rewritten.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Width of a terminal that does not report it.
const WIDTH_UNKNOWN: usize = 100;

/// How often a long wait reports what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// The same on a terminal, where the line is rewritten.
const TELL_EVERY_LIVE: Duration = Duration::from_secs(1);

/// Texts that may wait for a slow reader of standard output. Further texts are dropped, because the
/// pipeline must not wait for its output.
const TEXTS_MAX: usize = 1_024;
/// How long the last texts wait for their reader.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Standard output of `up`. Clones write to the same output.
#[derive(Clone, Debug)]
pub(crate) struct Console(Arc<Mutex<ConsoleState>>);

#[derive(Debug)]
struct ConsoleState {
    terminal: bool,
    live: String,
    writer: SyncSender<ConsoleLine>,
}

/// A message to the writer.
#[derive(Debug)]
enum ConsoleLine {
    Text(String),
    /// Confirms that everything before it was written.
    Written(SyncSender<()>),
}

impl Console {
    /// The console on standard output, which may be a terminal or not.
    pub(crate) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let (writer, said) = sync_channel(TEXTS_MAX);
        // A thread of its own: writing blocks if the reader of a pipe does not read, and signals
        // and parts must not wait for that.
        std::thread::spawn(move || write(&said));
        Self(Arc::new(Mutex::new(ConsoleState { terminal, live: String::new(), writer })))
    }

    /// Waits until everything was written, but not for long.
    pub(crate) fn flush(&self) {
        let (written, was_written) = sync_channel(1);
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner).writer.clone();
        if writer.try_send(ConsoleLine::Written(written)).is_ok() {
            // A reader that does not read misses the rest.
            was_written.recv_timeout(LAST_WORDS).unwrap_or_default();
        }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).terminal
    }

    /// Writes a permanent line.
    pub(crate) fn say(&self, text: &str) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.live.is_empty() {
            state.write(format!("{text}\n"));
        } else {
            state.write(format!("\r\x1b[K{text}\n{}", state.live));
        }
    }

    /// Rewrites the current line on a terminal; elsewhere writes a normal line.
    pub(crate) fn live(&self, text: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.terminal {
            // One column less, because some terminals wrap after the last column.
            let width = width().saturating_sub(1);
            state.live = text.chars().take(width).collect();
            state.write(format!("\r\x1b[K{}", state.live));
        } else {
            state.write(format!("{text}\n"));
        }
    }

    /// Ends the rewritten line, so that it stays.
    pub(crate) fn settle(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.live.is_empty() {
            state.live.clear();
            state.write("\n".to_owned());
        }
    }
}

impl Console {
    /// Waits for `doing`. If that takes long, reports what it waits for, and the current result of
    /// `why`.
    pub(crate) async fn waiting<T>(
        &self,
        what: &str,
        why: impl Fn() -> String,
        doing: impl Future<Output = T>,
    ) -> T {
        let every = if self.is_terminal() { TELL_EVERY_LIVE } else { TELL_EVERY };
        let mut waited = Duration::ZERO;
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => {
                    self.settle();
                    return done;
                }
                () = tokio::time::sleep(every) => {}
            }
            waited += every;
            let why = why();
            let why = if why.is_empty() { why } else { format!(": {why}") };
            self.live(&format!("  waiting for {what}, {} s{why}", waited.as_secs()));
        }
    }
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(WIDTH_UNKNOWN)
}

impl ConsoleState {
    fn write(&self, text: String) {
        // If the queue is full, nobody reads.
        drop(self.writer.try_send(ConsoleLine::Text(text)));
    }
}

/// Errors are ignored: if nobody reads any more, the pipeline continues without its output.
fn write(said: &Receiver<ConsoleLine>) {
    for said in said {
        match said {
            ConsoleLine::Text(text) => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).unwrap_or_default();
            }
            ConsoleLine::Written(written) => written.send(()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_longer_than_ten_seconds_is_said_with_the_last_error() {
        let console = Console::stdout();
        let every = if console.is_terminal() { TELL_EVERY_LIVE } else { TELL_EVERY };
        assert!(every <= Duration::from_secs(10));
        let asked = Cell::new(0);
        let why = || {
            asked.set(asked.get() + 1);
            "connection refused".to_owned()
        };
        let doing = tokio::time::sleep(every * 3 + every / 2);
        console.waiting("postgres", why, doing).await;
        assert_eq!(asked.get(), 3);
    }
}
