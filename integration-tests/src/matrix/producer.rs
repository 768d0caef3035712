//! The test's own producer: events of both sides at a rate, with everything that producers do wrong.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bus::{Bus, Publisher, PublisherLimits};
use bytes::Bytes;
use domain::{
    Event, EventId, EventIdentity, Fact, LakeAccess, Operation, Outcome, Run, Side, Timestamp,
    WarehouseQuery,
};
use service_kit::Clock;
use simulator::rng::SeededRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use wire::{Format, Sealed, Subjects, seal};

use crate::matrix::ledger::Ledger;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(10);
/// Events in a message: as many as the product's producers pack.
const MESSAGE_EVENTS: usize = 100;
/// Longest that a producer that was away makes up for: it does not flood what has just come back.
const CATCH_UP_MAX: Duration = Duration::from_millis(500);
/// Messages and events that are remembered, to be sent again.
const REMEMBERED_MAX: usize = 256;
/// For the last acknowledgements, with every fault healed.
const FLUSH_MAX: Duration = Duration::from_secs(120);
/// Distinct keys of a lake, few enough for overwrites and deletes of what exists.
const KEYS: u64 = 5_000;
const BUCKETS: u64 = 8;
const WAREHOUSES: u64 = 5;

/// Shares of what goes wrong: of messages, or of events.
const JSON_MESSAGES: f64 = 0.02;
const POISON_MESSAGES: f64 = 0.002;
const SENT_TWICE_MESSAGES: f64 = 0.01;
const HELD_BACK_MESSAGES: f64 = 0.02;
const REPEATED_EVENTS: f64 = 0.01;
const LATE_EVENTS: f64 = 0.01;
const DERIVED_EVENTS: f64 = 0.05;

/// A running producer.
#[derive(Debug)]
pub struct Producer {
    orders: watch::Sender<Orders>,
    sides: JoinSet<Result<()>>,
    /// What was sent and acknowledged.
    pub ledger: Ledger,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Orders {
    stop: bool,
    /// Raised to make it forget what is not acknowledged, as a crash would.
    crashes: u32,
}

impl Producer {
    /// Starts to publish `rate` events per second, a quarter of them queries of the warehouse.
    pub fn start(bus: &Bus, seed: u64, rate: u64) -> Self {
        let ledger = Ledger::default();
        let orders = watch::Sender::new(Orders::default());
        let mut sides = JoinSet::new();
        for (side, rate) in [(Side::Lake, rate - rate / 4), (Side::Warehouse, rate / 4)] {
            let maker = Maker::new(side, seed);
            let shell =
                Shell { bus: bus.clone(), ledger: ledger.clone(), maker, rate, held: Vec::new() };
            sides.spawn(shell.run(orders.subscribe()));
        }
        Self { orders, sides, ledger }
    }

    /// Ends its publishers and begins anew, as another run: what they had not confirmed may be
    /// stored or not.
    pub fn crash(&self) {
        self.orders.send_modify(|orders| orders.crashes += 1);
    }

    /// Stops, and waits until everything that was sent since the last crash is acknowledged.
    ///
    /// # Errors
    ///
    /// Something can't be published, or is not acknowledged in time.
    pub async fn finish(mut self) -> Result<Ledger> {
        self.orders.send_modify(|orders| orders.stop = true);
        while let Some(ended) = self.sides.join_next().await {
            ended.context("the producer panicked")?.context("the producer")?;
        }
        Ok(self.ledger)
    }
}

/// Publishes what a [`Maker`] makes, in time.
struct Shell {
    bus: Bus,
    ledger: Ledger,
    maker: Maker,
    rate: u64,
    /// Messages that are sent later than they should, with the time at which they are.
    held: Vec<(Duration, Sealed)>,
}

impl Shell {
    async fn run(mut self, mut orders: watch::Receiver<Orders>) -> Result<()> {
        let clock = Clock::system();
        let mut publisher = self.publisher();
        let mut before = clock.monotonic();
        let mut due_events = 0.0;
        let mut crashes = 0;
        loop {
            tokio::time::sleep(TICK).await;
            let now = *orders.borrow_and_update();
            if now.stop {
                break;
            }
            if now.crashes != crashes {
                crashes = now.crashes;
                publisher = self.publisher();
                self.held.clear();
                self.maker.begin_run();
            }
            let at = clock.monotonic();
            let passed = at.saturating_sub(before).min(CATCH_UP_MAX);
            before = at;
            due_events += passed.as_secs_f64() * f64::from(u32::try_from(self.rate)?);
            while due_events >= 1.0 {
                // A stop or a crash does not wait for a broker that is away.
                let made = self.maker.message(clock.now_us());
                due_events -= f64::from(u32::try_from(made.sealed.events)?);
                tokio::select! {
                    sent = self.send(&publisher, made, at) => sent?,
                    _changed = orders.changed() => break,
                }
            }
            self.send_held(&publisher, at).await?;
        }
        self.send_held(&publisher, Duration::MAX).await?;
        tokio::time::timeout(FLUSH_MAX, publisher.flush())
            .await
            .context("the last messages were not acknowledged")??;
        Ok(())
    }

    fn publisher(&self) -> Publisher {
        let ledger = self.ledger.clone();
        let limits = PublisherLimits {
            retry_backoff_max: Duration::from_millis(200),
            ..PublisherLimits::default()
        };
        self.bus.publisher(limits, move |acknowledged| {
            let sealed = acknowledged.sealed;
            ledger.acknowledge(&sealed.message_id, &sealed.payload);
        })
    }

    async fn send(&mut self, publisher: &Publisher, made: Made, at: Duration) -> Result<()> {
        match made.identities {
            Some(identities) => self.ledger.attempt(&made.sealed.message_id, &identities),
            None => self.ledger.attempt_poison(&made.sealed.payload),
        }
        let events = u64::try_from(made.sealed.events).unwrap_or(0);
        self.ledger.note(|disorder| {
            disorder.duplicates += made.repeated;
            disorder.late += made.late;
            disorder.reordered += if made.held_ms.is_some() { events } else { 0 };
        });
        if let Some(held_ms) = made.held_ms {
            self.held.push((at.saturating_add(Duration::from_millis(held_ms)), made.sealed));
            return Ok(());
        }
        publisher.publish(made.sealed).await?;
        Ok(())
    }

    async fn send_held(&mut self, publisher: &Publisher, at: Duration) -> Result<()> {
        let (due, held) =
            std::mem::take(&mut self.held).into_iter().partition(|(due, _)| *due <= at);
        self.held = held;
        for (_, sealed) in due {
            publisher.publish(sealed).await?;
        }
        Ok(())
    }
}

/// A message and what is wrong with it.
struct Made {
    sealed: Sealed,
    /// Nothing: poison.
    identities: Option<Arc<[EventIdentity]>>,
    /// For how long it is held back.
    held_ms: Option<u64>,
    repeated: u64,
    late: u64,
}

/// Makes messages: everything but the time follows from the seed.
struct Maker {
    side: Side,
    rng: SeededRng,
    subject: String,
    run: Run,
    runs: u32,
    number: u64,
    poison: u64,
    messages: VecDeque<(Sealed, Arc<[EventIdentity]>)>,
    events: VecDeque<Event>,
}

impl Maker {
    fn new(side: Side, seed: u64) -> Self {
        let (purpose, subject) = match side {
            Side::Lake => (1, Subjects::default().lake_access(0, "matrix")),
            Side::Warehouse => (2, Subjects::default().warehouse_query(0, "matrix")),
        };
        let mut maker = Self {
            side,
            rng: SeededRng::new(seed, purpose),
            subject,
            run: Run::new(0, 0),
            runs: 0,
            number: 0,
            poison: 0,
            messages: VecDeque::new(),
            events: VecDeque::new(),
        };
        maker.begin_run();
        maker
    }

    fn begin_run(&mut self) {
        self.runs += 1;
        self.number = 0;
        // Far from the runs of simulators, which begin in our days.
        let start_ms = u64::from(self.runs) * 2 + if self.side == Side::Lake { 0 } else { 1 };
        self.run = Run::new(start_ms, self.runs);
    }

    fn message(&mut self, now_us: i64) -> Made {
        if self.rng.chance(POISON_MESSAGES) {
            return self.poison();
        }
        if self.rng.chance(SENT_TWICE_MESSAGES) && !self.messages.is_empty() {
            return self.twice();
        }
        let (mut late, mut repeated) = (0, 0);
        let mut events = Vec::with_capacity(MESSAGE_EVENTS);
        while events.len() < MESSAGE_EVENTS {
            if self.rng.chance(REPEATED_EVENTS) && !self.events.is_empty() {
                let place = self.rng.index(self.events.len());
                events.extend(self.events.get(place).cloned());
                repeated += 1;
                continue;
            }
            let is_late = self.rng.chance(LATE_EVENTS);
            late += u64::from(is_late);
            let event = self.event(now_us, is_late);
            if self.rng.chance(REPEATED_EVENTS) {
                remember(&mut self.events, event.clone());
            }
            events.push(event);
        }
        let format = if self.rng.chance(JSON_MESSAGES) { Format::Json } else { Format::Bincode };
        let sealed = seal(&self.subject, format, &events);
        let identities: Arc<[EventIdentity]> = events.iter().map(Event::identity).collect();
        remember(&mut self.messages, (sealed.clone(), Arc::clone(&identities)));
        let held_ms = self.rng.chance(HELD_BACK_MESSAGES).then(|| 20 + self.rng.below(1_000));
        Made { sealed, identities: Some(identities), held_ms, repeated, late }
    }

    /// The same bytes under another id: the broker stores them again.
    fn twice(&mut self) -> Made {
        let place = self.rng.index(self.messages.len());
        let (mut sealed, identities) = self.messages[place].clone();
        sealed.message_id = format!("{}-{}", sealed.message_id, self.rng.below(u64::MAX));
        let repeated = u64::try_from(identities.len()).unwrap_or(0);
        Made { sealed, identities: Some(identities), held_ms: None, repeated, late: 0 }
    }

    /// Bytes that no decoder takes, each time others.
    fn poison(&mut self) -> Made {
        self.poison += 1;
        let (run, number) = (self.run, self.poison);
        let (content_type, payload) = match self.rng.below(3) {
            0 => {
                let mut bytes = vec![0xff; 8];
                bytes.extend_from_slice(format!("{run} {number}").as_bytes());
                (Format::Bincode.content_type(), Bytes::from(bytes))
            }
            1 => (Format::Json.content_type(), format!("no JSON {run} {number}").into()),
            _ => {
                let line =
                    format!("{{\"type\":\"lake.access\",\"bytes\":-1,\"key\":\"{run} {number}\"}}");
                (Format::Json.content_type(), line.into())
            }
        };
        let sealed = Sealed::new(self.subject.clone(), content_type, payload, 1);
        Made { sealed, identities: None, held_ms: None, repeated: 0, late: 0 }
    }

    fn event(&mut self, now_us: i64, is_late: bool) -> Event {
        let late_us = if is_late { 1_000_000 + self.rng.below(600_000_000) } else { 0 };
        let before_us = i64::try_from(late_us + self.rng.below(5_000)).unwrap_or(0);
        let id = if self.rng.chance(DERIVED_EVENTS) {
            self.derived()
        } else {
            self.number += 1;
            EventId::sequenced(self.run, self.number - 1)
        };
        let fact = match self.side {
            Side::Lake => self.access(),
            Side::Warehouse => self.query(),
        };
        Event { id, occurred_at: Timestamp(now_us - before_us), fact }
    }

    fn derived(&mut self) -> EventId {
        let mut bytes = [0; 16];
        let (high, low) = bytes.split_at_mut(8);
        high.copy_from_slice(&self.rng.below(u64::MAX).to_be_bytes());
        low.copy_from_slice(&self.rng.below(u64::MAX).to_be_bytes());
        // Version 5 and the usual variant, as a natural key gives.
        bytes[6] = bytes[6] & 0x0f | 0x50;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        EventId::from_bytes(bytes)
    }

    fn access(&mut self) -> Fact {
        let operation = match self.rng.below(10) {
            0..4 => Operation::Write,
            4 => Operation::Delete,
            5 => Operation::Copy,
            6 => Operation::List,
            _ => Operation::Read,
        };
        let bytes = self.rng.below(1 << 24);
        Fact::LakeAccess(LakeAccess {
            bucket: format!("bucket-{}", self.rng.below(BUCKETS)),
            key: format!("matrix/{}", self.rng.below(KEYS)),
            operation,
            bytes,
            object_bytes: self.rng.chance(0.5).then_some(bytes / 2),
            duration_us: self.rng.below(1_000_000),
            outcome: if self.rng.chance(0.05) { Outcome::Timeout } else { Outcome::Ok },
            principal: "matrix".to_owned(),
            ..test_support::lake_access()
        })
    }

    fn query(&mut self) -> Fact {
        Fact::WarehouseQuery(WarehouseQuery {
            warehouse: format!("warehouse-{}", self.rng.below(WAREHOUSES)),
            queued_us: self.rng.below(10_000),
            executed_us: self.rng.below(1_000_000),
            rows_processed: self.rng.below(100_000),
            rows_returned: self.rng.below(1_000),
            bytes_scanned: self.rng.below(1 << 30),
            cache_hit: self.rng.chance(0.1),
            principal: "matrix".to_owned(),
            ..test_support::warehouse_query()
        })
    }
}

/// Keeps the last ones.
fn remember<T>(kept: &mut VecDeque<T>, one: T) {
    if kept.len() == REMEMBERED_MAX {
        kept.pop_front();
    }
    kept.push_back(one);
}
