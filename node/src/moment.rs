//! Moments as text: RFC 3339, as `2026-11-26T11:07:30.123Z`.
//!
//! Invariants: what `to_text` writes `parse` reads back; texts are in UTC unless they say another offset. Does not: know the time.

const DAY_MS: u64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

/// A moment in milliseconds since 1970; `-` for 0.
#[must_use]
pub fn to_text(unix_ms: u64) -> String {
    if unix_ms == 0 {
        return "-".to_owned();
    }
    let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    // Civil date from days, after Howard Hinnant: eras of 400 years that start on 1 March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1_000 % 60,
        ms % 1_000
    )
}

/// Milliseconds since 1970 of `YYYY-MM-DDTHH:MM:SS` with an optional fraction and `Z`, `+HH:MM` or `-HH:MM`; a space may stand for the `T`. `None` for anything
/// else, and for what lies before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, rest) = time.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let (fraction_ms, zone) = fraction(rest)?;
    let offset_min = offset(zone)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let is_valid = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days_in).contains(&day);
    if !is_valid || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days from a civil date, after Howard Hinnant.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let local = days * DAY_MS + hour * 3_600_000 + minute * 60_000 + second * 1_000 + fraction_ms;
    local.checked_add_signed(-offset_min * MINUTE_MS)
}

/// Numbers of so many digits each.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(between);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|one| one.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// The milliseconds of a fraction, if there is one, and what follows.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = rest.find(|one: char| !one.is_ascii_digit())?;
    let digits = rest.get(..end).filter(|digits| !digits.is_empty())?;
    let ms = format!("{digits:0<3}").get(..3)?.parse().ok()?;
    Some((ms, &rest[end..]))
}

/// Minutes east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, zone.strip_prefix('-')?),
    };
    let [hours, minutes, _] = numbers(&format!("{rest}:00"), ':', [2, 2, 2])?;
    let minutes = i64::try_from(hours * 60 + minutes).ok()?;
    (hours <= 23 && minutes < 24 * 60).then_some(sign * minutes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_in_any_offset() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00.123Z", 951_782_400_123),
            ("2026-11-26 11:30:21.304Z", 1_795_692_621_304),
            ("2026-11-26T13:00:21.304999+01:30", 1_795_692_621_304),
            ("2026-11-26T03:30:21.3-08:00", 1_795_692_621_300),
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_not_read() {
        for text in [
            "",
            "2026-11-26",
            "2026-11-26T11:30:21",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-26T24:00:00Z",
            "2026-11-26T11:30:21.Z",
            "2026-11-26T11:30:21+1:00",
            "2026-11-26T11:30:21Zz",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "yesterday at noon o'clock",
            "2026-11-2éT11:30:21Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn text_reads_back(ms in 1_u64..253_402_300_799_999) {
            prop_assert_eq!(parse(&to_text(ms)), Some(ms));
        }
    }
}
