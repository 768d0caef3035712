//! Which faults come when: a pure function of the seed.

use std::time::Duration;

use domain::Side;
use simulator::rng::SeededRng;

use crate::matrix::points::{Needs, POINTS, Point};
use crate::pipeline::Part;
use crate::unreadable;

/// The source of randomness of the schedule; the producer has others of the same seed.
const PURPOSE: u64 = 0;
/// Most unreadable messages on each stream at once: more than a form each.
const UNREADABLE_MAX: usize = 30;
/// Share of the steps with two faults at once.
const TWO_AT_ONCE: f64 = 0.3;

/// A server behind a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The broker.
    Nats,
    /// The database server.
    Postgres,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a service, and another start.
    Kill(Part),
    /// `kill -9` of a service at a fail point, at this passing, and another start.
    KillAt(Point, u64),
    /// `kill -9` of a simulator; another run begins.
    KillSimulator(Side),
    /// `kill -STOP` for longer than every lease, then `kill -CONT`.
    Stop(Part),
    /// A second service beside the first, which is killed meanwhile or not.
    Second(Part, bool),
    /// The first is stopped and cut off, a second takes over, and the first comes back.
    Zombie(Part),
    /// The aggregator is killed, and the pointers to its snapshots are lost.
    LoseSnapshots,
    /// `kill -9` of the broker, and another start.
    KillNats,
    /// The broker is stopped for longer than clients wait.
    StopNats,
    /// The broker's disk is full: its writes fail until it is started again with room.
    FillDisk,
    /// The broker is started again and takes small messages only, then with its usual size.
    SmallPayload,
    /// Immediate shutdown of PostgreSQL, and another start.
    StopPostgres,
    /// All connections are cut once.
    Cut(Server),
    /// All connections are cut, and none is made for a while.
    Refuse(Server),
    /// Everything takes longer.
    Slow(Server),
    /// The server acts, but its answers are lost; then the connections are cut.
    LoseAnswers(Server),
    /// The login of the services is another on the server, and for a while not in their file.
    RotateLogin(Server),
    /// A producer forgets what is not acknowledged, and begins anew.
    CrashProducer,
    /// Messages that no client can read come on every stream, so many on each: the first of this
    /// number, counted through all forms.
    Unreadable(usize, usize),
}

/// What a fault is done to: two at once are done to different targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Part(Part),
    Server(Server),
    Producers,
}

/// Faults that begin together after a wait, and end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Since the end of the step before.
    pub wait: Duration,
    /// One or two.
    pub faults: Vec<Fault>,
    /// How long they last.
    pub hold: Duration,
}

impl Fault {
    /// Its kind, for the summary.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Kill(Part::Aggregator) => "aggregator killed",
            Self::Kill(Part::Archiver) => "archiver killed",
            Self::KillAt(..) => "killed at a fail point",
            Self::KillSimulator(_) => "simulator killed",
            Self::Stop(Part::Aggregator) => "aggregator stopped and continued",
            Self::Stop(Part::Archiver) => "archiver stopped and continued",
            Self::Second(Part::Aggregator, _) => "second aggregator",
            Self::Second(Part::Archiver, _) => "second archiver",
            Self::Zombie(Part::Aggregator) => "aggregator replaced while it was stopped",
            Self::Zombie(Part::Archiver) => "archiver replaced while it was stopped",
            Self::LoseSnapshots => "snapshots lost",
            Self::KillNats => "nats-server killed",
            Self::StopNats => "nats-server stopped and continued",
            Self::FillDisk => "full disk of the broker",
            Self::SmallPayload => "small max_payload",
            Self::StopPostgres => "PostgreSQL shut down immediately",
            Self::Cut(Server::Nats) => "connections to NATS cut",
            Self::Cut(Server::Postgres) => "connections to PostgreSQL cut",
            Self::Refuse(Server::Nats) => "network to NATS down",
            Self::Refuse(Server::Postgres) => "network to PostgreSQL down",
            Self::Slow(Server::Nats) => "network to NATS slow",
            Self::Slow(Server::Postgres) => "network to PostgreSQL slow",
            Self::LoseAnswers(Server::Nats) => "answers of NATS lost",
            Self::LoseAnswers(Server::Postgres) => "answers of PostgreSQL lost",
            Self::RotateLogin(Server::Nats) => "login to NATS rotated",
            Self::RotateLogin(Server::Postgres) => "login to PostgreSQL rotated",
            Self::CrashProducer => "producer crashed",
            Self::Unreadable(..) => "messages that no client can read",
        }
    }

    const fn target(&self) -> Target {
        match self {
            Self::Kill(part) | Self::Stop(part) | Self::Second(part, _) | Self::Zombie(part) => {
                Target::Part(*part)
            }
            Self::KillAt(point, _) => Target::Part(point.part),
            Self::LoseSnapshots => Target::Part(Part::Aggregator),
            Self::KillNats | Self::StopNats | Self::FillDisk | Self::SmallPayload => {
                Target::Server(Server::Nats)
            }
            Self::StopPostgres => Target::Server(Server::Postgres),
            Self::Cut(server)
            | Self::Refuse(server)
            | Self::Slow(server)
            | Self::LoseAnswers(server)
            | Self::RotateLogin(server) => Target::Server(*server),
            Self::KillSimulator(_) | Self::CrashProducer | Self::Unreadable(..) => {
                Target::Producers
            }
        }
    }

    /// Whether it can be one of two: not where it needs the servers, or takes long by itself.
    const fn mixes(&self) -> bool {
        match self {
            Self::Kill(_)
            | Self::KillSimulator(_)
            | Self::Stop(_)
            | Self::KillNats
            | Self::StopNats
            | Self::FillDisk
            | Self::SmallPayload
            | Self::StopPostgres
            | Self::Cut(_)
            | Self::Refuse(_)
            | Self::Slow(_)
            | Self::LoseAnswers(_)
            | Self::CrashProducer => true,
            Self::KillAt(..)
            | Self::Second(..)
            | Self::Zombie(_)
            | Self::LoseSnapshots
            | Self::Unreadable(..) => false,
            // Who is started meanwhile ends with what to do: its first login is wrong.
            Self::RotateLogin(_) => false,
        }
    }

    /// Shortest and longest time that it lasts, in milliseconds.
    const fn lasts_ms(&self) -> (u64, u64) {
        match self {
            // Longer than the server waits for pings, and PostgreSQL for a transaction.
            Self::Stop(_) | Self::Zombie(_) | Self::StopNats => (3_000, 4_000),
            Self::Second(..) | Self::FillDisk | Self::SmallPayload => (1_500, 3_000),
            Self::Refuse(_) | Self::Slow(_) | Self::LoseAnswers(_) | Self::RotateLogin(_) => {
                (500, 2_500)
            }
            Self::Kill(_) | Self::KillNats | Self::StopPostgres | Self::LoseSnapshots => (0, 1_000),
            Self::KillAt(..)
            | Self::KillSimulator(_)
            | Self::Cut(_)
            | Self::CrashProducer
            | Self::Unreadable(..) => (0, 0),
        }
    }
}

/// The schedule of a seed: an endless row of steps, of which a round takes as many as it has time
/// for.
#[derive(Debug)]
pub struct Schedule {
    rng: SeededRng,
    /// All kinds, shuffled: none is met a second time before every other.
    deck: Vec<Fault>,
}

impl Schedule {
    /// The schedule that belongs to this seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: SeededRng::new(seed, PURPOSE), deck: Vec::new() }
    }

    fn deal(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = deck(&mut self.rng);
            for place in (1..self.deck.len()).rev() {
                let other = self.rng.index(place + 1);
                self.deck.swap(place, other);
            }
        }
        self.deck.pop().unwrap_or(Fault::CrashProducer)
    }

    fn companion(&mut self, of: &Fault) -> Option<Fault> {
        if !of.mixes() || !self.rng.chance(TWO_AT_ONCE) {
            return None;
        }
        let fits = |other: &Fault| other.mixes() && other.target() != of.target();
        let place = self.deck.iter().position(fits)?;
        Some(self.deck.swap_remove(place))
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let first = self.deal();
        let second = self.companion(&first);
        let faults: Vec<Fault> = [Some(first), second].into_iter().flatten().collect();
        let lasts = |fault: &Fault, rng: &mut SeededRng| {
            let (shortest, longest) = fault.lasts_ms();
            shortest + rng.below(longest - shortest + 1)
        };
        let hold_ms = faults.iter().map(|fault| lasts(fault, &mut self.rng)).max();
        Some(Step {
            wait: Duration::from_millis(100 + self.rng.below(900)),
            faults,
            hold: Duration::from_millis(hold_ms.unwrap_or(0)),
        })
    }
}

/// One fault of every kind.
fn deck(rng: &mut SeededRng) -> Vec<Fault> {
    let mut deck = vec![
        Fault::LoseSnapshots,
        Fault::KillNats,
        Fault::StopNats,
        Fault::FillDisk,
        Fault::SmallPayload,
        Fault::StopPostgres,
        Fault::CrashProducer,
        Fault::KillSimulator(if rng.chance(0.5) { Side::Lake } else { Side::Warehouse }),
        Fault::Unreadable(rng.index(unreadable::forms().len()), 1 + rng.index(UNREADABLE_MAX)),
    ];
    for part in [Part::Aggregator, Part::Archiver] {
        let second = Fault::Second(part, rng.chance(0.5));
        deck.extend([Fault::Kill(part), Fault::Stop(part), second, Fault::Zombie(part)]);
    }
    for server in [Server::Nats, Server::Postgres] {
        deck.extend([Fault::Cut(server), Fault::Refuse(server), Fault::Slow(server)]);
        deck.extend([Fault::LoseAnswers(server), Fault::RotateLogin(server)]);
    }
    let loaded: Vec<&Point> = POINTS.iter().filter(|point| point.needs == Needs::Load).collect();
    for _ in 0..2 {
        if let Some(point) = loaded.get(rng.index(loaded.len())) {
            deck.push(Fault::KillAt(**point, 1 + rng.below(point.passings_max)));
        }
    }
    deck
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn steps(seed: u64, count: usize) -> Vec<Step> {
        Schedule::new(seed).take(count).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        assert_eq!(steps(7, 100), steps(7, 100));
        assert_ne!(steps(7, 100), steps(8, 100));
    }

    #[test]
    fn every_kind_comes_before_any_comes_again() {
        let kinds =
            deck(&mut SeededRng::new(0, 0)).iter().map(Fault::kind).collect::<BTreeSet<_>>();
        let mut schedule = Schedule::new(3);
        let mut met = BTreeSet::new();
        let mut faults = 0;
        while faults < kinds.len() + 1 {
            for fault in schedule.next().unwrap().faults {
                faults += 1;
                met.insert(fault.kind());
            }
        }
        assert_eq!(met, kinds);
    }

    #[test]
    fn two_faults_at_once_have_two_targets() {
        let pairs: Vec<Step> =
            Schedule::new(1).take(500).filter(|step| step.faults.len() == 2).collect();
        assert!(pairs.len() > 30);
        for step in pairs {
            assert_ne!(step.faults[0].target(), step.faults[1].target(), "{step:?}");
        }
    }
}
