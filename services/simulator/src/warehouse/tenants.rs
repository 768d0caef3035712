//! Who queries the warehouse: a few tenants run most of the queries, and they mostly repeat earlier
//! ones.

use crate::{
    lake::push_hex,
    rng::{Choice, SeededRng, length, to_f64, to_u64},
};

/// Shares of all queries by ranks of tenants: the first and last rank of each group, its share, and
/// how fast the share falls with the rank inside the group. In Redset (200 provisioned clusters)
/// the top 1, 5, 10 and 20 have 13.6, 36.0, 50.8 and 69.7 %. The falls are chosen so that the Gini
/// coefficient is 0.83 (measured: 0.84).
const GROUPS: &[(u32, u32, f64, f64)] = &[
    (1, 1, 0.136, 0.0),
    (2, 5, 0.224, 0.12),
    (6, 10, 0.148, 0.06),
    (11, 20, 0.189, 0.05),
    (21, 200, 0.303, 0.045),
];
/// Number of tenants that were measured, which is also the most that are simulated.
pub const TENANTS_MAX: u32 = 200;
/// Number of statement shapes that a tenant may repeat.
const SHAPES_KEPT: u64 = 64;
/// Share of a tenant's queries that repeat an earlier one. On half of the clusters it is 80 % or
/// more (van Renen et al. 2024). The ends are guesses.
const REPEAT_MIN: f64 = 0.5;
const REPEAT_MEDIAN: f64 = 0.8;
const REPEAT_MAX: f64 = 0.98;
/// Most principals of a tenant.
const PRINCIPALS_MAX: u64 = 6;

/// One cluster or virtual warehouse and its users.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    pub(crate) warehouse: String,
    pub(crate) database: String,
    principals: Vec<String>,
    /// Share of the tenant's queries that repeat an earlier one.
    pub(crate) repeat_share: f64,
    /// Number of statement shapes so far.
    shapes: u64,
}

impl Tenant {
    fn new(rank: u32, repeat_share: f64, rng: &mut SeededRng) -> Self {
        let principals = 1 + rng.below(PRINCIPALS_MAX);
        Self {
            warehouse: format!("wh-{rank:03}"),
            database: format!("db-{:02}", rank % 40),
            principals: (0..principals).map(|n| format!("wh-{rank:03}-user-{n}")).collect(),
            repeat_share,
            shapes: 0,
        }
    }

    /// The principal of a session.
    pub(crate) fn principal(&self, session: u32) -> &str {
        let place = u64::from(session) % length(&self.principals);
        &self.principals[usize::try_from(place).unwrap_or(0)]
    }

    /// The shape of the tenant's next statement, and whether it repeats an earlier one.
    pub(crate) fn statement(&mut self, rng: &mut SeededRng) -> (String, bool) {
        let repeats = self.shapes > 0 && rng.chance(self.repeat_share);
        let number = if repeats {
            let kept = self.shapes.min(SHAPES_KEPT);
            self.shapes - 1 - rng.below(kept)
        } else {
            self.shapes += 1;
            self.shapes - 1
        };
        (self.fingerprint(number), repeats)
    }

    /// Sixteen hexadecimal digits that differ between tenants and numbers.
    fn fingerprint(&self, number: u64) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in self.warehouse.bytes().chain(number.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        let mut text = String::with_capacity(16);
        push_hex(&mut text, hash, 16);
        text
    }
}

/// All tenants, the busiest first.
#[derive(Clone, Debug)]
pub(crate) struct Tenants {
    all: Vec<Tenant>,
    choice: Choice,
    repeat_share: f64,
}

impl Tenants {
    /// The `number` busiest tenants of the measured fleet.
    pub(crate) fn new(number: u32, rng: &mut SeededRng) -> Self {
        let number = number.clamp(1, TENANTS_MAX);
        let weights: Vec<f64> = (1..=number).map(weight).collect();
        let all: Vec<Tenant> = (1..=number)
            .map(|rank| {
                // Values are spread evenly over the ranks, so that a share does not depend on
                // chance.
                let u = (f64::from(rank) * 0.618_033_988_75).fract();
                Tenant::new(rank, repeat_share(u), rng)
            })
            .collect();
        let sum: f64 = weights.iter().sum();
        let repeats: f64 =
            all.iter().zip(&weights).map(|(tenant, weight)| tenant.repeat_share * weight).sum();
        Self { choice: Choice::new(&weights), repeat_share: repeats / sum, all }
    }

    /// Share of all queries that repeat an earlier one.
    pub(crate) const fn repeat_share(&self) -> f64 {
        self.repeat_share
    }

    /// A random tenant, as frequent as its share.
    pub(crate) fn pick(&mut self, rng: &mut SeededRng) -> &mut Tenant {
        let place = self.choice.pick(rng);
        &mut self.all[place]
    }

    /// A tenant of middle rank: as a noisy tenant it makes a visible change.
    pub(crate) fn middle(&mut self) -> &mut Tenant {
        let place = to_u64(to_f64(length(&self.all)) * 0.3);
        &mut self.all[usize::try_from(place).unwrap_or(0)]
    }
}

/// Share of all queries of the tenant with this rank, from 1.
fn weight(rank: u32) -> f64 {
    for (first, last, share, fall) in GROUPS {
        if (*first..=*last).contains(&rank) {
            let part = |rank: u32| (-fall * f64::from(rank - first)).exp();
            return share * part(rank) / (*first..=*last).map(part).sum::<f64>();
        }
    }
    0.0
}

/// The share of repetitions below which the share `u` of all tenants lies.
fn repeat_share(u: f64) -> f64 {
    if u < 0.5 {
        REPEAT_MIN + (REPEAT_MEDIAN - REPEAT_MIN) * 2.0 * u
    } else {
        REPEAT_MEDIAN + (REPEAT_MAX - REPEAT_MEDIAN) * 2.0 * (u - 0.5)
    }
}
