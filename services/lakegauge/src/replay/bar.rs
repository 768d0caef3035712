//! The progress bar of a replay or a verification.

use std::io::IsTerminal as _;
use std::time::Duration;

use ::replay::ReplayProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use crate::said::PublishNotice;

/// How often the counts are read.
const LOOK: Duration = Duration::from_millis(200);

/// A bar on a terminal, until it is dropped; elsewhere a line for each new step.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    _task: AbortOnDropHandle<()>,
}

impl Bar {
    /// Shows this progress. Must be called within a runtime.
    pub(crate) fn new(progress: &ReplayProgress) -> Self {
        let bar = ProgressBar::no_length();
        let is_terminal = std::io::stderr().is_terminal();
        if !is_terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let looking = look(bar.clone(), progress.clone(), is_terminal);
        Self { bar, _task: AbortOnDropHandle::new(tokio::spawn(looking)) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const BOUNDED: &str =
    "{msg} {bar:30} {human_pos}/{human_len} events, {per_sec}, {elapsed}, {eta} to go";
const UNBOUNDED: &str = "{spinner} {msg}, {human_pos} events, {per_sec}, {elapsed}";

async fn look(bar: ProgressBar, progress: ReplayProgress, is_terminal: bool) {
    let (mut doing, mut is_bounded) = (String::new(), false);
    let mut said = PublishNotice::default();
    loop {
        if let Some(news) = said.news(progress.trouble()) {
            bar.suspend(|| eprintln!("{news}"));
        }
        let now = progress.doing();
        let (done, total) = progress.events();
        if now != doing && !is_terminal {
            eprintln!("{now}");
        }
        if now != doing || is_bounded != (total > 0) {
            is_bounded = total > 0;
            let template = if is_bounded { BOUNDED } else { UNBOUNDED };
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.reset();
            bar.set_message(now.clone());
            doing = now;
        }
        if total > 0 {
            bar.set_length(total);
        }
        bar.set_position(done);
        tokio::time::sleep(LOOK).await;
    }
}
