//! Formats numbers for people, in few characters.

use service_kit::terminal::grouped;

/// The text for an unknown number.
const NONE: &str = "-";

/// A whole number with commas between groups of three digits.
pub(super) fn whole(number: Option<f64>) -> String {
    number.map_or_else(|| NONE.to_owned(), grouped)
}

/// Three digits and a power of a thousand: `1.23M`.
pub(super) fn short(number: Option<f64>) -> String {
    scaled(number, &["", "k", "M", "G", "T", "P", "E"], 1_000.0)
}

/// Bytes in powers of ten: `1.23 GB`.
pub(super) fn bytes(bytes: Option<f64>) -> String {
    scaled(bytes, &[" B", " kB", " MB", " GB", " TB", " PB", " EB"], 1_000.0)
}

/// A duration given in milliseconds: `12.3 ms`, `4.56 s`, `2.1 min`.
pub(super) fn span(ms: Option<f64>) -> String {
    let Some(ms) = ms else { return NONE.to_owned() };
    let (unit, size) = match ms {
        ms if ms < 1e3 => ("ms", 1.0),
        ms if ms < 9e4 => ("s", 1e3),
        ms if ms < 5.4e6 => ("min", 6e4),
        _ => ("h", 3.6e6),
    };
    format!("{} {unit}", three_digits(ms / size))
}

/// A share as a percentage; 1 is 100 %.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| NONE.to_owned(), |share| format!("{:.1}%", share * 100.0))
}

/// A number with one decimal.
pub(super) fn tenths(number: Option<f64>) -> String {
    number.map_or_else(|| NONE.to_owned(), |number| format!("{number:.1}"))
}

fn scaled(number: Option<f64>, units: &[&str], step: f64) -> String {
    let Some(mut size) = number else { return NONE.to_owned() };
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while size.abs() >= 999.5
        && let Some(next) = units.next()
    {
        size /= step;
        unit = next;
    }
    format!("{}{unit}", three_digits(size))
}

fn three_digits(number: f64) -> String {
    let size = number.abs();
    if size < 9.995 && number.fract() != 0.0 {
        format!("{number:.2}")
    } else if size < 99.95 && number.fract() != 0.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_what_is_unknown_is_said() {
        assert_eq!(whole(Some(1_234_567.0)), "1,234,567");
        assert_eq!(
            [short(Some(999.4)), short(Some(999.9)), short(Some(1.43e9))],
            ["999", "1.00k", "1.43G"]
        );
        assert_eq!([bytes(Some(0.0)), bytes(Some(-12_345.0))], ["0 B", "-12.3 kB"]);
        assert_eq!(
            [span(Some(5.5)), span(Some(2_000.0)), span(Some(1e5))],
            ["5.50 ms", "2 s", "1.67 min"]
        );
        assert_eq!([whole(None), short(None), span(None), percent(None)], ["-"; 4]);
    }
}
