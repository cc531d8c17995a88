//! The writer: merging, bounds, order, and what failed writes and syncs leave behind.
//!
//! Invariants: failures are real ones (a full device, a file that cannot be synced).
//! Does not: fill a file system (`crash`).

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, RwLock};

use super::super::queue::{Bounds, Queue};
use super::super::recovery::Segment;
use super::super::writer::Writer;
use super::super::{
    Counters, Index, OnDone, Options, QueueFull, RECORD_BYTES_MAX, Record, Segments, Shared, Store, WriteError,
};
use super::{DEADLINE, Log, batch, fast_dir, key, local};

/// Opens a store whose first completion waits for the returned gate to be dropped.
fn gated(options: Options) -> (tempfile::TempDir, Store, std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<u64>) {
    let tmp = fast_dir();
    let (gate, held) = channel::<()>();
    let (tx, done) = channel();
    let on_done = Box::new(move |completion: super::Completion| {
        completion.result.unwrap();
        tx.send(completion.id).unwrap();
        let _ = held.recv();
    });
    let (store, _) = Store::open(tmp.path(), options, on_done).unwrap();
    (tmp, store, gate, done)
}

#[test]
fn writes_queued_during_a_commit_share_the_next_sync() {
    let (_tmp, store, gate, done) = gated(Options::default());
    store.write(0, vec![local("first")]).unwrap();
    assert_eq!(done.recv_timeout(DEADLINE), Ok(0));
    for id in 1..=100 {
        store.write(id, vec![batch(key(1, 1), id, 1, "x")]).unwrap();
    }
    drop(gate);
    for id in 1..=100 {
        assert_eq!(done.recv_timeout(DEADLINE), Ok(id));
    }
    assert_eq!((store.stats().fsyncs, store.stats().records), (2, 101));
}

#[test]
fn full_queue_gives_the_records_back() {
    let (_tmp, store, gate, done) = gated(Options { queue_writes_max: 2, ..Options::default() });
    store.write(0, vec![]).unwrap();
    assert_eq!(done.recv_timeout(DEADLINE), Ok(0));
    store.write(1, vec![local("a")]).unwrap();
    store.write(2, vec![local("b")]).unwrap();
    let QueueFull(back) = store.write(3, vec![local("c")]).unwrap_err();
    assert_eq!(back, [local("c")]);
    drop(gate);
    assert_eq!(done.recv_timeout(DEADLINE), Ok(1));
    assert_eq!(done.recv_timeout(DEADLINE), Ok(2));
    store.write(3, back).unwrap();
}

#[test]
fn queue_is_bounded_in_bytes_too() {
    let (_tmp, store, gate, done) = gated(Options { queue_bytes_max: 50, ..Options::default() });
    store.write(0, vec![local(&"x".repeat(500))]).unwrap();
    assert_eq!(done.recv_timeout(DEADLINE), Ok(0));
    store.write(1, vec![local(&"x".repeat(30))]).unwrap();
    store.write(2, vec![local(&"x".repeat(30))]).unwrap_err();
    drop(gate);
}

#[test]
fn dropping_the_store_finishes_what_was_queued() {
    let (tmp, store, gate, done) = gated(Options::default());
    store.write(0, vec![local("0")]).unwrap();
    assert_eq!(done.recv_timeout(DEADLINE), Ok(0));
    for id in 1..10 {
        store.write(id, vec![local("more")]).unwrap();
    }
    drop(gate);
    drop(store);
    assert_eq!(done.iter().count(), 9);
    assert_eq!(Log::open(tmp.path()).recovered().len(), 10);
}

#[test]
fn oversize_record_fails_alone() {
    let tmp = fast_dir();
    let log = Log::open(tmp.path());
    log.store.write(1, vec![local("a")]).unwrap();
    log.store.write(2, vec![local("b"), Record::Local(vec![0; RECORD_BYTES_MAX + 1].into())]).unwrap();
    log.store.write(3, vec![Record::Local(vec![7; RECORD_BYTES_MAX].into())]).unwrap();
    let results: Vec<_> = (0..3).map(|_| log.done.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(
        results.iter().map(|done| (done.id, done.result.is_ok())).collect::<Vec<_>>(),
        [(1, true), (2, false), (3, true)]
    );
    assert!(matches!(results[1].result, Err(WriteError::TooLarge { .. })));
    drop(log);
    assert_eq!(Log::open(tmp.path()).recovered().len(), 2);
}

#[test]
fn reads_beside_a_busy_writer_see_a_growing_whole_prefix() {
    let tmp = fast_dir();
    let log = Log::open_with(tmp.path(), Options { segment_bytes: 4096, ..Options::default() }).unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let author = key(9, 9);
    let text = |seq: u64| format!("batch number {seq}");
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (reader, written) = (log.store.reader(), Arc::clone(&written));
            std::thread::spawn(move || {
                loop {
                    let durable = written.load(Ordering::Acquire);
                    let all = reader.read(author, 1, usize::MAX).unwrap();
                    assert!(all.len() as u64 >= durable);
                    for (place, (seq, bytes)) in all.iter().enumerate() {
                        assert_eq!(*seq, place as u64 + 1);
                        assert_eq!(bytes, text(*seq).as_bytes());
                    }
                    if durable == 1000 {
                        return;
                    }
                }
            })
        })
        .collect();
    for seq in 1..=1000 {
        log.put(vec![batch(author, seq, 1, &text(seq))]);
        written.store(seq, Ordering::Release);
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// Runs a writer over `device` instead of a segment and returns how `n` writes ended.
fn write_to(device: &str, n: u64) -> Vec<Result<(), WriteError>> {
    let tmp = fast_dir();
    let file = Arc::new(File::options().read(true).write(true).open(device).unwrap());
    let segment = Segment { file, salt: 1, len: 24 };
    let shared = Arc::new(Shared {
        dir: tmp.path().to_owned(),
        options: Options { group_bytes_max: 1, ..Options::default() },
        queue: Queue::new(Bounds { writes: 10, bytes: 1000 }),
        index: RwLock::new(Index::default()),
        segments: RwLock::new(Segments { first: 1, list: vec![segment.clone()] }),
        counters: Counters::default(),
    });
    let (tx, done) = channel();
    let on_done = OnDone(Box::new(move |completion| {
        tx.send(completion.result).unwrap();
    }));
    let writer = Writer::new(Arc::clone(&shared), on_done, 1, &segment);
    for id in 0..n {
        shared.queue.push(id, vec![batch(key(1, 1), id, 1, "x")]).unwrap();
    }
    shared.queue.close();
    writer.run();
    assert!(shared.index.read().unwrap().find(key(1, 1), 0, 99, 0).is_empty());
    done.iter().collect()
}

#[test]
fn full_device_is_reported_as_full() {
    let results = write_to("/dev/full", 1);
    assert!(matches!(results[..], [Err(WriteError::Full { .. })]), "{results:?}");
}

#[test]
fn failed_sync_stops_all_further_writes() {
    // A write to the null device succeeds, a sync of it does not.
    let results = write_to("/dev/null", 3);
    assert!(results.iter().all(|result| matches!(result, Err(WriteError::Poisoned { .. }))), "{results:?}");
    let text = results[2].as_ref().unwrap_err().to_string();
    assert!(text.contains("restart the node"), "{text}");
}
