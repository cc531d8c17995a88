//! Capabilities: what a worker says of itself when it registers.
//!
//! Invariants: what is accepted is within its bounds, sorted and without repetition, so that workers that are alike are told alike; nothing of what a worker
//! says can make presence or the log large.
//! Does not: believe that it is true.

use http::Uri;
use smol_str::SmolStr;
use starling_core::ids::WorkerName;
use starling_core::limits;
use starling_core::resources::Resources;
use starling_core::schedule::Label;
use tonic::codegen::http;

use super::Refusal;

/// Longest name of a worker. It is written into the log with each task that the worker starts.
pub const WORKER_BYTES_MAX: usize = 128;
/// Bytes of all labels of one worker: they travel in presence, once a second.
const LABELS_BYTES_MAX: usize = 1_024;
/// Capabilities of one registration, labels and all.
const CAPABILITIES_MAX: usize = 2 * limits::LABELS_MAX;
/// Most tasks that a worker takes at once.
const SLOTS_MAX: u32 = 1_024;
/// Longest endpoint.
const URL_BYTES_MAX: usize = 2_048;
/// What a task may need where a worker does not say how many cores it has.
const CORE_MILLI: u64 = 1_000;

/// What a worker is and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Sorted.
    pub(super) labels: Vec<Label>,
    /// Tasks at once.
    pub(super) slots: u32,
    /// What one task may need.
    pub(super) room: Resources,
    /// Where to call it; it opens a stream if it has none.
    pub(super) endpoint: Option<Uri>,
}

/// Reads a worker's name.
///
/// # Errors
/// If it is empty, too long, or not printable.
pub(super) fn worker_name(text: &str) -> Result<WorkerName, Refusal> {
    let is_plain = |symbol: char| !symbol.is_control();
    if text.is_empty() || text.len() > WORKER_BYTES_MAX || !text.chars().all(is_plain) {
        let got = shown(text);
        return Err(Refusal::Invalid(format!(
            "field `worker_id`: expected 1 to {WORKER_BYTES_MAX} bytes of printable text, got `{got}`"
        )));
    }
    Ok(WorkerName(SmolStr::new(text)))
}

/// Reads what a registration lists.
///
/// # Errors
/// The first capability that is out of its bounds, with what is expected.
pub(super) fn parse(capabilities: &[String]) -> Result<Capabilities, Refusal> {
    if capabilities.len() > CAPABILITIES_MAX {
        let count = capabilities.len();
        return Err(Refusal::Invalid(format!(
            "field `capabilities`: expected at most {CAPABILITIES_MAX}, got {count}"
        )));
    }
    let (mut labels, mut slots, mut cores, mut memory, mut endpoint) = (Vec::new(), 1, None, None, None);
    for text in capabilities.iter().map(|text| text.trim()) {
        match text.split_once('=') {
            Some(("slots", value)) => {
                let count = value.parse().ok().filter(|count| (1..=SLOTS_MAX).contains(count));
                slots = count.ok_or_else(|| wrong(text, &format!("`slots=N`, N from 1 to {SLOTS_MAX}")))?;
            }
            Some(("cpu", value)) => {
                cores = Some(
                    milli(value).ok_or_else(|| wrong(text, "`cpu=N`, the cores of the worker, such as 4 or 0.5"))?,
                );
            }
            Some(("memory", value)) => {
                let bytes = bytes(value);
                memory =
                    Some(bytes.ok_or_else(|| wrong(text, "`memory=SIZE`, the memory of the worker, such as 16GiB"))?);
            }
            Some(("endpoint", value)) => {
                let url = url(value);
                endpoint =
                    Some(url.ok_or_else(|| wrong(text, "`endpoint=URL` with http or https, a host and a port"))?);
            }
            Some(_) | None => labels.push(label(text)?),
        }
    }
    labels.sort();
    labels.dedup();
    let size: usize = labels.iter().map(|label: &Label| label.0.len()).sum();
    if labels.len() > limits::LABELS_MAX || size > LABELS_BYTES_MAX {
        let (count, max) = (labels.len(), limits::LABELS_MAX);
        return Err(Refusal::Invalid(format!(
            "field `capabilities`: expected at most {max} labels of {LABELS_BYTES_MAX} bytes together, got {count} of {size} bytes"
        )));
    }
    // Numbers are of the whole worker: a task has one slot's share.
    let share = |all: u64| all / u64::from(slots);
    let room = Resources { cpu_milli: cores.map_or(CORE_MILLI, share), mem_bytes: memory.map_or(u64::MAX, share) };
    Ok(Capabilities { labels, slots, room, endpoint })
}

/// A label, bounded; without the signs that keep labels apart where several are one text.
fn label(text: &str) -> Result<Label, Refusal> {
    let is_plain = |symbol: char| !symbol.is_control() && !matches!(symbol, ',' | ';');
    if text.is_empty() || text.len() > limits::LABEL_BYTES_MAX || !text.chars().all(is_plain) {
        let max = limits::LABEL_BYTES_MAX;
        return Err(wrong(text, &format!("1 to {max} bytes of printable text without `,` and `;`")));
    }
    Ok(Label(SmolStr::new(text)))
}

fn wrong(capability: &str, expected: &str) -> Refusal {
    Refusal::Invalid(format!("capability `{}`: expected {expected}", shown(capability)))
}

fn shown(text: &str) -> String {
    text.chars().take(80).map(|symbol| if symbol.is_control() { '?' } else { symbol }).collect()
}

/// Thousandths, of a number such as `4` or `0.5`, more than none.
fn milli(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 9 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let whole: u64 = whole.parse().ok().filter(|whole| *whole < 1_000_000)?;
    let part: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    Some(whole * 1_000 + part).filter(|milli| *milli > 0)
}

/// Bytes, of a size such as `16GiB`, `512M` or `1073741824`, more than none. Units are powers of 1,024, as workers and schedulers mean them.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" | "ki" => 10,
        "m" | "mb" | "mib" | "mi" => 20,
        "g" | "gb" | "gib" | "gi" => 30,
        "t" | "tb" | "tib" | "ti" => 40,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

fn url(text: &str) -> Option<Uri> {
    let uri: Uri = Some(text).filter(|text| text.len() <= URL_BYTES_MAX)?.parse().ok()?;
    let has_login = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let is_web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    (is_web && !has_login).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Capabilities, Refusal> {
        parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_are_of_the_worker_and_the_rest_is_labels() {
        let all = ["linux", "slots=4", "gpu=2", "cpu=6", "memory=8GiB", "linux", "endpoint=http://h:1"];
        let read = parsed(&all).unwrap();
        let labels: Vec<&str> = read.labels.iter().map(|label| label.0.as_str()).collect();
        assert_eq!(labels, ["gpu=2", "linux"]);
        assert_eq!((read.slots, read.room), (4, Resources { cpu_milli: 1_500, mem_bytes: 2 << 30 }));
        assert_eq!(read.endpoint.unwrap().to_string(), "http://h:1/");
        let none = parsed(&[]).unwrap();
        assert_eq!((none.slots, none.room), (1, Resources { cpu_milli: 1_000, mem_bytes: u64::MAX }));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let long = "x".repeat(limits::LABEL_BYTES_MAX + 1);
        for wrong in [
            "slots=0",
            "slots=1025",
            "slots=",
            "cpu=0",
            "cpu=-1",
            "cpu=1e3",
            "cpu=.",
            "memory=0",
            "memory=4Q",
            "memory=",
            "endpoint=h:1",
            "endpoint=ftp://h/",
            "endpoint=http://a:b@h/",
            "",
            "a,b",
            "a;b",
            "a\nb",
            &long,
        ] {
            let Err(Refusal::Invalid(text)) = parsed(&[wrong]) else {
                panic!("{wrong} was accepted");
            };
            assert!(text.starts_with("capability `") && text.contains("expected"), "{text}");
        }
        let many: Vec<String> = (0..=limits::LABELS_MAX).map(|n| format!("label{n}")).collect();
        assert!(parse(&many).is_err());
        let wide: Vec<String> = (0..8).map(|n| format!("{n}{}", "x".repeat(200))).collect();
        assert!(parse(&wide).is_err());
        for wrong in ["", "a\tb", &"x".repeat(WORKER_BYTES_MAX + 1)] {
            assert!(worker_name(wrong).is_err(), "{wrong}");
        }
        assert_eq!((milli("0.5"), milli("4"), milli("1.2345")), (Some(500), Some(4_000), Some(1_234)));
        assert_eq!((bytes("1k"), bytes("2 MiB"), bytes("7")), (Some(1_024), Some(2 << 20), Some(7)));
    }
}
