//! A distribution from its published percentiles.

/// A quantile function that is log-linear between the given percentiles.
///
/// Measurements publish percentiles; a fitted family of distributions would match none of them.
#[derive(Clone, Debug)]
pub struct Quantiles {
    /// Pairs of probability and logarithm of the value, both ascending.
    knots: Vec<(f64, f64)>,
}

impl Quantiles {
    /// From pairs of probability and value in ascending order. The first probability is 0, the last
    /// is 1, and values are above 0.
    pub fn new(points: &[(f64, f64)]) -> Self {
        Self { knots: points.iter().map(|&(share, value)| (share, value.ln())).collect() }
    }

    /// From the shares of buckets and the edges around them (one more than shares). Inside a bucket
    /// the distribution is log-uniform. Shares need not add up to 1.
    pub fn from_buckets(edges: &[f64], shares: &[f64]) -> Self {
        let sum: f64 = shares.iter().sum();
        let mut reached = 0.0;
        let mut knots = vec![(0.0, edges[0].ln())];
        for (share, edge) in shares.iter().zip(&edges[1..]) {
            reached += share / sum;
            knots.push((reached, edge.ln()));
        }
        Self { knots }
    }

    /// The value below which the share `u` of all values lies.
    pub fn at(&self, u: f64) -> f64 {
        let above = self.knots.partition_point(|&(share, _)| share <= u);
        let (low, high) = match (self.knots.get(above.wrapping_sub(1)), self.knots.get(above)) {
            (Some(low), Some(high)) => (low, high),
            (Some(end), None) | (None, Some(end)) => return end.1.exp(),
            (None, None) => return 0.0,
        };
        let part = (u - low.0) / (high.0 - low.0);
        (low.1 + part * (high.1 - low.1)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_percentiles_come_back_and_between_them_it_ascends() {
        let points = [(0.0, 1.0), (0.5, 100.0), (0.99, 5_000.0), (1.0, 1e9)];
        let quantiles = Quantiles::new(&points);
        for (share, value) in points {
            assert!((quantiles.at(share) / value - 1.0).abs() < 1e-9);
        }
        let values: Vec<f64> = (0..=1_000).map(|u| quantiles.at(f64::from(u) / 1e3)).collect();
        assert!(values.is_sorted());
    }

    #[test]
    fn buckets_hold_their_shares() {
        let quantiles = Quantiles::from_buckets(&[1.0, 10.0, 100.0], &[3.0, 1.0]);
        assert!((quantiles.at(0.75) - 10.0).abs() < 1e-9);
        assert!((quantiles.at(0.375) - 10_f64.sqrt()).abs() < 1e-9);
    }
}
