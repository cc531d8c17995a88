//! History: what goes in comes out, over restarts, tears and damage, and costs few bytes.

use std::fs;

use starling_core::facts::{Ended, Outcome, Ran, Usage};
use starling_core::ids::{Attempt, Epoch, GrantNo, JobNo, Term};
use starling_core::lattice::IntervalSet;

use super::*;

fn log(node: u8, epoch: u64) -> LogId {
    LogId { node: NodeId([node; 32]), epoch: Epoch(epoch) }
}

/// A plain job of node `owner`, run by another.
fn past(owner: u8, no: u64) -> Past {
    let tasks = IntervalSet::one(1);
    let grant = GrantNo { term: Term(1), no: 1 };
    Past {
        id: JobId { log: log(owner, 1), no: JobNo(no) },
        ns: "batch".into(),
        name: "demo".into(),
        alias: "".into(),
        request: Vec::new(),
        tasks: 1,
        submitted_ms: 1_790_000_000_000 + no % 10_000,
        started_ms: Some(1_790_000_000_040 + no % 10_000),
        ended_ms: 1_790_000_000_900 + no % 10_000,
        ended: vec![Ended { outcome: Outcome::Exit(0), count: 1, tasks: tasks.clone() }],
        ran: vec![Ran { node: NodeId([9; 32]), grant, attempt: Attempt(1), tasks }],
        usage: Usage { cpu_user_ms: 12, cpu_sys_ms: 4, wall_ms: 860, max_rss_bytes: 3 << 20 },
    }
}

fn id(owner: u8, no: u64) -> JobId {
    JobId { log: log(owner, 1), no: JobNo(no) }
}

#[test]
fn what_was_appended_is_found_before_and_after_it_is_on_disk_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path()).unwrap();
    let odd = Past {
        started_ms: None,
        ended_ms: 5,
        alias: "x".into(),
        ended: vec![
            Ended { outcome: Outcome::NotStarted(127, "no such file".into()), count: 7, tasks: IntervalSet::new() },
            Ended { outcome: Outcome::Lost, count: 2, tasks: [1, 5].into_iter().collect() },
        ],
        ..past(2, u64::MAX)
    };
    history.append(vec![past(1, 1), past(1, 2), odd.clone()]);
    history.append(vec![past(1, 2)]);
    for round in 0..3 {
        assert_eq!(history.find(&id(1, 2)).unwrap(), Some(past(1, 2)), "round {round}");
        assert_eq!(history.find(&odd.id).unwrap(), Some(odd.clone()));
        assert_eq!((history.find(&id(1, 3)).unwrap(), history.find(&id(3, 1)).unwrap()), (None, None));
        assert_eq!(history.size().jobs, 3, "once each");
        history.flush().unwrap();
    }
    let again = History::open(dir.path()).unwrap();
    again.append(vec![past(1, 1), past(4, 8)]);
    again.flush().unwrap();
    assert_eq!(again.size().jobs, 4);
    assert_eq!(again.find(&odd.id).unwrap(), Some(odd.clone()));
    let newest: Vec<JobId> = again.newest(3, 100, |_| true).unwrap().0.iter().map(|past| past.id).collect();
    assert_eq!(newest, [id(4, 8), odd.id, id(1, 2)]);
    let of_one = again.newest(9, 100, |past| past.id.log.node == NodeId([1; 32])).unwrap();
    assert_eq!((of_one.0.len(), of_one.1), (2, 2));
    assert_eq!(again.newest(1, 100, |_| true).unwrap().1, 4);
    assert_eq!(again.newest(9, 2, |_| true).unwrap().1, 2);
}

#[test]
fn a_plain_job_costs_less_than_a_hundred_bytes_and_the_index_next_to_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path()).unwrap();
    for batch in 0..200 {
        history.append((0..50).map(|no| past(1, 50 * batch + no)).collect());
        history.flush().unwrap();
    }
    let Size { jobs, bytes } = history.size();
    assert_eq!(jobs, 10_000);
    assert!(bytes < 100 * jobs, "{bytes} bytes for {jobs} jobs");
    let inner = history.read();
    assert!((inner.spans.len() as u64) <= 2 * bytes / SPAN_BYTES + 1, "{} spans", inner.spans.len());
    assert_eq!(inner.have.values().map(Numbers::range_count).sum::<usize>(), 1);
    drop(inner);
    assert_eq!(history.find(&id(1, 7_777)).unwrap(), Some(past(1, 7_777)));
}

#[test]
fn a_file_torn_at_any_byte_keeps_every_whole_block() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path()).unwrap();
    history.append(vec![past(1, 1), past(1, 2)]);
    history.flush().unwrap();
    let whole = history.size().bytes;
    history.append(vec![past(2, 3)]);
    history.flush().unwrap();
    let bytes = fs::read(dir.path().join("history/jobs")).unwrap();
    for cut in 0..=bytes.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("history")).unwrap();
        fs::write(dir.path().join("history/jobs"), &bytes[..cut]).unwrap();
        let torn = History::open(dir.path()).unwrap();
        let expected = if cut == bytes.len() { 3 } else { 2 * u64::from(cut as u64 >= whole) };
        assert_eq!(torn.size().jobs, expected, "cut at {cut}");
        torn.append(vec![past(5, 1)]);
        torn.flush().unwrap();
        assert_eq!(torn.find(&id(5, 1)).unwrap(), Some(past(5, 1)));
    }
}

#[test]
fn a_file_damaged_before_its_end_is_kept_aside_and_its_good_part_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path()).unwrap();
    let mut ends = Vec::new();
    for no in 1..=3 {
        history.append(vec![past(1, no)]);
        history.flush().unwrap();
        ends.push(usize::try_from(history.size().bytes).unwrap());
    }
    let path = dir.path().join("history/jobs");
    let mut bytes = fs::read(&path).unwrap();
    bytes[ends[0] + 20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let again = History::open(dir.path()).unwrap();
    assert_eq!((again.size().jobs, again.find(&id(1, 1)).unwrap()), (1, Some(past(1, 1))));
    assert_eq!(fs::read(dir.path().join("history/damaged-1")).unwrap(), bytes);
    again.append(vec![past(1, 2)]);
    again.flush().unwrap();
    assert_eq!(History::open(dir.path()).unwrap().size().jobs, 2);
}
