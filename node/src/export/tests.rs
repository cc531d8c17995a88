//! The export file cut and flipped at every byte, directories with faults, and places that differ.
//!
//! Invariants: nothing that was changed passes, and every refusal says what happened and what to do.

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use starling_core::event::{Event, SignedBatch, Signer, cluster_id, membership_mac};
use starling_core::ids::{ClusterId, Epoch, Hash, JobId, JobNo, LogId, Seq};
use starling_core::namespace::sys;
use starling_core::time::Hlc;

use super::check::{self, Examined};
use super::diff::{Side, compare};
use super::dir;
use super::form::{Counts, FormError, Reader, Writer};
use crate::storage::{Completion, LogKey, Options, Record, Store};

const SECRET: [u8; 32] = [7; 32];

fn cluster() -> ClusterId {
    cluster_id(&SECRET)
}

/// A member that appends to its own log.
#[derive(Clone)]
struct Author {
    signer: Signer,
    next: Seq,
    prev: Hash,
}

impl Author {
    fn new(seed: u8) -> Self {
        Self { signer: Signer::from_seed(&[seed; 32]), next: Seq(1), prev: Hash::ZERO }
    }

    fn log(&self) -> LogId {
        LogId { node: self.signer.node(), epoch: Epoch(1) }
    }

    fn append(&mut self, events: &[Event]) -> SignedBatch {
        let events = events.iter().map(|event| (event.clone(), event.to_bytes())).collect();
        let batch = SignedBatch::seal(&self.signer, cluster(), Epoch(1), self.next, self.prev, events);
        (self.next, self.prev) = (Seq(batch.header().last_seq().0 + 1), batch.head());
        batch
    }

    fn open(&mut self, name: &str) -> SignedBatch {
        let mac = membership_mac(&SECRET, &self.signer.node());
        self.append(&[sys::admit(at(1), mac, name)])
    }

    fn say(&mut self, no: u64, count: usize) -> SignedBatch {
        let event = sys::cancel(at(no), JobId { log: self.log(), no: JobNo(no) });
        self.append(&vec![event; count])
    }
}

fn at(wall_ms: u64) -> Hlc {
    Hlc { wall_ms, count: 0 }
}

/// Four batches of two authors.
fn sample() -> Vec<SignedBatch> {
    let (mut wren, mut lark) = (Author::new(1), Author::new(2));
    vec![wren.open("wren"), lark.open("lark"), wren.say(1, 2), lark.say(1, 1)]
}

fn exported(batches: &[SignedBatch]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), &cluster(), 1_234).unwrap();
    for batch in batches {
        writer.batch(batch.bytes(), batch.header().count).unwrap();
    }
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<Vec<SignedBatch>, FormError> {
    let mut reader = Reader::open(bytes)?;
    let mut batches = Vec::new();
    while let Some(placed) = reader.next_batch()? {
        batches.push(placed.batch);
    }
    Ok(batches)
}

#[test]
fn an_export_reads_back_as_it_was_written() {
    let (batches, bytes) = (sample(), exported(&sample()));
    let mut reader = Reader::open(bytes.as_slice()).unwrap();
    assert_eq!((reader.cluster(), reader.made_unix_ms()), (cluster(), 1_234));
    for batch in &batches {
        assert_eq!(reader.next_batch().unwrap().unwrap().batch, *batch);
    }
    assert!(reader.next_batch().unwrap().is_none());
    assert!(reader.next_batch().unwrap().is_none());
    assert_eq!(reader.counts(), Counts { batches: 4, events: 5 });
    assert_eq!(read(&exported(&[])).unwrap(), []);
}

#[test]
fn an_export_cut_at_any_byte_is_refused() {
    let bytes = exported(&sample());
    for cut in 0..bytes.len() {
        match read(&bytes[..cut]).unwrap_err() {
            FormError::NotAnExport => assert_eq!(cut, 0),
            FormError::CutOff(end) => assert_eq!(end, cut as u64),
            other => panic!("cut at {cut}: {other}"),
        }
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert!(matches!(read(&longer).unwrap_err(), FormError::Trailing(end) if end == bytes.len() as u64));
}

#[test]
fn an_export_with_any_byte_flipped_is_refused_with_the_reason() {
    let bytes = exported(&sample());
    for place in 0..bytes.len() {
        for bit in [1_u8, 0x80] {
            let mut doctored = bytes.clone();
            doctored[place] ^= bit;
            let error = read(&doctored).unwrap_err();
            let named = match place {
                0..8 => matches!(error, FormError::NotAnExport),
                8..12 => matches!(error, FormError::Version(_)),
                12..56 => matches!(error, FormError::Header),
                _ => matches!(
                    error,
                    FormError::Batch { .. } | FormError::Length { .. } | FormError::CutOff(_) | FormError::Hash
                ),
            };
            assert!(named, "byte {place}: {error}");
            let says = error.to_string();
            assert!(says.contains("again") || says.contains("export`") || says.contains("use the program"), "{says}");
        }
    }
}

#[test]
fn batches_left_out_or_swapped_by_somebody_who_fixes_the_hash_show_as_missing() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("x.starlog");
    let [a, b, c, d] = <[SignedBatch; 4]>::try_from(sample()).unwrap();
    fs::write(&path, exported(&[a, b, d])).unwrap();
    assert!(check::file(&path).unwrap().verdict.is_sound(), "what is not there cannot be seen");
    fs::write(&path, exported(&[c])).unwrap();
    let verdict = check::file(&path).unwrap().verdict;
    assert_eq!(verdict.logs[0].missing, [(Seq(1), Seq(1))]);
    assert!(verdict.notes[0].contains("events 1 to 1 of the log of"), "{:?}", verdict.notes);
}

/// A data directory whose log holds these batches, a group each.
fn home(batches: &[SignedBatch]) -> tempfile::TempDir {
    let tmp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = open(tmp.path());
    for batch in batches {
        put(&store, batch);
    }
    tmp
}

fn open(dir: &Path) -> (Store, std::sync::mpsc::Receiver<Completion>) {
    let (tx, done) = channel();
    let options = Options { segment_bytes: 300, ..Options::default() };
    let on_done = Box::new(move |completion| drop(tx.send(completion)));
    (Store::open(&dir.join("log"), options, on_done).unwrap().0, done)
}

fn put((store, done): &(Store, std::sync::mpsc::Receiver<Completion>), batch: &SignedBatch) {
    let header = batch.header();
    let log = LogKey { node: header.log.node.0, epoch: header.log.epoch.0 };
    let bytes = Bytes::copy_from_slice(batch.bytes());
    let record = Record::Batch { log, first_seq: header.first_seq.0, count: header.count, bytes };
    store.write(0, vec![record]).unwrap();
    done.recv_timeout(Duration::from_secs(20)).unwrap().result.unwrap();
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "log"));
    paths.sort();
    paths
}

fn faults(examined: &Examined) -> Vec<&str> {
    examined.verdict.faults.iter().map(|fault| fault.sentence.as_str()).collect()
}

#[test]
fn a_sound_directory_is_summed_up_while_its_node_runs() {
    let tmp = tempfile::tempdir().unwrap();
    let store = open(tmp.path());
    sample().iter().for_each(|batch| put(&store, batch));
    let examined = check::directory(tmp.path()).unwrap();
    assert_eq!(faults(&examined), [""; 0]);
    assert_eq!(examined.verdict.counts, Counts { batches: 4, events: 5 });
    let mut lines: Vec<_> =
        examined.verdict.logs.iter().map(|line| (line.name.as_str(), line.len.0, line.forks)).collect();
    lines.sort_unstable();
    assert_eq!(lines, [("lark", 2, 0), ("wren", 3, 0)]);
    assert!(matches!(dir::claim(tmp.path()), Err(dir::DirError::InUse { .. })));
    drop(store);
    dir::claim(tmp.path()).unwrap();
    let mut seen = Vec::new();
    dir::each_batch(tmp.path(), |of, batch| {
        assert_eq!(of, cluster());
        seen.push(batch);
        Ok::<_, dir::DirError>(())
    })
    .unwrap();
    assert_eq!(seen, sample());
}

#[test]
fn every_flipped_byte_of_a_directory_is_told_or_was_never_durable() {
    let tmp = home(&sample());
    let paths = segments(tmp.path());
    assert!(paths.len() > 2, "{paths:?}");
    for path in &paths[..2] {
        let good = fs::read(path).unwrap();
        for place in 0..good.len() {
            let mut doctored = good.clone();
            doctored[place] ^= 1;
            fs::write(path, &doctored).unwrap();
            let examined = check::directory(tmp.path()).unwrap();
            let told = faults(&examined);
            assert!(told.iter().any(|fault| fault.contains(&path.display().to_string())), "{place}: {told:?}");
        }
        fs::write(path, good).unwrap();
    }
    assert!(check::directory(tmp.path()).unwrap().verdict.is_sound());
}

#[test]
fn a_batch_that_a_doctored_disk_frames_well_is_told_by_its_signature() {
    let mut batches = sample();
    let tmp = home(&batches[..3]);
    let forged = batches.remove(3);
    let mut bytes = forged.bytes().to_vec();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    let store = open(tmp.path());
    let header = forged.header();
    let log = LogKey { node: header.log.node.0, epoch: header.log.epoch.0 };
    let record = Record::Batch { log, first_seq: header.first_seq.0, count: header.count, bytes: bytes.into() };
    store.0.write(0, vec![record]).unwrap();
    store.1.recv_timeout(Duration::from_secs(20)).unwrap().result.unwrap();
    let examined = check::directory(tmp.path()).unwrap();
    assert_eq!(faults(&examined).len(), 1);
    assert!(faults(&examined)[0].contains("a batch that its author did not sign"), "{:?}", faults(&examined));
}

#[test]
fn missing_segments_and_missing_events_are_told_with_what_to_do() {
    let tmp = home(&sample());
    let paths = segments(tmp.path());
    fs::remove_file(&paths[1]).unwrap();
    let examined = check::directory(tmp.path()).unwrap();
    let told = faults(&examined).join("\n");
    assert!(told.contains("00000002.log is missing although later segments"), "{told}");
    let [a, _, _, d] = <[SignedBatch; 4]>::try_from(sample()).unwrap();
    let tmp = home(&[a, d]);
    let told = check::directory(tmp.path()).unwrap();
    assert!(faults(&told)[0].contains("events 1 to 1 of the log of"), "{:?}", faults(&told));
    assert!(faults(&told)[0].contains("start the node"));
    assert!(matches!(check::directory(&tmp.path().join("nothing")), Err(dir::DirError::NoLog(_))));
}

fn side(batches: &[SignedBatch]) -> Side {
    let mut side = Side::default();
    for batch in batches {
        side.survey.take(batch);
    }
    side
}

/// What each side alone has of each log, and where they part.
fn differences(first: &Side, second: &Side) -> Vec<(String, [u64; 2], Option<Seq>)> {
    let lines = compare(first, second);
    let back = compare(second, first);
    for (line, back) in lines.iter().zip(&back) {
        assert_eq!((line.only, line.parts_at), ([back.only[1], back.only[0]], back.parts_at));
        assert_eq!(line.is_equal(), back.is_equal());
    }
    let differing = lines.into_iter().filter(|line| !line.is_equal());
    let mut found: Vec<_> = differing.map(|line| (line.name, line.only, line.parts_at)).collect();
    found.sort();
    found
}

#[test]
fn what_one_has_and_the_other_lacks_is_counted_for_each_log() {
    let batches = sample();
    assert_eq!(differences(&side(&batches), &side(&batches)), []);
    let found = differences(&side(&batches), &side(&batches[..2]));
    assert_eq!(found, [("lark".to_owned(), [1, 0], None), ("wren".to_owned(), [2, 0], None)]);
    let found = differences(&side(&batches[..1]), &side(&batches[1..2]));
    assert_eq!(found, [("lark".to_owned(), [0, 1], None), ("wren".to_owned(), [1, 0], None)]);
}

#[test]
fn what_a_snapshot_holds_counts_and_a_hole_does_not() {
    let batches = sample();
    let (whole, mut late) = (side(&batches), side(&batches[2..]));
    let found = differences(&whole, &late);
    assert_eq!(found.iter().map(|(_, only, _)| *only).collect::<Vec<_>>(), [[1, 0], [1, 0]]);
    for batch in &batches[..2] {
        late.held.insert(batch.header().log, Seq(1));
    }
    assert_eq!(differences(&whole, &late), []);
}

#[test]
fn two_histories_of_one_author_part_where_they_first_differ() {
    let mut wren = Author::new(1);
    let (opening, shared) = (wren.open("wren"), wren.say(1, 2));
    let mut clone = wren.clone();
    let (ours, theirs, further) = (wren.say(2, 1), clone.say(3, 2), clone.say(4, 1));
    let one = side(&[opening.clone(), shared.clone(), ours.clone()]);
    let two = side(&[opening.clone(), shared.clone(), theirs.clone(), further.clone()]);
    assert_eq!(differences(&one, &two), [("wren".to_owned(), [0, 2], Some(Seq(4)))]);
    // Both know both branches, each its own way round.
    let one = side(&[opening.clone(), shared.clone(), ours.clone(), theirs.clone()]);
    let two = side(&[opening, shared, theirs, ours]);
    assert_eq!(differences(&one, &two), []);
}
