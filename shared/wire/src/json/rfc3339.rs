//! Times as text: RFC 3339 in, RFC 3339 in UTC with microseconds out.

use domain::{
    Timestamp,
    time::{MICROS_PER_SECOND, SECONDS_PER_DAY},
};

/// Days from 0000-03-01, where the count of a 400-year era begins, to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;
/// Days of 400 years.
const DAYS_PER_ERA: i64 = 146_097;
/// Length of the shortest text: `2026-11-23T06:43:00Z`.
const TEXT_BYTES_MIN: usize = 20;

/// A time as RFC 3339 in UTC, always with six digits of microseconds; `None` outside of the years 0
/// to 9999, which RFC 3339 cannot say.
pub fn format_time(time: Timestamp) -> Option<String> {
    let mut text = Vec::with_capacity(32);
    write_time(&mut text, time).then(|| String::from_utf8(text).expect("digits are UTF-8"))
}

/// The same without what is finer than a second, for people.
pub fn format_second(time: Timestamp) -> Option<String> {
    let whole = time.0.saturating_sub(time.0.rem_euclid(MICROS_PER_SECOND));
    format_time(Timestamp(whole)).map(|text| text.replace(".000000", ""))
}

/// Appends a time; says `false` and appends nothing where RFC 3339 cannot say it.
pub(super) fn write_time(text: &mut Vec<u8>, time: Timestamp) -> bool {
    let (year, month, day) = civil(time.day());
    if !(0..=9_999).contains(&year) {
        return false;
    }
    let second = time.second().rem_euclid(SECONDS_PER_DAY);
    let micros = time.0.rem_euclid(MICROS_PER_SECOND);
    let mut form = *b"0000-00-00T00:00:00.000000Z";
    for (last, digits, mut value) in [
        (3, 4, year),
        (6, 2, month),
        (9, 2, day),
        (12, 2, second / 3_600),
        (15, 2, second / 60 % 60),
        (18, 2, second % 60),
        (25, 6, micros),
    ] {
        for place in 0..digits {
            form[last - place] = digit(value % 10);
            value /= 10;
        }
    }
    text.extend_from_slice(&form);
    true
}

fn digit(value: i64) -> u8 {
    b'0' + u8::try_from(value).expect("a digit")
}

/// The time that an RFC 3339 text says, rounded down to microseconds.
///
/// `t`, `z` and a space between date and time are taken too, as the RFC allows; second 60 is the
/// first of the next minute. `None` if it is no such text.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.as_bytes();
    if text.len() < TEXT_BYTES_MIN || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    if !matches!(text[10], b'T' | b't' | b' ') || text[13] != b':' || text[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute) = (number(&text[11..13])?, number(&text[14..16])?);
    let second = number(&text[17..19])?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(&text[19..])?;
    let offset_s = offset(rest)?;
    let days = days_from_civil(year, month, day);
    let seconds = days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second - offset_s;
    Some(Timestamp(seconds * MICROS_PER_SECOND + micros))
}

/// Microseconds of a fraction, if there is one, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let mut micros = 0;
    for place in 0..6 {
        let next = digits[..count].get(place).map_or(0, |digit| i64::from(digit - b'0'));
        micros = micros * 10 + next;
    }
    Some((micros, &digits[count..]))
}

/// Seconds that the local time is ahead of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    match text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), hour @ .., b':', tens, ones] if hour.len() == 2 => {
            let (hour, minute) = (number(hour)?, number(&[*tens, *ones])?);
            let seconds = hour * 3_600 + minute * 60;
            (hour <= 23 && minute <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// Days since 1970 of a date of the Gregorian calendar. Years begin in March, so that the leap day
/// is the last of its year.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970
}

/// Year, month and day of a count of days since 1970.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};

    use super::*;

    /// Microseconds since 1970 by the `time` crate.
    fn by_another(text: &str) -> Option<i64> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).ok()
    }

    proptest! {
        #[test]
        fn a_written_time_is_read_back_and_another_program_agrees(
            micros in -62_167_219_200_000_000_i64..253_402_300_800_000_000,
        ) {
            let text = format_time(Timestamp(micros)).unwrap();
            prop_assert_eq!(parse_time(&text), Some(Timestamp(micros)));
            prop_assert_eq!(by_another(&text), Some(micros));
        }

        #[test]
        fn another_program_agrees_on_offsets_and_fractions(
            date in "(19|20)[0-9]{2}-(0[0-9]|1[0-3])-[0-3][0-9]",
            clock in "[0-2][0-9]:[0-6][0-9]:[0-5][0-9](\\.[0-9]{1,9})?",
            zone in "(Z|[+-][01][0-9]:[0-5][0-9])",
        ) {
            let text = format!("{date}T{clock}{zone}");
            prop_assert_eq!(parse_time(&text).map(|time| time.0), by_another(&text), "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = parse_time(&text);
        }
    }

    #[test]
    fn what_is_no_rfc_3339_is_refused() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T06:43:00",
            "2026-11-23T06:43:00.Z",
            "2026-11-31T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T06:43:00+0100",
            "2026-11-23T06:43:00Z ",
            "2026-11-23T06:43:00+24:00",
            "2026-11-23T06:43:00+1:00",
            "2026-11-23T06:43:00+001:00",
            "+026-11-23T06:43:00Z",
            // Each of the signs between the numbers, wrong by itself.
            "2026/11-23T06:43:00Z",
            "2026-11/23T06:43:00Z",
            "2026-11-23_06:43:00Z",
            "2026-11-23T06.43:00Z",
            "2026-11-23T06:43.00Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_leap_day_is_a_day_in_every_fourth_year_and_every_fourth_century() {
        for year in [1996, 2000, 2024, 2400] {
            let text = format!("{year}-02-29T00:00:00Z");
            assert_eq!(parse_time(&text).map(|time| time.0), by_another(&text), "{text}");
            assert!(parse_time(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_time_for_people_has_no_parts_of_a_second() {
        let text = "2026-11-23T06:43:07Z";
        let time = parse_time(text).unwrap();
        for micros in [0, 1, 999_999] {
            assert_eq!(format_second(Timestamp(time.0 + micros)).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_leap_second_is_the_first_of_the_next_minute() {
        assert_eq!(parse_time("2016-12-31T23:59:60Z"), parse_time("2017-01-01T00:00:00z"));
    }

    #[test]
    fn times_beyond_four_digits_of_years_have_no_text() {
        for micros in [i64::MIN, -62_167_219_200_000_001, 253_402_300_800_000_000, i64::MAX] {
            assert_eq!(format_time(Timestamp(micros)), None, "{micros}");
            assert_eq!(format_second(Timestamp(micros)), None, "{micros}");
        }
    }
}
