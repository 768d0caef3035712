//! The terminal: keys in, screens out, readings in the background.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Config,
    readings::Readings,
    screen::{self, LISTS, Over, View},
    source::Probe,
};
use crate::stop::Stop;

/// How long a key is awaited before the next look for new readings.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Shortest time between two readings that can be chosen.
const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// Longest time between two readings that can be chosen.
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);

/// Time between two checks whether the terminal still exists: SIGHUP is not always sent.
const TERMINAL_CHECK: Duration = Duration::from_millis(500);
/// How long the screen may take to end. Far above the wait for a key; a thread that waits for keys
/// of a terminal that is gone never ends.
const SCREEN_END_MAX: Duration = Duration::from_secs(1);

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAction {
    Nothing,
    Look,
    Quit,
}

/// Shows the screen until it is quit.
///
/// # Errors
///
/// Standard output is no terminal, or the terminal fails.
pub(super) async fn run(config: Config, mut stop: Stop) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::io::stdout().is_terminal(),
        "standard output is no terminal: use --once for a plain table"
    );
    let mut hang_up = signal(SignalKind::hangup())?;
    let (readings, shown) = watch::channel(None);
    let (interval, asked) = watch::channel(config.interval);
    let _looking = AbortOnDropHandle::new(tokio::spawn(look(Probe::new(&config), readings, asked)));
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let mut screen = tokio::task::spawn_blocking(move || {
        // Also restores the terminal after a panic.
        let mut terminal = ratatui::try_init().context("the terminal can't be taken over")?;
        let shown = show(&mut terminal, shown, &interval, &end);
        ratatui::try_restore().context("the terminal can't be given back")?;
        shown
    });
    tokio::select! {
        shown = &mut screen => return shown?,
        _stopped = stop.asked() => {}
        _ = hang_up.recv() => {}
        () = terminal_gone() => {}
    }
    ended.store(true, Ordering::Relaxed);
    // A thread that doesn't end is ended with the process.
    tokio::time::timeout(SCREEN_END_MAX, screen).await.unwrap_or(Ok(Ok(())))?
}

/// Waits until the terminal is gone.
async fn terminal_gone() {
    while rustix::termios::tcgetattr(std::io::stdout()).is_ok() {
        tokio::time::sleep(TERMINAL_CHECK).await;
    }
}

async fn look(
    mut source: Probe,
    readings: watch::Sender<Option<Readings>>,
    mut interval: watch::Receiver<Duration>,
) {
    loop {
        readings.send_replace(Some(source.look().await));
        let wait = *interval.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = interval.changed() => if changed.is_err() { return },
        }
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut readings: watch::Receiver<Option<Readings>>,
    interval: &watch::Sender<Duration>,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    let mut view = View { interval: *interval.borrow(), ..View::default() };
    let mut is_old = true;
    while !ended.load(Ordering::Relaxed) {
        if readings.has_changed().unwrap_or(false) || is_old {
            let readings = readings.borrow_and_update();
            terminal.draw(|frame| screen::draw(frame, readings.as_ref(), &view))?;
        }
        is_old = event::poll(KEY_WAIT)?;
        if !is_old {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        match press(&mut view, key) {
            KeyAction::Nothing => {}
            KeyAction::Look => drop(interval.send_replace(view.interval)),
            KeyAction::Quit => return Ok(()),
        }
    }
    Ok(())
}

/// Changes the view as the key demands; returns what else is to be done.
fn press(view: &mut View, key: KeyEvent) -> KeyAction {
    if key.kind == KeyEventKind::Release {
        return KeyAction::Nothing;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return KeyAction::Quit;
    }
    if let Over::Interval(typed) = &mut view.over {
        if let KeyCode::Char(c) = key.code {
            typed.extend(Some(c).filter(|c| c.is_ascii_digit() || *c == '.'));
            return KeyAction::Nothing;
        }
        if key.code == KeyCode::Backspace {
            typed.pop();
            return KeyAction::Nothing;
        }
        let seconds = if key.code == KeyCode::Enter { typed.parse::<f64>().ok() } else { None };
        view.over = Over::Nothing;
        let chosen = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        if let Some(chosen) = chosen {
            view.interval = chosen.clamp(INTERVAL_MIN, INTERVAL_MAX);
            return KeyAction::Look;
        }
        return KeyAction::Nothing;
    }
    if view.over == Over::Help {
        view.over = Over::Nothing;
        return KeyAction::Nothing;
    }
    let list = view.list;
    if key.code == KeyCode::Char('q') || key.code == KeyCode::Esc {
        return KeyAction::Quit;
    } else if key.code == KeyCode::Char('h') || key.code == KeyCode::Char('?') {
        view.over = Over::Help;
    } else if key.code == KeyCode::Char('s') || key.code == KeyCode::Char('d') {
        view.over = Over::Interval(String::new());
    } else if key.code == KeyCode::Char(' ') {
        return KeyAction::Look;
    } else if key.code == KeyCode::Tab || key.code == KeyCode::Right {
        view.list = (list + 1) % LISTS;
    } else if key.code == KeyCode::BackTab || key.code == KeyCode::Left {
        view.list = (list + LISTS - 1) % LISTS;
    } else if key.code == KeyCode::Down {
        /// The longest list has one line more.
        const SCROLLED_MAX: usize = 19;
        view.scrolled[list] = (view.scrolled[list] + 1).min(SCROLLED_MAX);
    } else if key.code == KeyCode::Up {
        view.scrolled[list] = view.scrolled[list].saturating_sub(1);
    }
    KeyAction::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press_all(view: &mut View, codes: &[KeyCode]) -> KeyAction {
        let press = |_, code: &KeyCode| press(view, KeyEvent::new(*code, KeyModifiers::NONE));
        codes.iter().fold(KeyAction::Nothing, press)
    }

    #[test]
    fn keys_do_as_in_top() {
        let mut view = View { interval: Duration::from_secs(2), ..View::default() };
        assert_eq!(press_all(&mut view, &[KeyCode::Char('h')]), KeyAction::Nothing);
        assert_eq!(view.over, Over::Help);
        press_all(&mut view, &[KeyCode::Char('q')]);
        assert_eq!(view.over, Over::Nothing, "any key closes the help");
        let asked = [
            KeyCode::Char('s'),
            KeyCode::Char('1'),
            KeyCode::Char('x'),
            KeyCode::Char('.'),
            KeyCode::Char('5'),
            KeyCode::Enter,
        ];
        assert_eq!(press_all(&mut view, &asked), KeyAction::Look);
        assert_eq!(view.interval, Duration::from_millis(1_500));
        press_all(&mut view, &[KeyCode::Char('d'), KeyCode::Char('0'), KeyCode::Enter]);
        assert_eq!(view.interval, INTERVAL_MIN);
        press_all(&mut view, &[KeyCode::Char('d'), KeyCode::Char('9'), KeyCode::Esc]);
        assert_eq!(view.interval, INTERVAL_MIN, "escaped");
        press_all(&mut view, &[KeyCode::Tab, KeyCode::Down, KeyCode::Down, KeyCode::Up]);
        assert_eq!((view.list, view.scrolled), (1, [0, 1, 0]));
        press_all(&mut view, &[KeyCode::Left, KeyCode::Left, KeyCode::Up]);
        assert_eq!((view.list, view.scrolled), (2, [0, 1, 0]));
        assert_eq!(press_all(&mut view, &[KeyCode::Char(' ')]), KeyAction::Look);
        assert_eq!(press_all(&mut view, &[KeyCode::Char('q')]), KeyAction::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(press(&mut view, interrupt), KeyAction::Quit);
    }
}
