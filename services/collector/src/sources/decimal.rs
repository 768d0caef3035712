//! Reads decimal numbers of other systems without floating point, so that the same text gives the
//! same number on every machine.

/// Maximum number of digits. A number with more digits can't be a measurement.
const DIGITS_MAX: usize = 30;

/// A decimal number times 10^`power`, rounded half up. For example, seconds with a power of 6 give
/// microseconds. `None` if the text is not a JSON number, or the number is too large for a
/// measurement.
pub(crate) fn scaled(text: &str, power: i32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    let is_number = !whole.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number || digits.len() > DIGITS_MAX {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let fraction = i32::try_from(fraction.len()).ok()?;
    let shift = power.checked_add(exponent)?.checked_sub(fraction)?;
    let ten = |power: u32| 10_i128.checked_pow(power);
    let value = if value == 0 {
        0
    } else if let Ok(up) = u32::try_from(shift) {
        value.checked_mul(ten(up)?)?
    } else {
        match ten(shift.unsigned_abs()) {
            Some(by) => (value + by / 2) / by,
            // The number is too small to differ from zero.
            None => 0,
        }
    };
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_scaled_and_rounded_exactly() {
        for (text, expected) in [
            ("112.444000000", 112_444_000),
            ("1750064067.198000000", 1_750_064_067_198_000),
            ("0.0", 0),
            ("0E-9", 0),
            ("5E-7", 1),
            ("4.9E-7", 0),
            ("1.5e3", 1_500_000_000),
            ("-2", -2_000_000),
            ("7", 7_000_000),
            ("1E-900", 0),
        ] {
            assert_eq!(scaled(text, 6), Some(expected), "{text}");
        }
        assert_eq!(scaled("67795.0", 3), Some(67_795_000));
    }

    #[test]
    fn what_is_no_number_or_no_measurement_is_none() {
        let long = "1".repeat(DIGITS_MAX + 1);
        for text in
            ["", "-", ".5", "1.2.3", "1e", "NaN", "0x1", " 1", "1e99", &long, "1e2147483647"]
        {
            assert_eq!(scaled(text, 6), None, "{text}");
        }
    }
}
