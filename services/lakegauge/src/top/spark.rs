//! Bar plots of block characters in a few rows of a terminal. Pure.

/// A block for each number of eighths of a row.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const EIGHTHS: u32 = 8;

/// A point: milliseconds since 1970, and the value.
pub(super) type Point = (i64, f64);

/// One value per column of the time that ends now: the mean of the column's points, or the previous
/// value if there is none; `None` before the first point.
pub(super) fn columns(points: &[Point], now_ms: i64, span_ms: i64, width: u16) -> Vec<Option<f64>> {
    let edge = |column: u16| now_ms - span_ms + span_ms * i64::from(column) / i64::from(width);
    let mut last = None;
    (0..width)
        .map(|column| {
            let within = |(at, _): &&Point| *at > edge(column) && *at <= edge(column + 1);
            let values = points.iter().filter(within).map(|(_, value)| *value);
            let (sum, count) = values.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
            if count > 0.0 {
                last = Some(sum / count);
            }
            last
        })
        .collect()
}

/// Rows of blocks, the highest first, scaled between two values. A known value has at least one
/// eighth.
pub(super) fn rows(values: &[Option<f64>], (low, high): (f64, f64), height: u16) -> Vec<String> {
    let steps = u32::from(height) * EIGHTHS;
    let level = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        (1..=steps).find(|step| share <= f64::from(*step) / f64::from(steps)).unwrap_or(steps)
    };
    let levels: Vec<u32> = values.iter().map(|value| value.map_or(0, level)).collect();
    let row = |row: u16| {
        let below = u32::from(row) * EIGHTHS;
        let block = |level: &u32| {
            let eighths = level.saturating_sub(below).min(EIGHTHS);
            usize::try_from(eighths).ok().and_then(|eighths| BLOCKS.get(eighths)).unwrap_or(&' ')
        };
        levels.iter().map(block).collect()
    };
    (0..height).rev().map(row).collect()
}

/// Rates per second of a count. Between points that are far apart, nothing was counted.
pub(super) fn rates(points: &[Point], grain_ms: i64) -> Vec<Point> {
    /// After a gap of more grains, the count did not change in between.
    const GAP_GRAINS: i64 = 3;
    let seconds = |ms: i64| f64::from(u32::try_from(ms.max(1)).unwrap_or(u32::MAX)) / 1e3;
    points
        .windows(2)
        .flat_map(|pair| {
            let ((then, before), (at, value)) = (pair[0], pair[1]);
            let grown = (value - before).max(0.0);
            if at - then > GAP_GRAINS * grain_ms {
                vec![(then + grain_ms, 0.0), (at - grain_ms, 0.0), (at, grown / seconds(grain_ms))]
            } else {
                vec![(at, grown / seconds(at - then))]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_the_mean_of_its_points_or_holds_the_one_before() {
        let points = [(5, 1.0), (7, 3.0), (25, 9.0)];
        assert_eq!(columns(&points, 40, 50, 5), [None, Some(2.0), Some(2.0), Some(9.0), Some(9.0)]);
    }

    #[test]
    fn rows_stand_on_each_other() {
        let values = [None, Some(0.0), Some(0.5), Some(0.75), Some(1.0)];
        assert_eq!(rows(&values, (0.0, 1.0), 2), ["   ▄█", " ▁███"]);
        assert_eq!(rows(&[Some(3.0)], (3.0, 3.0), 1), ["▁"], "a constant is a line");
    }

    #[test]
    fn a_count_becomes_a_rate_and_silence_none() {
        let points = [(0, 0.0), (10_000, 100.0), (110_000, 200.0), (120_000, 0.0)];
        let expected =
            [(10_000, 10.0), (20_000, 0.0), (100_000, 0.0), (110_000, 10.0), (120_000, 0.0)];
        assert_eq!(rates(&points, 10_000), expected);
    }
}
