//! Checks that fold(archive) = live, on request of an operator.
//!
//! Everything is read from one repeatable-read transaction, so the check works beside live traffic.
//! The rows of each stream are folded up to the position of the aggregator's snapshot, and the
//! result is compared with the snapshot to the bit. Then the fold continues to the end of the
//! archive; on the way each sample is compared with the fold at its position. Finally every window
//! aggregate is compared with its rows.

mod difference;
mod reference;
mod report;
mod samples;
mod stream;
mod windows;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use bus::Bus;
use domain::{Rules, Side, Stream};
use event_store::{ArchiveView, StoreSettings};

use crate::ReplayProgress;
use reference::References;
pub use reference::Snapshot;
pub use report::{Report, SideReport, StreamReport};

/// What the archive is compared with.
#[derive(Debug)]
pub enum Against {
    /// The snapshots of the aggregators on this bus.
    Bus(Box<Bus>),
    /// Snapshots that were stored in files.
    Snapshots(Vec<Snapshot>),
    /// Nothing: only the archive is checked, for this reason.
    Nothing(String),
}

/// What to verify.
#[derive(Debug)]
pub struct Verify {
    /// The archive.
    pub store: StoreSettings,
    /// What the archive is compared with.
    pub against: Against,
    /// The rules for streams whose rules are not stored anywhere.
    pub rules: Rules,
    /// Longest wait until the archive has reached a snapshot.
    pub reach_timeout: Duration,
}

/// Verifies the archive. Differences are in the report; nothing is changed.
///
/// # Errors
///
/// Bus or archive cannot be read, or the archive does not reach the snapshot in time.
pub async fn verify(what: &Verify, progress: &ReplayProgress) -> anyhow::Result<Report> {
    progress.begin("waiting for the archive", 0);
    let references = References::find(what).await?;
    references.wait_for_archive(&what.store, what.reach_timeout).await?;
    // Any stream would do: the view is needed to list the streams.
    let mut view = ArchiveView::open(&what.store, Stream::lake(0)).await?;
    let mut streams = view.streams().await?;
    streams.sort_unstable();
    let mut report = Report::default();
    let mut sides: BTreeMap<Side, SideReport> = BTreeMap::new();
    for stream in streams {
        let (reference, rules, notes) = references.of(stream);
        report.not_compared.extend(notes);
        view = view.turn_to(stream).await?;
        let of_stream = stream::verify(&mut view, rules, reference, progress).await;
        report.streams.push(of_stream.with_context(|| format!("stream {stream}"))?);
        let side = sides.entry(stream.side).or_insert_with(|| SideReport::of(stream.side));
        windows::verify(&mut view, side, progress).await?;
    }
    report.sides = sides.into_values().collect();
    report.finish();
    Ok(report)
}
