//! Randomness as an argument: a seeded generator and the distributions that are drawn from it.
//!
//! The same seed gives the same draws on every run. Logarithms and powers come from the platform,
//! so another C library may round the last bit of a size differently.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// 2^-53: the distance between two numbers of [`SeededRng::unit`].
const UNIT_STEP: f64 = 1.0 / 9_007_199_254_740_992.0;

/// A seeded source of randomness.
#[derive(Clone, Debug)]
pub struct SeededRng(ChaCha8Rng);

impl SeededRng {
    /// The generator of a seed. Each `purpose` gives an independent generator, so that one more
    /// draw in one part of a model does not change the other parts.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(purpose);
        Self(generator)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        to_f64(self.0.next_u64() >> 11) * UNIT_STEP
    }

    /// Returns `true` with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A whole number below `bound`, which is not 0. Uniform up to 2^-64 of bias.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// An index into a slice of this length, which is not 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or(0)
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -(1.0 - self.unit()).ln() * mean
    }

    /// Geometric on 1, 2, … with this mean (at least 1).
    pub fn geometric(&mut self, mean: f64) -> u64 {
        if mean <= 1.0 {
            return 1;
        }
        let stay = (1.0 - 1.0 / mean).ln();
        1 + to_u64((1.0 - self.unit()).ln() / stay)
    }

    /// Log-uniform in [low, high).
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (self.unit() * (high / low).ln()).exp()
    }

    /// A lognormal with this median and this standard deviation of the logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (probit(self.unit()) * sigma).exp()
    }
}

/// Where the standard normal distribution reaches the probability `p`.
///
/// P. J. Acklam's rational approximation, with a relative error below 1.2e-9. Probabilities closer
/// than 1e-12 to 0 or 1 are cut, which is at 7 standard deviations.
pub fn probit(p: f64) -> f64 {
    const CENTRE_TOP: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const CENTRE_BOTTOM: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const TAIL_TOP: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const TAIL_BOTTOM: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    const TAIL: f64 = 0.024_25;
    let p = p.clamp(1e-12, 1.0 - 1e-12);
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if (TAIL..=1.0 - TAIL).contains(&p) {
        let q = p - 0.5;
        let r = q * q;
        return q * horner(&CENTRE_TOP, r) / horner(&CENTRE_BOTTOM, r);
    }
    let (tail, sign) = if p < 0.5 { (p, 1.0) } else { (1.0 - p, -1.0) };
    let q = (-2.0 * tail.ln()).sqrt();
    sign * horner(&TAIL_TOP, q) / horner(&TAIL_BOTTOM, q)
}

/// A whole number as a float, rounded to 53 bits.
#[expect(clippy::as_conversions, reason = "rounding to 53 bits is what is wanted")]
pub const fn to_f64(value: u64) -> f64 {
    value as f64
}

/// A float as a whole number: cut to the range, the fraction dropped, 0 for what is not a number.
#[expect(clippy::as_conversions, reason = "a saturating cast is what is wanted")]
pub const fn to_u64(value: f64) -> u64 {
    value as u64
}

/// A weighted choice in a fixed number of steps (Walker's alias method).
#[derive(Clone, Debug)]
pub struct Choice {
    /// For each place: the share of the place that keeps its own index, and the index for the rest.
    places: Vec<(f64, usize)>,
}

impl Choice {
    /// A choice with these weights: at least one, none negative, not all 0.
    pub fn new(weights: &[f64]) -> Self {
        let sum: f64 = weights.iter().sum();
        let mut left: Vec<f64> =
            weights.iter().map(|weight| weight / sum * to_f64(length(weights))).collect();
        let mut places: Vec<(f64, usize)> = (0..weights.len()).map(|place| (1.0, place)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&place| left[place] < 1.0);
        while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
            small.pop();
            places[poor] = (left[poor], rich);
            left[rich] -= 1.0 - left[poor];
            if left[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { places }
    }

    /// A random index; each index is as frequent as its weight.
    pub fn pick(&self, rng: &mut SeededRng) -> usize {
        let scaled = rng.unit() * to_f64(length(&self.places));
        let place = usize::try_from(to_u64(scaled)).unwrap_or(0).min(self.places.len() - 1);
        let (stay, other) = self.places[place];
        if scaled.fract() < stay { place } else { other }
    }
}

/// The length of a slice as the integer type of the calculations.
pub fn length<T>(slice: &[T]) -> u64 {
    u64::try_from(slice.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probit_gives_the_known_points_of_the_normal_distribution() {
        for (p, z) in [(0.5, 0.0), (0.841_344_746, 1.0), (0.022_750_132, -2.0), (0.999, 3.090_232)]
        {
            assert!((probit(p) - z).abs() < 1e-5, "{p}: {} is not {z}", probit(p));
        }
    }

    #[test]
    fn a_choice_is_made_as_often_as_its_weight_says() {
        let weights = [7.0, 0.0, 2.0, 1.0];
        let choice = Choice::new(&weights);
        let mut rng = SeededRng::new(1, 0);
        let mut counts = [0_u32; 4];
        for _ in 0..100_000 {
            counts[choice.pick(&mut rng)] += 1;
        }
        for (count, weight) in counts.iter().zip(weights) {
            let share = f64::from(*count) / 100_000.0;
            assert!((share - weight / 10.0).abs() < 0.01, "{share} is not {weight}/10");
        }
        assert_eq!(counts[1], 0);
    }

    #[test]
    fn a_geometric_number_has_its_mean_and_is_at_least_one() {
        let mut rng = SeededRng::new(2, 0);
        for mean in [1.0, 3.0, 17.6] {
            let numbers: Vec<u64> = (0..100_000).map(|_| rng.geometric(mean)).collect();
            assert!(numbers.iter().all(|number| *number >= 1));
            let found = to_f64(numbers.iter().sum()) / 100_000.0;
            assert!((found / mean - 1.0).abs() < 0.02, "{found} is not {mean}");
        }
    }

    #[test]
    fn purposes_of_one_seed_are_independent_sources() {
        let mut first = SeededRng::new(7, 0);
        let mut second = SeededRng::new(7, 1);
        assert!((0..16).all(|_| first.below(1 << 40) != second.below(1 << 40)));
    }
}
