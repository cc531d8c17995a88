//! The log on a real file system: what a torn, flipped, killed, full or shared one does.
//!
//! Invariants: no sleeps; every wait has a deadline.
//! Does not: measure speed.

mod crash;
mod damage;
mod snapshots;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::{Completion, Error, LogKey, Options, Record, Recovery, Store};

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory in memory where there is one: these tests open thousands of logs, and syncs say nothing there.
fn fast_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct Log {
    store: Store,
    recovery: Recovery,
    done: Receiver<Completion>,
}

impl Log {
    /// Tries again while the lock seems taken: a child that another test is just starting holds every file of this process until it is the other program.
    fn open(dir: &Path) -> Self {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match Self::open_with(dir, Options::default()) {
                Err(Error::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn open_with(dir: &Path, options: Options) -> Result<Self, Error> {
        let (tx, done) = channel();
        let on_done = Box::new(move |completion| drop(tx.send(completion)));
        let (store, recovery) = Store::open(dir, options, on_done)?;
        Ok(Self { store, recovery, done })
    }

    /// Writes one group and waits until it is durable.
    fn put(&self, records: Vec<Record>) {
        self.store.write(0, records).unwrap();
        self.done.recv_timeout(DEADLINE).unwrap().result.unwrap();
    }

    fn recovered(self) -> Vec<Record> {
        self.recovery.map(Result::unwrap).collect()
    }
}

fn key(node: u8, epoch: u64) -> LogKey {
    LogKey { node: [node; 32], epoch }
}

fn batch(log: LogKey, first_seq: u64, count: u32, text: &str) -> Record {
    Record::Batch { log, first_seq, count, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn local(text: &str) -> Record {
    Record::Local(Bytes::copy_from_slice(text.as_bytes()))
}

fn first_segment(dir: &Path) -> PathBuf {
    dir.join("00000001.log")
}

#[test]
fn empty_directory_opens_with_nothing_and_private_modes() {
    use std::os::unix::fs::PermissionsExt;
    let tmp = fast_dir();
    let dir = tmp.path().join("a/b");
    let log = Log::open(&dir);
    assert_eq!((log.recovery.records, log.recovery.clean, &log.recovery.torn), (0, false, &None));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&first_segment(&dir)), mode(&dir.join("lock"))), (0o700, 0o600, 0o600));
    assert!(log.store.stats().free_disk_bytes.unwrap() > 0);
}

#[test]
fn all_kinds_come_back_in_write_order_across_segments() {
    let tmp = fast_dir();
    let options = Options { segment_bytes: 300, ..Options::default() };
    let log = Log::open_with(tmp.path(), options).unwrap();
    let mut written = Vec::new();
    for n in 0..50 {
        let group = vec![batch(key(1, 7), 1 + 2 * n, 2, &format!("batch {n}")), local(&format!("note {n}"))];
        written.extend(group.clone());
        log.put(group);
    }
    log.put(vec![Record::Clean]);
    written.push(Record::Clean);
    let stats = log.store.stats();
    assert!(stats.segments > 10, "{stats:?}");
    assert_eq!((stats.records, stats.fsyncs), (101, 51));
    drop(log);
    let log = Log::open_with(tmp.path(), options).unwrap();
    assert!(log.recovery.clean);
    assert_eq!(log.recovery.records, 101);
    assert_eq!((log.store.stats().bytes, log.store.stats().segments), (stats.bytes, stats.segments));
    let all = log.store.read(key(1, 7), 1, usize::MAX).unwrap();
    assert_eq!(all.len(), 50);
    assert_eq!(log.recovered(), written);
}

#[test]
fn clean_marker_counts_only_at_the_very_end() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    log.put(vec![Record::Clean]);
    log.put(vec![local("later")]);
    drop(log);
    assert!(!Log::open(tmp.path()).recovery.clean);
}

#[test]
fn read_gives_whole_batches_from_the_one_that_holds_the_seq() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    let author = key(3, 1);
    let texts = ["one-two-three", "four", "five-six", "nine"];
    // Seqs 7 and 8 are missing; the last two arrive out of order.
    let group = [(1, 3, 0), (4, 1, 1), (9, 1, 3), (5, 2, 2)];
    log.put(group.map(|(seq, count, text)| batch(author, seq, count, texts[text])).to_vec());
    let read = |from, max| -> Vec<u64> {
        log.store.read(author, from, max).unwrap().into_iter().map(|(seq, _)| seq).collect()
    };
    assert_eq!(read(0, usize::MAX), [1, 4, 5, 9]);
    assert_eq!(read(3, usize::MAX), [1, 4, 5, 9]);
    assert_eq!(read(4, usize::MAX), [4, 5, 9]);
    assert_eq!(read(6, usize::MAX), [5, 9]);
    assert_eq!(read(7, usize::MAX), [9]);
    assert_eq!(read(10, usize::MAX), [0_u64; 0]);
    assert_eq!(read(1, 0), [1]);
    assert_eq!(read(1, 17), [1, 4]);
    assert_eq!(read(1, 16), [1]);
    assert_eq!(log.store.read(key(4, 1), 1, 9).unwrap(), []);
    assert_eq!(&log.store.reader().read(author, 6, 1).unwrap()[0].1[..], b"five-six");
}

#[test]
fn branches_of_a_fork_are_kept_and_read_in_the_order_they_came() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    let both = vec![batch(key(1, 1), 1, 2, "first"), batch(key(1, 1), 1, 2, "other")];
    log.put(both.clone());
    let read = |log: &Log| {
        let found = log.store.read(key(1, 1), 1, 99).unwrap();
        found.iter().map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(read(&log), [b"first", b"other"]);
    drop(log);
    let log = Log::open(tmp.path());
    assert_eq!(read(&log), [b"first", b"other"]);
    assert_eq!(log.recovered(), both);
}

#[test]
fn overlapping_branches_are_both_found() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    log.put(vec![batch(key(1, 1), 1, 10, "long"), batch(key(1, 1), 2, 2, "short")]);
    let read = log.store.read(key(1, 1), 5, 99).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(&read[0].1[..], b"long");
}

#[test]
fn second_opener_is_told_who_holds_the_directory() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    let error = Log::open_with(tmp.path(), Options::default()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{text}");
    assert!(text.contains("in use by process") && text.contains("another directory"), "{text}");
    drop(log);
    Log::open(tmp.path());
}
