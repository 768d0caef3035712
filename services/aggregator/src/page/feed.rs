//! Collects what the page shows, once a second, whatever the number of viewers.

use std::sync::Arc;
use std::time::Duration;

use bus::status::ServiceStatus;
use domain::Stream;
use service_kit::{Clock, Readiness};
use tokio::sync::watch;

use super::{
    Page, Shown,
    figures::Recent,
    history::SharedHistory,
    now::{self, HealthFacts},
};
use crate::{
    config::Links,
    exposed_state::ExposedState,
    health::{HealthNumbers, LiveHealth},
    roster::{Moment, PipelineView, Roster},
};

/// Time between two updates. People see no finer steps, and an update costs less than a scrape.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where the page's numbers come from.
#[derive(Debug)]
pub(crate) struct PageFeed {
    /// The states that may be shown.
    pub(crate) exposed: ExposedState,
    /// The last hour.
    pub(crate) history: SharedHistory,
    /// The streams that are counted, and their health.
    pub(crate) streams: [(Stream, LiveHealth); 2],
    /// The conditions of this process.
    pub(crate) readiness: Readiness,
    /// The reports of the other services; `None` if a replay is counted, which is not part of the
    /// pipeline.
    pub(crate) roster: Option<Roster>,
    /// The name of this process.
    pub(crate) name: ServiceStatus,
    /// The clock for timestamps and ages.
    pub(crate) clock: Clock,
    /// Other addresses for people.
    pub(crate) links: Links,
}

impl PageFeed {
    /// A page, and the future that keeps it up to date for as long as it is polled.
    pub(crate) fn start(self) -> (Page, impl Future<Output = ()> + Send) {
        let mut recent = Recent::default();
        let (sender, receiver) = watch::channel(Arc::new(self.look(&mut recent, None)));
        let looking = async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let before = Arc::clone(&sender.borrow());
                let shown = self.look(&mut recent, Some(&before));
                sender.send_replace(Arc::new(shown));
            }
        };
        (Page::new(receiver), looking)
    }

    fn look(&self, recent: &mut Recent, before: Option<&Shown>) -> Shown {
        let (now_us, now_ms) = (self.clock.now_us(), self.clock.monotonic_ms());
        // Taken before the figures, so that these contain every event up to the positions.
        let streams: Vec<_> =
            self.streams.iter().map(|(stream, health)| (*stream, health.look())).collect();
        let figures = self.exposed.figures();
        match &figures {
            Some(figures) => recent.push(now_ms, figures),
            // The state that is shown next may be another one.
            None => recent.clear(),
        }
        let condition = HealthFacts {
            parts: self.readiness.parts(),
            stale: self.exposed.stale().map(|stale| stale.age),
            pipeline: self.pipeline(now_ms, now_us, streams.clone()),
            streams,
        };
        let shown = figures.as_ref().map(|figures| (figures, &*recent));
        let now = now::write(now_us, now_ms, &self.links, condition, shown);
        let (history, history_revision) = self.history(before);
        Shown { is_ready: figures.is_some(), now, history, history_revision }
    }

    fn pipeline(
        &self,
        now_ms: u64,
        now_us: i64,
        streams: Vec<(Stream, HealthNumbers)>,
    ) -> PipelineView {
        let Some(roster) = &self.roster else { return PipelineView::default() };
        roster.look(&Moment {
            now_ms,
            wall_ms: now_us / 1_000,
            own: self.name.clone().now(&self.readiness),
            streams,
        })
    }

    /// The history, encoded again only if it has changed.
    fn history(&self, before: Option<&Shown>) -> (Arc<str>, u64) {
        let history = self.history.lock();
        let revision = history.revision();
        match before.filter(|before| before.history_revision == revision) {
            Some(before) => (Arc::clone(&before.history), revision),
            None => (history.to_json().into(), revision),
        }
    }
}
