//! Snapshots beside the log: two are kept, damage to one loses nothing, and segments below the older one may go.

use std::fs;

use super::super::snapshots::{Loaded, Name, Snapshots, Stored};
use super::super::{Recent, segment};
use super::*;

fn naming(shared: &[u8]) -> Name {
    *blake3::hash(shared).as_bytes()
}

fn open(dir: &Path) -> (Snapshots, Stored) {
    Snapshots::open(dir, naming).unwrap()
}

fn loaded(segment: u32, text: &str) -> Loaded {
    Loaded { segment, shared: text.as_bytes().to_vec(), local: b"mine".to_vec() }
}

fn put(snapshots: &Snapshots, segment: u32, text: &str) -> u32 {
    snapshots.write(segment, text.as_bytes(), b"mine").unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_are_kept_and_the_log_beyond_the_older_is_needed() {
    let tmp = fast_dir();
    let (snapshots, found) = open(tmp.path());
    assert!(found.own.is_none() && found.joined.is_empty() && found.damaged.is_empty());
    assert_eq!(put(&snapshots, 3, "one"), 1, "the first alone makes nothing superfluous");
    snapshots.write_joined(b"another's").unwrap();
    assert_eq!(put(&snapshots, 7, "three"), 3);
    assert_eq!(files(tmp.path()), ["00000001.own", "00000002.joined", "00000003.own"]);
    let (_, found) = open(tmp.path());
    assert_eq!((found.own, found.joined.len()), (Some(loaded(7, "three")), 0), "it contains what was joined before it");
    assert_eq!(put(&snapshots, 9, "four"), 7);
    assert_eq!(files(tmp.path()), ["00000003.own", "00000004.own"]);
    snapshots.write_joined(b"later").unwrap();
    let (_, found) = open(tmp.path());
    assert_eq!((found.own.unwrap().segment, found.joined[0].shared.as_slice()), (9, b"later".as_slice()));
}

#[test]
fn a_damaged_one_is_named_and_the_one_before_it_serves_with_what_was_joined_since() {
    let tmp = fast_dir();
    let (snapshots, _) = open(tmp.path());
    put(&snapshots, 3, "one");
    snapshots.write_joined(b"another's").unwrap();
    put(&snapshots, 7, "three");
    let newest = tmp.path().join("00000003.own");
    let whole = fs::read(&newest).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&newest, &bytes).unwrap();
        // The version is read before anything else, so that a later one can check itself differently.
        if (8..12).contains(&at) {
            assert!(matches!(Snapshots::open(tmp.path(), naming), Err(Error::Version { .. })));
            continue;
        }
        let (_, found) = open(tmp.path());
        assert_eq!(found.own, Some(loaded(3, "one")), "flip at {at}");
        assert_eq!((found.joined.len(), &found.damaged), (1, &vec![newest.clone()]));
    }
    for cut in 0..whole.len() {
        fs::write(&newest, &whole[..cut]).unwrap();
        assert_eq!(open(tmp.path()).1.own, Some(loaded(3, "one")), "cut at {cut}");
    }
}

#[test]
fn pieces_are_served_by_name_from_both_and_nothing_beyond_their_ends() {
    let tmp = fast_dir();
    let (snapshots, _) = open(tmp.path());
    assert_eq!(snapshots.newest(), None);
    put(&snapshots, 1, "the first");
    put(&snapshots, 1, "the second");
    let (old, new) = (naming(b"the first"), naming(b"the second"));
    assert_eq!(snapshots.newest(), Some((new, 10)));
    let piece = |name: &Name, offset, max| snapshots.piece(name, offset, max).unwrap();
    assert_eq!(piece(&old, 4, 99).unwrap(), "first");
    assert_eq!(piece(&new, 4, 3).unwrap(), "sec");
    assert_eq!((piece(&new, 10, 9), piece(&new, u64::MAX, 9), piece(&[0; 32], 0, 9)), (None, None, None));
    put(&snapshots, 1, "the third");
    assert_eq!(piece(&old, 0, 9), None);
    let (again, _) = open(tmp.path());
    assert_eq!(again.newest().unwrap().1, 9);
}

#[test]
fn recent_log_is_told_by_its_bytes_and_by_its_age() {
    let tmp = fast_dir();
    let log = Log::open_with(tmp.path(), Options { segment_bytes: 300, ..Options::default() }).unwrap();
    for n in 0..30 {
        log.put(vec![batch(key(1, 7), 1 + n, 1, &format!("batch {n}"))]);
    }
    let (current, all) = (log.store.current(), log.store.stats().bytes);
    let recent = |bytes, secs, bytes_max| {
        log.store.compactor().recent(Recent { bytes, age: Duration::from_secs(secs), bytes_max })
    };
    assert_eq!(recent(0, 0, 0), current + 1, "none of it");
    assert_eq!(
        recent(1, 0, 0),
        current - 1,
        "the segment that is written, and one byte, and all of that one's segment"
    );
    assert_eq!(recent(all, 0, 0), 1);
    assert!((2..current).contains(&recent(all / 2, 0, 0)));
    assert_eq!(recent(0, 3_600, u64::MAX), 1, "written within the hour");
    assert!((2..current).contains(&recent(0, 3_600, all / 2)), "but not more than that of it");
    let old = std::time::SystemTime::now() - Duration::from_secs(7_200);
    let third = segment::path(tmp.path(), 3);
    fs::File::options().write(true).open(third).unwrap().set_modified(old).unwrap();
    assert_eq!(recent(0, 3_600, u64::MAX), 4);
}

#[test]
fn how_much_of_a_log_lies_below_a_snapshot_is_told() {
    let tmp = fast_dir();
    let log = Log::open_with(tmp.path(), Options { segment_bytes: 300, ..Options::default() }).unwrap();
    for n in 0..30 {
        log.put(vec![batch(key(1, 7), 1 + n, 1, "0123456789"), batch(key(2, 1), 1 + n, 1, "x")]);
    }
    let (reader, current) = (log.store.reader(), log.store.current());
    let more_than = |from, below, bytes| reader.holds_more_than(key(1, 7), from, below, bytes);
    assert!(more_than(1, u32::MAX, 300) && more_than(21, u32::MAX, 100));
    assert!(!more_than(1, u32::MAX, 30_000) && !more_than(31, u32::MAX, 0));
    assert!(more_than(1, current, 100) && !more_than(1, 1, 0), "only what lies below");
    assert!(!more_than(30, current, 0), "the last is in the last segment");
    assert!(!reader.holds_more_than(key(3, 1), 1, u32::MAX, 0));
}

#[test]
fn segments_below_a_snapshot_go_and_the_log_opens_without_them() {
    let tmp = fast_dir();
    let dir = tmp.path().join("log");
    let options = Options { segment_bytes: 300, ..Options::default() };
    let log = Log::open_with(&dir, options).unwrap();
    for n in 0..30 {
        log.put(vec![batch(key(1, 7), 1 + n, 1, &format!("batch {n}"))]);
    }
    let before = log.store.stats();
    let needed = log.store.current() - 2;
    assert!(log.store.compactor().drop_below(needed).unwrap() > 0);
    let after = log.store.stats();
    assert_eq!((after.segments, log.store.current()), (3, needed + 2));
    assert!(after.bytes < before.bytes);
    let first = log.store.read(key(1, 7), 1, 1).unwrap()[0].0;
    assert!(first > 1);
    log.put(vec![batch(key(1, 7), 31, 1, "one more")]);
    assert!(log.store.compactor().drop_below(u32::MAX).unwrap() > 0);
    assert_eq!(log.store.stats().segments, 1, "never the one that is being written");
    let last = log.store.current();
    drop(log);
    let error = Log::open_with(&dir, options).err().unwrap();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    let log = Log::open_with(&dir, Options { covered_below: last, ..options }).unwrap();
    log.put(vec![batch(key(1, 7), 32, 1, "and one")]);
    drop(log);
    let error = Log::open_with(&dir, Options { covered_below: last - 1, ..options }).err().unwrap();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    // What a snapshot covers is still served, but not given again.
    let log = Log::open_with(&dir, Options { covered_below: last + 1, ..options });
    assert!(matches!(log.map(|log| log.recovered()), Ok(records) if records.is_empty()));
}
