//! The source of the metrics port's responses: the states of both sides, once they have caught up.

use std::fmt;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use domain::{Side, SideMetrics};
use service_kit::{Readiness, http};
use tokio::sync::watch;

use crate::{
    exposition,
    lease::Lease,
    page::{Figures, LakeFigures, WarehouseFigures},
    shared_fold::SharedFold,
};

/// The states that may be shown. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ExposedState {
    exposed: Arc<Mutex<Exposed>>,
    /// Notified when a state is shown or hidden.
    changed: watch::Sender<()>,
    /// How long the holder of the lease may be without the broker before its numbers are stale.
    stale_after: Duration,
}

#[derive(Debug, Default)]
struct Exposed {
    lake: Option<SharedFold>,
    warehouse: Option<SharedFold>,
    /// `None` if another process has the lease, and counts.
    lease: Option<Lease>,
}

/// Numbers that do not move, because the counting process has not reached the broker for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// How long ago the broker was last reached.
    pub(crate) age: Duration,
    /// The longest time that is allowed.
    stale_after: Duration,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stale: NATS was last reached {} s ago, and later events are not in these numbers; \
             they are shown again once it is reached (AGGREGATOR_STALE_AFTER_MS: {})",
            self.age.as_secs(),
            self.stale_after.as_millis()
        )
    }
}

impl ExposedState {
    /// Shows nothing yet. Numbers are stale after `stale_after`.
    pub(crate) fn new(stale_after: Duration) -> Self {
        Self { exposed: Arc::default(), changed: watch::Sender::new(()), stale_after }
    }

    /// Sets who counts: this process, for as long as the lease is renewed, or another one.
    pub(crate) fn counted_under(&self, lease: Option<Lease>) {
        self.exposed().lease = lease;
    }

    /// Notified when a state is shown or hidden.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether another process counts, or none counts yet.
    pub(crate) fn is_counted_elsewhere(&self) -> bool {
        self.exposed().lease.is_none()
    }

    /// Whether the shown numbers are stale.
    pub(crate) fn stale(&self) -> Option<Stale> {
        let age = Duration::from_millis(self.exposed().lease.as_ref()?.age_ms());
        let stale_after = self.stale_after;
        (age >= stale_after).then_some(Stale { age, stale_after })
    }

    /// Shows the state of a side; `None` while it is being recovered.
    pub(crate) fn show(&self, side: Side, state: Option<SharedFold>) {
        match side {
            Side::Lake => self.exposed().lake = state,
            Side::Warehouse => self.exposed().warehouse = state,
        }
        // Without a receiver the service is ending.
        self.changed.send_replace(());
    }

    /// Whether both sides are shown.
    pub(crate) fn is_complete(&self) -> bool {
        self.both().is_some()
    }

    /// The routes `/metrics`, `/readyz` and `/livez`. An aggregator on standby has no metrics. That
    /// is no failure: a scrape of it succeeds, and is empty.
    pub(crate) fn routes(self, readiness: Readiness) -> Router {
        Router::new()
            .route("/livez", get("ok\n"))
            .route(
                "/readyz",
                get(|State(exposed): State<Self>| ready(exposed.may_be_shown().map(|()| "ok\n"))),
            )
            .route(
                "/metrics",
                get(move |State(exposed): State<Self>| {
                    let text = exposed.text().or_else(|not_shown| {
                        if readiness.is_standby() {
                            Ok(STANDS_BY.to_owned())
                        } else {
                            Err(not_shown)
                        }
                    });
                    ready(text.map(http::metrics))
                }),
            )
            .with_state(self)
    }

    /// An error, which is the response, as long as the numbers may not be shown.
    fn may_be_shown(&self) -> Result<(), NotShown> {
        if !self.is_complete() {
            return Err(not_yet());
        }
        self.stale()
            .map_or(Ok(()), |stale| Err((StatusCode::SERVICE_UNAVAILABLE, format!("{stale}\n"))))
    }

    /// The metrics. A fold waits while its own values are copied, not while they are written.
    fn text(&self) -> Result<String, NotShown> {
        self.may_be_shown()?;
        let (lake, warehouse) = self.both().ok_or_else(not_yet)?;
        let mut families = match lake.lock().state().metrics() {
            SideMetrics::Lake(lake) => exposition::lake_families(lake),
            SideMetrics::Warehouse(_) => return Err(not_yet()),
        };
        families.extend(match warehouse.lock().state().metrics() {
            SideMetrics::Warehouse(warehouse) => exposition::warehouse_families(warehouse),
            SideMetrics::Lake(_) => return Err(not_yet()),
        });
        Ok(exposition::encode(families))
    }

    /// The sums that the page shows; `None` until both sides are shown, or while they are stale.
    pub(crate) fn figures(&self) -> Option<Figures> {
        if self.stale().is_some() {
            return None;
        }
        let (lake, warehouse) = self.both()?;
        let lake = match lake.lock().state().metrics() {
            SideMetrics::Lake(lake) => LakeFigures::of(lake),
            SideMetrics::Warehouse(_) => return None,
        };
        let warehouse = match warehouse.lock().state().metrics() {
            SideMetrics::Warehouse(warehouse) => WarehouseFigures::of(warehouse),
            SideMetrics::Lake(_) => return None,
        };
        Some(Figures { lake, warehouse })
    }

    fn both(&self) -> Option<(SharedFold, SharedFold)> {
        let exposed = self.exposed();
        Some((exposed.lake.clone()?, exposed.warehouse.clone()?))
    }

    fn exposed(&self) -> MutexGuard<'_, Exposed> {
        self.exposed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics of an aggregator that waits for its partition; `/readyz` of the admin port names the
/// owner.
const STANDS_BY: &str = "# Standing by: another aggregator counts, and shows the metrics.\n";

/// 503 with the reason.
type NotShown = (StatusCode, String);

fn not_yet() -> NotShown {
    let why = "catching up: counters that began at 0 would show a burst that never happened\n";
    (StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
}

#[cfg(test)]
mod tests {
    use domain::{Mark, Rules, Stream, StreamState};
    use service_kit::Clock;

    use super::*;
    use crate::{ask::ask, fold::StreamFold};

    const STALE_AFTER: Duration = Duration::from_secs(30);

    fn shared(stream: Stream) -> SharedFold {
        let mark = Mark { epoch: 1, sequence: 0, broker_ns: 0, created_ns: 0 };
        SharedFold::new(StreamFold::new(StreamState::new(stream, Rules::default()), mark))
    }

    async fn status(exposed: &ExposedState, path: &str) -> u16 {
        ask(exposed.clone().routes(Readiness::default()), path).await.0
    }

    #[tokio::test]
    async fn a_scrape_of_one_that_stands_by_is_empty_and_no_failure() {
        let (exposed, readiness) = (ExposedState::new(STALE_AFTER), Readiness::default());
        let scraped = async || {
            let (status, _, page) =
                ask(exposed.clone().routes(readiness.clone()), "/metrics").await;
            (status, page.contains("Standing by"))
        };
        let owner = readiness.condition("owner");
        owner.fail("asking who owns the partition");
        assert_eq!(scraped().await, (503, false));
        owner.stand_by("waiting for another");
        assert_eq!(scraped().await, (200, true));
        let ready = ask(exposed.clone().routes(readiness.clone()), "/readyz").await;
        assert_eq!(ready.0, 503, "who asks for the numbers goes to the other");
        owner.pass("ours");
        assert_eq!(scraped().await, (503, false), "it catches up");
    }

    #[tokio::test]
    async fn nothing_is_shown_until_both_sides_have_caught_up() {
        let exposed = ExposedState::new(STALE_AFTER);
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/readyz").await),
            (503, 503)
        );
        exposed.show(Side::Lake, Some(shared(Stream::lake(0))));
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/readyz").await),
            (503, 503)
        );
        exposed.show(Side::Warehouse, Some(shared(Stream::warehouse(0))));
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/readyz").await),
            (200, 200)
        );
        exposed.show(Side::Lake, None);
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/livez").await),
            (503, 200)
        );
    }

    #[tokio::test]
    async fn numbers_whose_owner_does_not_reach_the_broker_are_not_ready_until_it_does() {
        let (exposed, clock) = (ExposedState::new(STALE_AFTER), Clock::manual(0));
        exposed.show(Side::Lake, Some(shared(Stream::lake(0))));
        exposed.show(Side::Warehouse, Some(shared(Stream::warehouse(0))));
        let lease = Lease::new(clock.clone(), 3_000, 0);
        exposed.counted_under(Some(lease.clone()));
        clock.advance(STALE_AFTER - Duration::from_millis(1));
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/readyz").await),
            (200, 200)
        );
        assert!(exposed.figures().is_some());
        clock.advance(Duration::from_millis(1));
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/readyz").await),
            (503, 503)
        );
        assert_eq!(status(&exposed, "/livez").await, 200);
        assert!(exposed.figures().is_none(), "the page would show them as live");
        let said = exposed.stale().unwrap().to_string();
        assert!(said.contains("last reached 30 s ago"), "{said}");
        lease.renew(clock.monotonic_ms());
        assert_eq!(
            (status(&exposed, "/metrics").await, status(&exposed, "/readyz").await),
            (200, 200)
        );
        clock.advance(STALE_AFTER);
        exposed.counted_under(None);
        assert_eq!(exposed.stale(), None, "another owner's are not ours to judge");
    }
}
