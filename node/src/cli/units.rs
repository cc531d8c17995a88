//! Quantities as people write and read them: sizes, durations, CPUs, task sets, times.
//!
//! Invariants: parsing accepts only what it can represent exactly or to the next smaller unit, and
//! its errors say what would have been accepted; rendering never contains a space or control
//! character, so that columns stay columns.
//! Does not: know any verb.

use std::fmt::Write as _;
use std::str::FromStr;

use starling_core::schedule::Label;
use starling_proto::v1::IndexRange;

use super::output::now_unix_ms;
use crate::{moment, words};

/// Ranges that one array may consist of; more would not fit into one event.
const ARRAY_RANGES_MAX: usize = 1_000;

const KIB: u64 = 1024;

/// Thousandths of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpusMilli(pub u32);

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemBytes(pub u64);

/// A duration in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub u64);

/// A command: at least one word, and the first is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

/// A variable and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvEntry {
    pub key: String,
    pub value: String,
}

/// Task indices: ascending, disjoint, non-adjacent inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArraySpec(pub Vec<(u32, u32)>);

impl ArraySpec {
    /// The index, when the set is a single one.
    pub fn only_index(&self) -> Option<u32> {
        match self.0.as_slice() {
            [(start, end)] if start == end => Some(*start),
            _ => None,
        }
    }

    /// The set as the API has it.
    pub fn ranges(&self) -> Vec<IndexRange> {
        self.0.iter().map(|&(start, end)| IndexRange { start, end }).collect()
    }
}

impl FromStr for CpusMilli {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_milli(text)
            .and_then(|milli| u32::try_from(milli).ok())
            .map(Self)
            .ok_or_else(|| "expected a number of CPUs with at most three decimals, such as 1 or 0.5".to_owned())
    }
}

/// Thousandths of a decimal number with at most three decimals.
fn parse_milli(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 || text.len() < 1 + usize::from(text.starts_with('.'))
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(fraction)
}

impl FromStr for MemBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a size with a unit, such as 512M or 2G (powers of 1,024)".to_owned();
        let split = text.find(|symbol: char| symbol.is_ascii_alphabetic());
        let (number, unit) = text.split_at(split.unwrap_or(text.len()));
        let factor = match unit.to_ascii_lowercase().as_str() {
            // Slurm reads a bare number as megabytes, others as bytes: ask rather than guess.
            "" if number == "0" => 1,
            "b" => 1,
            "k" | "kb" | "kib" => KIB,
            "m" | "mb" | "mib" => KIB.pow(2),
            "g" | "gb" | "gib" => KIB.pow(3),
            "t" | "tb" | "tib" => KIB.pow(4),
            _ => return Err(wrong()),
        };
        let milli = parse_milli(number).ok_or_else(wrong)?;
        let bytes = u128::from(milli) * u128::from(factor) / 1_000;
        u64::try_from(bytes).map(Self).map_err(|_too_large| wrong())
    }
}

impl FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a time such as 30s, 500ms, 5m, 1h30m or 2d".to_owned();
        let mut rest = text;
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let unit_at = rest.find(|symbol: char| symbol.is_ascii_alphabetic());
            let (number, tail) = rest.split_at(unit_at.unwrap_or(rest.len()));
            let unit_end = tail.find(|symbol: char| !symbol.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_end);
            let unit_ms: u64 = match unit {
                "ms" => 1,
                // A bare number is seconds, as for timeout(1).
                "" | "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            let milli = parse_milli(number).ok_or_else(wrong)?;
            let part = milli.checked_mul(unit_ms).ok_or_else(wrong)? / 1_000;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = next;
        }
        Ok(Self(total))
    }
}

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = words::split(text).map_err(|error| format!("expected {}", error.expected()))?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self(words)),
            Some(_) | None => Err("expected a program and its arguments".to_owned()),
        }
    }
}

impl FromStr for ArraySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            parse_range(part.trim(), &mut ranges)?;
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                Some(_) | None => merged.push((start, end)),
            }
        }
        if merged.len() > ARRAY_RANGES_MAX {
            return Err(format!("more than {ARRAY_RANGES_MAX} separate ranges"));
        }
        Ok(Self(merged))
    }
}

/// Adds `N`, `A-B` or `A-B:STEP` to `ranges`.
fn parse_range(part: &str, ranges: &mut Vec<(u32, u32)>) -> Result<(), String> {
    let wrong = || format!("expected indices such as 0-9 or 1-10,20 or 0-100:10, got {part:?}");
    let number = |text: &str| text.parse::<u32>().map_err(|_not_a_number| wrong());
    let (span, step) = match part.split_once(':') {
        Some((span, step)) => (span, number(step)?),
        None => (part, 1),
    };
    let (start, end) = match span.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(span)?, number(span)?),
    };
    if end < start {
        return Err(format!("the range {span} ends before it starts"));
    }
    if step == 0 {
        return Err(format!("the step of {part} is 0"));
    }
    if step == 1 {
        ranges.push((start, end));
        return Ok(());
    }
    let step = usize::try_from(step).map_err(|_too_large| wrong())?;
    for index in (start..=end).step_by(step).take(ARRAY_RANGES_MAX + 1) {
        ranges.push((index, index));
    }
    Ok(())
}

/// Reads one label, as nodes and jobs have it.
///
/// # Errors
/// What was expected.
pub fn parse_label(text: &str) -> Result<String, String> {
    Label::parse(text).map(|label| label.0.to_string())
}

/// Reads `K=V`, or `K` alone for the caller's value of it.
pub fn parse_env(text: &str) -> Result<EnvEntry, String> {
    if text.contains('=') {
        return parse_pair(text);
    }
    match std::env::var(text) {
        Ok(value) if !text.is_empty() => Ok(EnvEntry { key: text.to_owned(), value }),
        Ok(_) | Err(_) => {
            Err(format!("expected KEY=VALUE, or the name of a variable that is set here; {text:?} is neither"))
        }
    }
}

/// Reads `K=V`.
fn parse_pair(text: &str) -> Result<EnvEntry, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
            Ok(EnvEntry { key: key.to_owned(), value: value.to_owned() })
        }
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

/// `0s`, `4ms`, `1.4s`, `12s`, `1m20s`, `2h05m`, `3d04h`.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if ms == 0 {
        "0s".to_owned()
    } else if seconds == 0 {
        format!("{ms}ms")
    } else if seconds < 10 {
        format!("{seconds}.{}s", ms % 1_000 / 100)
    } else if minutes == 0 {
        format!("{seconds}s")
    } else if hours == 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else if days == 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else {
        format!("{days}d{:02}h", hours % 24)
    }
}

/// `0`, `900B`, `1.5K`, `512M`, `64G`.
pub fn size(bytes: u64) -> String {
    if bytes < KIB {
        return if bytes == 0 { "0".to_owned() } else { format!("{bytes}B") };
    }
    let (mut unit, mut letters) = (KIB, "KMGTPE".chars());
    let mut letter = letters.next().unwrap_or('K');
    while bytes / unit >= KIB {
        unit *= KIB;
        letter = letters.next().unwrap_or('E');
    }
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if tenths >= 100 || tenths.is_multiple_of(10) {
        format!("{}{letter}", tenths / 10)
    } else {
        format!("{}.{}{letter}", tenths / 10, tenths % 10)
    }
}

/// `2`, `0.5`.
pub fn cpus(milli: u32) -> String {
    let (whole, fraction) = (milli / 1_000, milli % 1_000);
    if fraction == 0 {
        return whole.to_string();
    }
    format!("{whole}.{fraction:03}").trim_end_matches('0').to_owned()
}

/// `1.25`, from thousandths.
pub fn hundredths(milli: u32) -> String {
    let hundredths = u64::from(milli) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// The share of `used` in `total`, rounded, as a whole number of hundredths; `None` of nothing.
pub fn percent(used: u64, total: u64) -> Option<u64> {
    let (used, total) = (u128::from(used), u128::from(total));
    let share = (used * 100 + total / 2).checked_div(total)?;
    u64::try_from(share).ok()
}

/// `0-9,20`; at most six ranges, then `…`.
pub fn tasks(ranges: &[IndexRange]) -> String {
    const SHOWN: usize = 6;
    let mut text = String::new();
    for (index, range) in ranges.iter().take(SHOWN).enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = if range.start == range.end {
            write!(text, "{comma}{}", range.start)
        } else {
            write!(text, "{comma}{}-{}", range.start, range.end)
        };
    }
    if ranges.len() > SHOWN {
        text.push_str(",…");
    }
    text
}

/// `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A moment on the command line, in milliseconds since 1970: so long ago, or a date and a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub u64);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "expected so long ago, such as 90s, 2h or 1d, or a moment such as 2026-11-26T11:07:30Z".to_owned();
        if let Some(unix_ms) = moment::parse(text) {
            return Ok(Self(unix_ms));
        }
        let ago: Millis = text.parse().map_err(|_other| wrong())?;
        Ok(Self(now_unix_ms().saturating_sub(ago.0)))
    }
}

/// `2026-11-26T11:07:30.123Z`; `-` for 0.
pub fn time(unix_ms: u64) -> String {
    moment::to_text(unix_ms)
}
