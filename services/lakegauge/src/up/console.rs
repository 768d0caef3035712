//! What `up` says: lines that stay, and on a terminal one that is rewritten.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Width of a terminal that does not tell.
const WIDTH_UNKNOWN: usize = 100;

/// Standard output of `up`; clones write to the same.
#[derive(Clone, Debug)]
pub(crate) struct Console(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    terminal: bool,
    live: String,
}

impl Console {
    /// Standard output, whether it is a terminal or not.
    pub(crate) fn stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self(Arc::new(Mutex::new(State { terminal, live: String::new() })))
    }

    /// Whether somebody is looking.
    pub(crate) fn is_terminal(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).terminal
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.live.is_empty() {
            write(&format!("{text}\n"));
        } else {
            write(&format!("\r\x1b[K{text}\n{}", state.live));
        }
    }

    /// The line that is rewritten; elsewhere than on a terminal it is a line like any other.
    pub(crate) fn live(&self, text: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.terminal {
            // One column less: some terminals wrap when the last is written.
            let width = width().saturating_sub(1);
            state.live = text.chars().take(width).collect();
            write(&format!("\r\x1b[K{}", state.live));
        } else {
            write(&format!("{text}\n"));
        }
    }

    /// Leaves the rewritten line where it is.
    pub(crate) fn settle(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.live.is_empty() {
            state.live.clear();
            write("\n");
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

/// When nobody reads any more the pipeline goes on: it is not there for its output.
fn write(text: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).unwrap_or_default();
}
