//! Moments as operators write them: RFC 3339, or a day alone.
//!
//! Pure: there is no clock here, the proleptic Gregorian calendar only, UTC without leap seconds.

const DAY: i64 = 86_400;

/// Seconds since 1970 at which `text` ends: a day (`2027-01-31`) at its last midnight, UTC; a moment
/// (`2027-01-31T12:00:00Z`, RFC 3339 §5.6) at itself, parts of a second cut off. What lies before
/// 1970 is 0. None: neither.
pub fn end_of(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(10)?;
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    if date[4] != b'-' || date[7] != b'-' || !(1..=12).contains(&month) {
        return None;
    }
    if !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * DAY;
    let seconds = if rest.is_empty() { midnight + DAY } else { midnight + within_day(rest)? };
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// Milliseconds since 1970 as `2027-01-31T12:00:00.000Z` (RFC 3339 §5.6).
pub fn rfc3339(millis: u64) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    // The inverse of `days_since_1970`, in eras of 400 years, which have 146,097 days each.
    let days = seconds / 86_400 + DAYS_TO_1970.unsigned_abs();
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Seconds of `Thh:mm:ss[.fraction](Z|+hh:mm|-hh:mm)`, with those of the offset.
fn within_day(text: &[u8]) -> Option<i64> {
    let (time, rest) = text.split_at_checked(9)?;
    if !matches!(time[0], b'T' | b't' | b' ') || time[3] != b':' || time[6] != b':' {
        return None;
    }
    let (hour, minute, second) = (number(&time[1..3])?, number(&time[4..6])?, number(&time[7..])?);
    // 60 is a leap second, which counts as the next.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = (hours * 60 + minutes) * 60;
            if *sign == b'+' { east } else { -east }
        }
        _ => return None,
    };
    Some(hour * 3600 + minute * 60 + second - offset)
}

/// Digits and nothing else, at most four.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
    })
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March, so that the leap day comes last: 153 days are five such months.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - DAYS_TO_1970
}

/// From 1 March of the year 0 to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_moment(millis in 0..253_402_300_800_000_u64) {
            let text = rfc3339(millis);
            prop_assert_eq!(text.len(), 24);
            prop_assert_eq!(end_of(&text), Some(millis / 1000), "{}", text);
        }
    }

    #[test]
    fn moments_are_written_as_date_does() {
        // Each by `date -u -d @SECONDS +%FT%TZ`.
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_007), "2000-02-29T12:34:56.007Z");
        assert_eq!(rfc3339(1_795_282_203_999), "2026-11-21T17:30:03.999Z");
    }

    #[test]
    fn moments_are_what_date_says() {
        // Each by `date -u -d TEXT +%s`.
        assert_eq!(end_of("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(end_of("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(end_of("2026-11-21T17:30:03Z"), Some(1_795_282_203));
        assert_eq!(end_of("2026-11-21t19:30:03.999+02:00"), Some(1_795_282_203));
        assert_eq!(end_of("2026-11-21 12:00:03-05:30"), Some(1_795_282_203));
        assert_eq!(end_of("9999-12-31T23:59:59Z"), Some(253_402_300_799));
        assert_eq!(end_of("1969-12-31T23:59:59Z"), Some(0));
    }

    #[test]
    fn a_day_lasts_until_its_last_midnight() {
        assert_eq!(end_of("2026-12-31"), end_of("2027-01-01T00:00:00Z"));
        assert_eq!(end_of("2028-02-29"), end_of("2028-03-01T00:00:00Z"));
    }

    #[test]
    fn days_and_hours_that_are_none_are_refused() {
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "2100-02-29",
            "2026-1-1",
            "2026-04-31",
            "2026/04/30",
            "26-04-30",
            "2026-04-30T",
            "2026-04-30T24:00:00Z",
            "2026-04-30T12:00:00",
            "2026-04-30T12:00Z",
            "2026-04-30T12:00:00.Z",
            "2026-04-30T12:00:00+2:00",
            "2026-04-30T12:00:00Zz",
            "+026-04-30",
            "2026-04-3\u{661}",
        ] {
            assert_eq!(end_of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[0-9TZ:.+ -]{0,30}|.{0,12}") {
            let _ = end_of(&text);
        }

        #[test]
        fn days_follow_each_other(days in 0_i64..40_000) {
            // Month by month.
            let (mut year, mut month, mut left) = (1970, 1, days);
            while left >= days_of(year, month) {
                left -= days_of(year, month);
                (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            }
            prop_assert_eq!(days_since_1970(year, month, left + 1), days);
        }
    }
}
