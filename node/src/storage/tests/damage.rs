//! Torn tails, flipped bits, lost files, hostile payloads.
//!
//! Invariants: what opens is a prefix of what was written, and only the last group commit may be missing from it.
//! Does not: test crashes of a live writer (`crash`).

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::frame::{self, FRAME_BYTES, HEADER_BYTES, Place};
use super::super::{Error, Options, Record};
use super::{Log, batch, fast_dir, first_segment, key, local};

/// Ten groups of ten small records in one segment.
fn sample(dir: &Path) -> Vec<Record> {
    let log = Log::open(dir);
    let mut written = Vec::new();
    for group in 0..10_u64 {
        let records: Vec<_> = (0..10_u64)
            .map(|n| match n % 3 {
                0 => batch(key(1, 1), 1 + group * 10 + n, 1, &format!("b{n}")),
                1 => local(&"n".repeat(usize::try_from(n).unwrap())),
                _ => Record::Clean,
            })
            .collect();
        written.extend(records.clone());
        log.put(records);
    }
    written
}

/// Where each record ends in the segment.
fn ends(records: &[Record]) -> Vec<usize> {
    let mut end = HEADER_BYTES;
    let mut add = |record| {
        end += FRAME_BYTES + frame::payload_bytes(record);
        end
    };
    records.iter().map(&mut add).collect()
}

#[test]
fn log_torn_at_any_byte_keeps_every_whole_record() {
    let tmp = fast_dir();
    let written = sample(tmp.path());
    let bytes = fs::read(first_segment(tmp.path())).unwrap();
    let ends = ends(&written);
    assert_eq!(ends.last(), Some(&bytes.len()));
    for cut in 0..=bytes.len() {
        let dir = tmp.path().join("torn");
        fs::create_dir(&dir).unwrap();
        fs::write(first_segment(&dir), &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let log = Log::open(&dir);
        let good = match ends[..whole].last() {
            Some(end) => *end,
            None if cut < HEADER_BYTES => 0,
            None => HEADER_BYTES,
        };
        // A torn header is always reported; zeros behind the last whole record look like reserved space.
        let silent = good > 0 && bytes[good..cut].iter().all(|byte| *byte == 0);
        let torn = log.recovery.torn.as_ref().map(|torn| (torn.offset, torn.bytes_cut));
        let expected = (!silent).then_some((good as u64, (cut - good) as u64));
        assert_eq!(torn, expected, "cut at {cut}");
        log.put(vec![local("after")]);
        let mut expected = written[..whole].to_vec();
        assert_eq!(log.recovered(), expected, "cut at {cut}");
        expected.push(local("after"));
        let log = Log::open(&dir);
        assert_eq!(log.recovery.torn, None);
        assert_eq!(log.recovered(), expected, "cut at {cut}, second opening");
        fs::remove_dir_all(&dir).unwrap();
    }
}

/// A log of a mebibyte, in groups of twenty batches as long as a busy node's. `STARLING_TORN_STEP=1` cuts it at every byte, which takes minutes.
#[test]
fn a_log_of_a_mebibyte_torn_anywhere_recovers() {
    let step = std::env::var("STARLING_TORN_STEP").map_or(7_919, |step| step.parse().unwrap());
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    let (mut written, mut next) = (Vec::new(), 1_u64);
    while ends(&written).last().is_none_or(|end| *end < 1 << 20) {
        let group: Vec<_> = (next..next + 20).map(|seq| batch(key(1, 1), seq, 1, &"event ".repeat(60))).collect();
        next += 20;
        log.put(group.clone());
        written.extend(group);
    }
    drop(log);
    let bytes = fs::read(first_segment(tmp.path())).unwrap();
    let ends = ends(&written);
    let torn = tmp.path().join("torn");
    fs::create_dir(&torn).unwrap();
    for cut in (HEADER_BYTES..=ends.last().copied().unwrap()).step_by(step) {
        fs::write(first_segment(&torn), &bytes[..cut]).unwrap();
        let whole = ends.partition_point(|end| *end <= cut);
        let log = Log::open(&torn);
        assert_eq!(log.recovery.records, whole as u64, "cut at {cut}");
        let good = whole.checked_sub(1).map_or(HEADER_BYTES, |last| ends[last]);
        assert_eq!(fs::metadata(first_segment(&torn)).unwrap().len(), good as u64, "cut at {cut}");
    }
}

#[test]
fn zeros_behind_the_last_record_are_cut_without_alarm() {
    let tmp = fast_dir();
    let written = sample(tmp.path());
    let path = first_segment(tmp.path());
    let len = path.metadata().unwrap().len();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(len + 5_000_000).unwrap();
    let log = Log::open(tmp.path());
    assert_eq!(log.recovery.torn, None);
    assert_eq!(path.metadata().unwrap().len(), len);
    assert_eq!(log.recovered(), written);
    // Half a record before the zeros is a tear.
    let mut half = Vec::new();
    frame::encode(&mut half, 1, Place::First, &local("unfinished"));
    file.write_all_at(&half[..12], len).unwrap();
    file.set_len(len + 5000).unwrap();
    let log = Log::open(tmp.path());
    let torn = log.recovery.torn.as_ref().map(|torn| (torn.offset, torn.bytes_cut));
    assert_eq!(torn, Some((len, 5000)));
    assert_eq!(log.recovered(), written);
}

#[test]
fn flipped_bit_is_refused_or_costs_no_more_than_the_last_group() {
    let tmp = fast_dir();
    let written = sample(tmp.path());
    let bytes = fs::read(first_segment(tmp.path())).unwrap();
    let ends = ends(&written);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let dir = tmp.path().join("flipped");
        fs::create_dir(&dir).unwrap();
        fs::write(first_segment(&dir), &flipped).unwrap();
        let before_last_group = at < ends[89];
        match Log::open_with(&dir, Options::default()) {
            Err(Error::Corrupt { file, offset, .. }) => {
                assert_eq!(file, first_segment(&dir));
                assert!(before_last_group && offset <= at as u64, "flip at {at}");
                assert_eq!(fs::read(&file).unwrap(), flipped, "left as it is");
            }
            Err(Error::Version { .. }) => assert!((8..12).contains(&at)),
            Err(other) => panic!("flip at {at}: {other}"),
            Ok(log) => {
                assert!(!before_last_group && log.recovery.torn.is_some(), "flip at {at}");
                let whole = ends.iter().filter(|end| **end <= at).count();
                assert_eq!(log.recovered(), written[..whole]);
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn pages_of_an_unfinished_group_written_out_of_order_are_a_torn_tail() {
    let tmp = fast_dir();
    let written = sample(tmp.path());
    let file = fs::File::options().write(true).open(first_segment(tmp.path())).unwrap();
    // The third record of the last group never reached the disk, the ones behind it did.
    let ends = ends(&written);
    file.write_all_at(&vec![0; ends[92] - ends[91]], ends[91] as u64).unwrap();
    let log = Log::open(tmp.path());
    assert!(log.recovery.torn.is_some());
    assert_eq!(log.recovered(), written[..92]);
}

#[test]
fn batch_that_contains_a_forged_frame_cannot_make_a_tear_look_like_damage() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    let mut forged = vec![0; 64];
    for salt in [0, 1, u32::MAX] {
        frame::encode(&mut forged, salt, Place::First, &local("forged"));
    }
    log.put(vec![local("good")]);
    log.put(vec![Record::Local(forged.into())]);
    drop(log);
    let path = first_segment(tmp.path());
    let len = path.metadata().unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    let log = Log::open(tmp.path());
    assert!(log.recovery.torn.is_some());
    assert_eq!(log.recovered(), [local("good")]);
}

#[test]
fn damage_in_a_finished_segment_is_refused_with_the_next_step() {
    let tmp = fast_dir();
    let options = Options { segment_bytes: 1, ..Options::default() };
    let log = Log::open_with(tmp.path(), options).unwrap();
    for n in 0..3 {
        log.put(vec![local(&format!("{n}"))]);
    }
    drop(log);
    let second = tmp.path().join("00000002.log");
    let bytes = fs::read(&second).unwrap();
    fs::write(&second, &bytes[..bytes.len() - 1]).unwrap();
    let text = Log::open_with(tmp.path(), options).err().unwrap().to_string();
    assert!(text.contains("00000002.log is damaged at byte 24") && text.contains("empty data directory"), "{text}");
    // Zeros are welcome at the end of the log only.
    fs::write(&second, [&bytes[..], &[0; 100]].concat()).unwrap();
    assert!(matches!(Log::open_with(tmp.path(), options), Err(Error::Corrupt { .. })));
    fs::remove_file(&second).unwrap();
    let text = Log::open_with(tmp.path(), options).err().unwrap().to_string();
    assert!(text.contains("00000002.log is missing"), "{text}");
    fs::write(&second, &bytes).unwrap();
    assert_eq!(Log::open_with(tmp.path(), options).unwrap().recovered().len(), 3);
    fs::remove_file(first_segment(tmp.path())).unwrap();
    assert!(matches!(Log::open_with(tmp.path(), options), Err(Error::Missing { .. })));
}

#[test]
fn segment_torn_while_it_was_created_is_made_again() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    log.put(vec![local("kept"), Record::Clean]);
    drop(log);
    fs::write(tmp.path().join("00000002.log"), b"STARL").unwrap();
    let log = Log::open(tmp.path());
    assert!(log.recovery.torn.is_some() && !log.recovery.clean);
    log.put(vec![local("new")]);
    drop(log);
    assert_eq!(Log::open(tmp.path()).recovered(), [local("kept"), Record::Clean, local("new")]);
}

#[test]
fn foreign_file_and_later_format_are_refused() {
    let tmp = fast_dir();
    drop(Log::open(tmp.path()));
    let path = first_segment(tmp.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    bytes.push(0);
    fs::write(&path, &bytes).unwrap();
    let text = Log::open_with(tmp.path(), Options::default()).err().unwrap().to_string();
    assert!(text.contains("log format 9") && text.contains("reads format 1"), "{text}");
    fs::write(&path, "a diary, not a log, and longer than a header").unwrap();
    assert!(matches!(Log::open_with(tmp.path(), Options::default()), Err(Error::Corrupt { offset: 0, .. })));
}

#[test]
fn batch_damaged_while_the_store_is_open_is_not_served() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    log.put(vec![batch(key(1, 1), 1, 1, "some bytes")]);
    let path = first_segment(tmp.path());
    let len = log.store.stats().bytes;
    fs::File::options().write(true).open(&path).unwrap().write_all_at(b"X", len - 3).unwrap();
    assert!(matches!(log.store.read(key(1, 1), 1, 99), Err(Error::Corrupt { .. })));
}
