//! The lease of a partition: one aggregator counts the partition, others wait and report the owner.
//!
//! The holder renews an entry in the broker by compare-and-set. A waiting aggregator takes the
//! lease over when the entry has not changed for the lease's length, by its own clock, so no two
//! clocks are compared. If a holder was suspended for longer, its next renewal is refused; until it
//! has renewed, it stores no snapshot and publishes no sample. A sample or snapshot that slips
//! through does no harm: samples of one position have the same values, and a new owner claims the
//! snapshots before it counts, after which nobody else can store one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, BusError, Claim, LeaseEntry, Leases};
use service_kit::{Clock, readiness::Condition};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::metrics::LeaseMetrics;

/// Renewals in one lease: two may fail before another aggregator takes over.
const RENEWALS_PER_LEASE: u32 = 3;

/// When a waiting aggregator may take a lease over. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Takeover {
    lease_ms: u64,
    /// The revision seen last, and when it was first seen.
    seen: Option<(u64, u64)>,
}

impl Takeover {
    /// A takeover after this many milliseconds without a change.
    pub(crate) const fn new(lease_ms: u64) -> Self {
        Self { lease_ms, seen: None }
    }

    /// Whether the process with this token may take the lease, given the entry as it was read at
    /// `now_ms`.
    pub(crate) fn may_take(&mut self, now_ms: u64, entry: &LeaseEntry, token: &str) -> bool {
        let is_free =
            entry.claim.as_ref().is_none_or(|claim| claim.is_released || claim.token == token);
        match self.seen {
            _ if is_free => true,
            Some((revision, since_ms)) if revision == entry.revision => {
                now_ms.saturating_sub(since_ms) >= self.lease_ms
            }
            Some(_) | None => {
                self.seen = Some((entry.revision, now_ms));
                false
            }
        }
    }

    /// Records that the broker did not answer. Perhaps the holder could not renew either, so the
    /// wait begins anew.
    pub(crate) fn lost_sight(&mut self) {
        self.seen = None;
    }
}

/// The time in which this process owns a partition. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    lease_ms: u64,
    /// When the last successful renewal was requested.
    renewed_ms: AtomicU64,
    renewed: Notify,
    /// Cancelled when another process owns the partition.
    lost: CancellationToken,
}

impl Lease {
    pub(crate) fn new(clock: Clock, lease_ms: u64, asked_ms: u64) -> Self {
        Self(Arc::new(Inner {
            clock,
            lease_ms,
            renewed_ms: AtomicU64::new(asked_ms),
            renewed: Notify::new(),
            lost: CancellationToken::new(),
        }))
    }

    /// Whether nobody else can own the partition yet.
    pub(crate) fn is_current(&self) -> bool {
        !self.is_lost() && self.age_ms() < self.0.lease_ms
    }

    /// How long ago the last successful renewal was requested, in milliseconds.
    pub(crate) fn age_ms(&self) -> u64 {
        self.0.clock.monotonic_ms().saturating_sub(self.renewed_ms())
    }

    /// Whether another process owns the partition.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.is_cancelled()
    }

    /// Waits until it is certain whether this process owns the partition. Returns whether it does.
    pub(crate) async fn is_confirmed(&self) -> bool {
        loop {
            let renewed = self.0.renewed.notified();
            if self.is_current() {
                return true;
            }
            tokio::select! {
                () = self.0.lost.cancelled() => return false,
                () = renewed => {}
            }
        }
    }

    pub(crate) fn renew(&self, asked_ms: u64) {
        self.0.renewed_ms.store(asked_ms, Ordering::Relaxed);
        self.0.renewed.notify_waiters();
    }

    fn renewed_ms(&self) -> u64 {
        self.0.renewed_ms.load(Ordering::Relaxed)
    }
}

/// Acquires the lease of a partition, renews it and gives it back.
#[derive(Debug)]
pub(crate) struct LeaseHolder {
    leases: Leases,
    /// The name of the lease.
    thing: String,
    claim: Claim,
    /// The revision of the entry as it was last read or written.
    revision: u64,
    /// How long the holder may be silent before it loses the lease.
    length: Duration,
    clock: Clock,
    condition: Condition,
    metrics: LeaseMetrics,
}

/// How holding a partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The partition is still ours, and must be given back.
    Kept,
    /// Another process owns the partition.
    Lost,
}

impl LeaseHolder {
    /// A holder without a lease yet. `claim` describes this process, `length` is how long the
    /// holder may be silent.
    pub(crate) fn new(
        bus: &Bus,
        thing: String,
        claim: Claim,
        length: Duration,
        clock: Clock,
        condition: Condition,
        metrics: LeaseMetrics,
    ) -> Self {
        Self { leases: bus.leases(), thing, claim, revision: 0, length, clock, condition, metrics }
    }

    /// Waits until this process owns the partition, and reports the current owner. `None` if the
    /// service drains first.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct.
    pub(crate) async fn acquire(
        &mut self,
        drain: &CancellationToken,
    ) -> anyhow::Result<Option<Lease>> {
        self.metrics.observe_owner(false);
        let mut takeover = Takeover::new(self.lease_ms());
        let mut waits_for = None;
        loop {
            let asked_ms = self.clock.monotonic_ms();
            match self.attempt(&mut takeover, asked_ms).await {
                Ok(None) => {
                    self.condition.pass(format!("this process owns {}", self.thing));
                    self.metrics.observe_owner(true);
                    tracing::info!(thing = self.thing, "this process owns the partition");
                    let lease = Lease::new(self.clock.clone(), self.lease_ms(), asked_ms);
                    return Ok(Some(lease));
                }
                Ok(Some(holder)) => {
                    self.condition.stand_by(format!(
                        "waiting for {holder}, which owns {}; taken over when it is silent for {} \
                         ms",
                        self.thing,
                        self.lease_ms()
                    ));
                    if waits_for.as_ref() != Some(&holder) {
                        tracing::warn!(thing = self.thing, holder, "waiting for the owner");
                        waits_for = Some(holder);
                    }
                }
                Err(error) if error.is_transient() => {
                    takeover.lost_sight();
                    self.condition
                        .fail(format!("the owner of {} is not known: {error}", self.thing));
                }
                Err(error) => return Err(error).context("owning the partition"),
            }
            tokio::select! {
                () = drain.cancelled() => return Ok(None),
                () = tokio::time::sleep(self.interval()) => {}
            }
        }
    }

    /// Takes the partition if that is allowed now. Otherwise returns its owner; `None` means that
    /// the partition is ours.
    async fn attempt(
        &mut self,
        takeover: &mut Takeover,
        now_ms: u64,
    ) -> Result<Option<String>, BusError> {
        let entry = self.leases.get(&self.thing).await?;
        if takeover.may_take(now_ms, &entry, &self.claim.token) {
            self.revision = entry.revision;
            match self.set(false).await {
                Ok(()) => return Ok(None),
                // Another process was faster. The wait for it begins when its entry is first read.
                Err(BusError::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(entry.claim.map_or_else(|| "another".to_owned(), |claim| claim.holder)))
    }

    /// Renews until `stop` is cancelled, or until another process owns the partition, and then
    /// cancels `term`.
    ///
    /// # Errors
    ///
    /// Errors that only a person can correct; `term` is cancelled then too.
    pub(crate) async fn hold(
        &mut self,
        lease: &Lease,
        term: &CancellationToken,
        stop: &CancellationToken,
    ) -> anyhow::Result<Held> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(Held::Kept),
                () = tokio::time::sleep(self.interval()) => {}
            }
            let asked_ms = self.clock.monotonic_ms();
            match self.renew().await {
                Ok(None) => {
                    lease.renew(asked_ms);
                    self.condition.pass(format!("this process owns {}", self.thing));
                }
                Ok(Some(holder)) => {
                    lease.0.lost.cancel();
                    term.cancel();
                    self.metrics.observe_lost();
                    tracing::error!(
                        thing = self.thing,
                        holder,
                        "another process took the partition"
                    );
                    return Ok(Held::Lost);
                }
                Err(error) if error.is_transient() => {
                    if !lease.is_current() {
                        self.condition.fail(format!(
                            "owning {} could not be renewed in time, so samples and snapshots \
                             wait: {error}",
                            self.thing
                        ));
                    }
                    tracing::warn!(thing = self.thing, %error, "the lease is not renewed yet");
                }
                Err(error) => {
                    lease.0.lost.cancel();
                    term.cancel();
                    return Err(error).context("keeping the partition");
                }
            }
        }
    }

    /// Renews the lease. Returns the owner if that is another process.
    async fn renew(&mut self) -> Result<Option<String>, BusError> {
        loop {
            match self.set(false).await {
                Ok(()) => return Ok(None),
                Err(BusError::Superseded { .. }) => {}
                Err(error) => return Err(error),
            }
            // The lease is still ours if the bucket was created again or is an older copy of
            // itself.
            let entry = self.leases.get(&self.thing).await?;
            match entry.claim {
                Some(claim) if claim.token != self.claim.token && !claim.is_released => {
                    return Ok(Some(claim.holder));
                }
                Some(_) | None => self.revision = entry.revision,
            }
        }
    }

    /// Gives the partition back, so that the next owner need not wait. If this fails, the lease
    /// expires.
    pub(crate) async fn release(&mut self) {
        if let Err(error) = self.set(true).await {
            tracing::warn!(thing = self.thing, %error, "the partition could not be given back");
        }
        self.metrics.observe_owner(false);
    }

    async fn set(&mut self, is_released: bool) -> Result<(), BusError> {
        self.claim.beat += 1;
        self.claim.is_released = is_released;
        self.revision = self.leases.set(&self.thing, &self.claim, self.revision).await?;
        Ok(())
    }

    fn interval(&self) -> Duration {
        self.length / RENEWALS_PER_LEASE
    }

    fn lease_ms(&self) -> u64 {
        u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(token: &str, revision: u64, is_released: bool) -> LeaseEntry {
        let (holder, token) = ("a machine".to_owned(), token.to_owned());
        LeaseEntry { claim: Some(Claim { holder, token, beat: 1, is_released }), revision }
    }

    #[test]
    fn an_owner_is_replaced_once_it_was_silent_for_the_lease_by_our_clock() {
        let mut takeover = Takeover::new(1_000);
        assert!(!takeover.may_take(5_000, &owner("other", 7, false), "ours"));
        assert!(!takeover.may_take(5_999, &owner("other", 7, false), "ours"));
        assert!(takeover.may_take(6_000, &owner("other", 7, false), "ours"));
        let mut takeover = Takeover::new(1_000);
        assert!(!takeover.may_take(5_000, &owner("other", 7, false), "ours"));
        assert!(!takeover.may_take(5_900, &owner("other", 8, false), "ours"), "it renewed");
        assert!(!takeover.may_take(6_800, &owner("other", 8, false), "ours"));
        assert!(takeover.may_take(6_900, &owner("other", 8, false), "ours"));
    }

    #[test]
    fn what_nobody_has_or_was_given_back_is_taken_at_once() {
        let mut takeover = Takeover::new(1_000);
        assert!(takeover.may_take(0, &LeaseEntry::default(), "ours"));
        assert!(takeover.may_take(0, &owner("other", 7, true), "ours"));
        assert!(takeover.may_take(0, &owner("ours", 7, false), "ours"));
    }

    #[test]
    fn time_in_which_the_broker_was_silent_says_nothing_of_the_owner() {
        let mut takeover = Takeover::new(1_000);
        assert!(!takeover.may_take(0, &owner("other", 7, false), "ours"));
        takeover.lost_sight();
        assert!(!takeover.may_take(2_000, &owner("other", 7, false), "ours"));
        assert!(takeover.may_take(3_000, &owner("other", 7, false), "ours"));
    }

    #[tokio::test]
    async fn an_owner_that_slept_longer_than_its_lease_is_certain_of_nothing_until_it_renews() {
        let clock = Clock::manual(0);
        let lease = Lease::new(clock.clone(), 1_000, 0);
        assert!(lease.is_current() && lease.is_confirmed().await);
        clock.advance(Duration::from_secs(1));
        assert!(!lease.is_current());
        let waits = tokio::spawn({
            let lease = lease.clone();
            async move { lease.is_confirmed().await }
        });
        tokio::task::yield_now().await;
        lease.renew(1_000);
        assert!(waits.await.unwrap());
        clock.advance(Duration::from_secs(1));
        lease.0.lost.cancel();
        assert!(!lease.is_confirmed().await);
    }
}
