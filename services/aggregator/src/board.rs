//! What the metrics port answers from: the states of both sides, once they have caught up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Metrics, Side};
use service_kit::http::{Answer, Asked};

use crate::{
    exposition,
    follow::Shared,
    page::{Figures, LakeFigures, WarehouseFigures},
};

/// The states that may be shown. Clones are the same board.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    lake: Option<Shared>,
    warehouse: Option<Shared>,
}

impl Board {
    /// Shows the state of a side, or nothing while it is being found.
    pub(crate) fn show(&self, side: Side, state: Option<Shared>) {
        let mut shown = self.shown();
        match side {
            Side::Lake => shown.lake = state,
            Side::Warehouse => shown.warehouse = state,
        }
    }

    /// Whether both sides are shown.
    pub(crate) fn is_complete(&self) -> bool {
        let shown = self.shown();
        shown.lake.is_some() && shown.warehouse.is_some()
    }

    /// Answers `/metrics`, `/readyz` and `/livez`.
    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        match asked.path.as_str() {
            "/livez" => Answer::ok("ok\n"),
            "/readyz" if self.is_complete() => Answer::ok("ok\n"),
            "/metrics" => self.text().map_or_else(not_yet, Answer::metrics),
            "/readyz" => not_yet(),
            _ => Answer::not_found(),
        }
    }

    /// The metrics. A fold waits while its own values are copied, not while they are written.
    fn text(&self) -> Option<String> {
        let (lake, warehouse) = self.both()?;
        let mut families = match lake.lock().state().metrics() {
            Metrics::Lake(lake) => exposition::lake_families(lake),
            Metrics::Warehouse(_) => return None,
        };
        families.extend(match warehouse.lock().state().metrics() {
            Metrics::Warehouse(warehouse) => exposition::warehouse_families(warehouse),
            Metrics::Lake(_) => return None,
        });
        Some(exposition::encode(families))
    }

    /// The sums that the page shows; none until both sides are shown.
    pub(crate) fn figures(&self) -> Option<Figures> {
        let (lake, warehouse) = self.both()?;
        let lake = match lake.lock().state().metrics() {
            Metrics::Lake(lake) => LakeFigures::of(lake),
            Metrics::Warehouse(_) => return None,
        };
        let warehouse = match warehouse.lock().state().metrics() {
            Metrics::Warehouse(warehouse) => WarehouseFigures::of(warehouse),
            Metrics::Lake(_) => return None,
        };
        Some(Figures { lake, warehouse })
    }

    fn both(&self) -> Option<(Shared, Shared)> {
        let shown = self.shown();
        Some((shown.lake.clone()?, shown.warehouse.clone()?))
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_yet() -> Answer {
    Answer::unavailable("catching up: counters that began at 0 would show a burst that never was\n")
}

#[cfg(test)]
mod tests {
    use domain::{Mark, Rules, Stream, StreamState};

    use super::*;
    use crate::fold::StreamFold;

    fn shared(stream: Stream) -> Shared {
        let mark = Mark { epoch: 1, sequence: 0, broker_ns: 0, created_ns: 0 };
        Shared::new(StreamFold::new(StreamState::new(stream, Rules::default()), mark))
    }

    fn status(board: &Board, path: &str) -> u16 {
        board.answer(&Asked { path: path.to_owned(), query: String::new() }).status
    }

    #[test]
    fn nothing_is_shown_until_both_sides_have_caught_up() {
        let board = Board::default();
        assert_eq!((status(&board, "/metrics"), status(&board, "/readyz")), (503, 503));
        board.show(Side::Lake, Some(shared(Stream::lake(0))));
        assert_eq!((status(&board, "/metrics"), status(&board, "/readyz")), (503, 503));
        board.show(Side::Warehouse, Some(shared(Stream::warehouse(0))));
        assert_eq!((status(&board, "/metrics"), status(&board, "/readyz")), (200, 200));
        board.show(Side::Lake, None);
        assert_eq!((status(&board, "/metrics"), status(&board, "/livez")), (503, 200));
    }
}
