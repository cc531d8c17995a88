//! Keepers and supervisors, the latter as threads; and journals, whole and torn.
//!
//! Invariants: no sleeps here (the tasks sleep); every wait has a deadline.
//! Does not: kill supervisors (the end-to-end tests do).

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use starling_core::facts::{Outcome, Usage};
use starling_core::ids::{Epoch, GrantId, GrantNo, JobId, JobNo, LogId, NodeId, RunId, Term};
use starling_core::lattice::IntervalSet;
use starling_core::machine::{Books, Fate};
use tempfile::TempDir;

use super::frame::{self, Ended, Order, Word};
use super::journal::{Book, Journal};
use super::{Happened, Keeper, Launcher, Spool, Start, Task, host, muster};
use crate::exec::output::{Stream, Streams, Written};
use crate::output::Place;

const DEADLINE: Duration = Duration::from_secs(30);

fn place(grant: u32, task: u32) -> Place {
    let log = LogId { node: NodeId([7; 32]), epoch: Epoch(1) };
    Place { grant: GrantId { job: JobId { log, no: JobNo(1) }, no: GrantNo { term: Term(1), no: grant } }, task }
}

fn ended(place: Place, code: i32) -> Word {
    let mut output = Streams::default();
    *output.of_mut(Stream::EnvErr) = Written { len: 3, dropped_bytes: 4 };
    Word::Ended(Box::new(Ended::new(place, Outcome::Exit(code), Usage::default(), &output)))
}

/// A node's side over several lives of its daemon.
struct Rig {
    home: TempDir,
    told: Arc<Mutex<Vec<(GrantId, IntervalSet)>>>,
}

struct Life {
    keeper: Keeper,
    thread: JoinHandle<()>,
    events: Receiver<Happened>,
}

impl Rig {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), told: Arc::default() }
    }

    fn spool(&self) -> Arc<Spool> {
        Arc::new(Spool::open(self.home.path()).unwrap())
    }

    fn start(&self, runs: &[(u64, Place)]) -> Life {
        let spool = self.spool();
        let found = muster(&spool).unwrap();
        let (tx, events) = channel();
        let told = Arc::clone(&self.told);
        let start = Start {
            found,
            spool,
            runs: runs.iter().map(|(run, place)| (RunId(*run), *place)).collect(),
            launcher: threads(),
            tell: Box::new(move |happened| drop(tx.send(happened))),
            told: Box::new(move |_| told.lock().unwrap().clone()),
        };
        let (keeper, thread) = Keeper::start(start).unwrap();
        Life { keeper, thread, events }
    }

    fn task(&self, place: Place, script: &str) -> Task {
        Task {
            place,
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            out: Task::path(&self.file(&format!("{}-{}", place.grant.no.no, place.task))),
            cap_bytes: 1 << 20,
            env_server: None,
            timeout_ms: 0,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }
}

impl Life {
    fn ended(&self) -> (u64, Outcome) {
        match self.events.recv_timeout(DEADLINE).expect("an end before the deadline") {
            Happened::Ended { run, outcome, .. } => (run.0, outcome),
            other @ Happened::Port { .. } => panic!("{other:?}"),
        }
    }

    fn leave(self) {
        self.keeper.leave();
        self.thread.join().unwrap();
    }
}

/// Supervisors that are threads of this process.
fn threads() -> Launcher {
    Box::new(|spool, name, listener| {
        let (path, name) = (spool.path().to_owned(), name.to_owned());
        std::thread::spawn(move || {
            let (_stop, stopped) = UnixStream::pair().unwrap();
            host::serve(&Spool::at(&path).unwrap(), &name, &listener, &stopped).unwrap();
        });
        Ok(None)
    })
}

fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < DEADLINE, "{what} did not come true");
        std::thread::yield_now();
    }
}

fn waits_for(gate: &Path, code: i32) -> String {
    format!("echo before; until [ -e {} ]; do sleep 0.02; done; echo after; exit {code}", gate.display())
}

#[test]
fn ends_are_told_and_one_supervisor_serves_a_grant() {
    let rig = Rig::new();
    let life = rig.start(&[]);
    for task in 1..=20 {
        assert!(life.keeper.launch(RunId(u64::from(task)), rig.task(place(1, task), &format!("exit {task}"))));
    }
    let mut ends: Vec<_> = (1..=20).map(|_| life.ended()).collect();
    ends.sort_unstable_by_key(|(run, _)| *run);
    let expected: Vec<_> = (1..=20_u64).map(|run| (run, Outcome::Exit(i32::try_from(run).unwrap()))).collect();
    assert_eq!(ends, expected);
    assert_eq!(rig.spool().names().unwrap().len(), 1);
    assert_eq!(life.keeper.groups(), []);
    life.leave();
}

#[test]
fn grants_that_run_at_once_have_supervisors_of_their_own() {
    let rig = Rig::new();
    let (life, gate) = (rig.start(&[]), rig.file("gate"));
    for grant in 1..=3 {
        assert!(life.keeper.launch(RunId(u64::from(grant)), rig.task(place(grant, 1), &waits_for(&gate, 0))));
    }
    until("three process groups", || life.keeper.groups().len() == 3);
    assert_eq!(rig.spool().names().unwrap().len(), 3);
    std::fs::write(&gate, "").unwrap();
    (0..3).for_each(|_| drop(life.ended()));
    life.leave();
}

#[test]
fn what_runs_goes_on_without_its_daemon_and_is_found_again() {
    let rig = Rig::new();
    let (life, gate) = (rig.start(&[]), rig.file("gate"));
    assert!(life.keeper.launch(RunId(1), rig.task(place(1, 1), &waits_for(&gate, 5))));
    assert!(life.keeper.launch(RunId(2), rig.task(place(1, 2), "exit 3")));
    assert_eq!(life.ended(), (2, Outcome::Exit(3)));
    until("its start", || !life.keeper.groups().is_empty());
    life.leave();
    let found = muster(&rig.spool()).unwrap();
    assert_eq!(found.books(), Books::Complete);
    let fates: Vec<_> = found.survivors().into_iter().map(|survivor| (survivor.task, survivor.fate)).collect();
    assert!(matches!(fates[..], [(1, Fate::Running { .. }), (2, Fate::Ended { outcome: Outcome::Exit(3), .. })]));
    drop(found);
    let life = rig.start(&[(9, place(1, 1))]);
    assert_eq!(life.keeper.groups().len(), 1, "known from the journal");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(life.ended(), (9, Outcome::Exit(5)));
    assert_eq!(std::fs::read_to_string(rig.file("1-1.out")).unwrap(), "before\nafter\n");
    // Once the log has both, nothing is kept.
    rig.told.lock().unwrap().push((place(1, 1).grant, IntervalSet::from_range(1, 2)));
    until("an empty spool", || rig.spool().names().unwrap().is_empty());
    life.leave();
}

#[test]
fn what_ends_without_its_daemon_is_found_in_the_journal() {
    let rig = Rig::new();
    let (life, gate) = (rig.start(&[]), rig.file("gate"));
    assert!(life.keeper.launch(RunId(1), rig.task(place(1, 1), &waits_for(&gate, 5))));
    until("its start", || !life.keeper.groups().is_empty());
    life.leave();
    std::fs::write(&gate, "").unwrap();
    let name = rig.spool().names().unwrap().pop_first().unwrap();
    until("the end of its supervisor", || rig.spool().connect(&name).is_err());
    let survivors = muster(&rig.spool()).unwrap().survivors();
    assert!(matches!(&survivors[..], [one] if matches!(one.fate, Fate::Ended { outcome: Outcome::Exit(5), .. })));
    let life = rig.start(&[]);
    rig.told.lock().unwrap().push((place(1, 1).grant, IntervalSet::one(1)));
    until("an empty spool", || rig.spool().names().unwrap().is_empty());
    life.leave();
}

#[test]
fn a_time_limit_holds_without_the_daemon_and_is_the_daemons_while_there_is_one() {
    let rig = Rig::new();
    let (life, gate) = (rig.start(&[]), rig.file("gate"));
    let limited = |task, script: &str| Task { timeout_ms: 50, ..rig.task(place(1, task), script) };
    assert!(life.keeper.launch(RunId(1), limited(1, "exec sleep 600")));
    assert!(life.keeper.launch(RunId(2), rig.task(place(1, 2), &waits_for(&gate, 0))));
    // Longer than its limit, and than the pace at which a supervisor looks.
    assert!(life.keeper.launch(RunId(3), rig.task(place(1, 3), "sleep 1.5")));
    assert_eq!(life.ended(), (3, Outcome::Exit(0)));
    assert_eq!(life.keeper.groups().len(), 2, "its daemon may have its reasons");
    life.leave();
    let fates = || muster(&rig.spool()).unwrap().survivors().into_iter().map(|survivor| (survivor.task, survivor.fate));
    until("the end of what has a limit", || {
        fates().any(|(task, fate)| task == 1 && matches!(fate, Fate::Ended { outcome: Outcome::Signal(15), .. }))
    });
    assert!(fates().any(|(task, fate)| task == 2 && matches!(fate, Fate::Running { .. })));
    let life = rig.start(&[(2, place(1, 2))]);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(life.ended(), (2, Outcome::Exit(0)));
    life.leave();
}

#[test]
fn a_task_that_the_log_does_not_know_is_stopped() {
    let rig = Rig::new();
    let life = rig.start(&[]);
    assert!(life.keeper.launch(RunId(1), rig.task(place(1, 1), "exec sleep 600")));
    until("its start", || !life.keeper.groups().is_empty());
    life.leave();
    let life = rig.start(&[]);
    until("an empty spool", || rig.spool().names().unwrap().is_empty());
    life.leave();
}

#[test]
fn a_kill_reaches_a_task_and_an_unknown_run_is_no_error() {
    let rig = Rig::new();
    let life = rig.start(&[]);
    life.keeper.kill(RunId(99));
    assert!(life.keeper.launch(RunId(1), rig.task(place(1, 1), "exec sleep 600")));
    life.keeper.kill(RunId(1));
    let (run, outcome) = life.ended();
    assert!(run == 1 && matches!(outcome, Outcome::Signal(15) | Outcome::NotStarted(143, _)), "{outcome:?}");
    life.leave();
}

#[test]
fn a_journal_reads_back_and_ends_at_what_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.journal");
    let mut journal = Journal::create(path.clone()).unwrap();
    let words = [
        Word::Launched { place: place(1, 1), uptime_ms: 5 },
        Word::Launched { place: place(2, 1), uptime_ms: 6 },
        Word::Group { place: place(1, 1), pid: 77 },
        Word::Port { place: place(1, 1), host: "127.0.0.1".into(), port: 80 },
        ended(place(1, 1), 3),
    ];
    words.iter().for_each(|word| journal.note(word));
    journal.write().unwrap();
    let whole = Book::read(&path).unwrap();
    assert_eq!(&whole, journal.book());
    let bytes = std::fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let torn = Book::read(&path).unwrap();
        assert!(torn.0.keys().all(|place| whole.0.contains_key(place)), "{len} bytes");
        assert!(torn.0.values().all(|entry| entry.ended.is_none()), "the end came last, and {len} bytes are not all");
    }
    let Some(Word::Ended(end)) = words.last() else { unreachable!("the last word is an end") };
    assert_eq!(end.streams().env_err, Written { len: 3, dropped_bytes: 4 });
}

#[test]
fn a_journal_forgets_what_is_told_and_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.journal");
    let mut journal = Journal::create(path.clone()).unwrap();
    let note = |journal: &mut Journal, task| {
        journal.note(&Word::Launched { place: place(1, task), uptime_ms: 5 });
        journal.note(&ended(place(1, task), 0));
        journal.write().unwrap();
    };
    note(&mut journal, 1);
    let one = std::fs::metadata(&path).unwrap().len();
    // Task 1 stays; of the others nothing does.
    for task in 2..10_000 {
        note(&mut journal, task);
        journal.forget(&place(1, task).grant, &IntervalSet::one(task)).unwrap();
    }
    assert!(std::fs::metadata(&path).unwrap().len() < one + (300 << 10));
    assert_eq!(Book::read(&path).unwrap().0.keys().next(), Some(&place(1, 1)));
    journal.forget(&place(1, 1).grant, &IntervalSet::from_range(1, 10_000)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    note(&mut journal, 7);
    assert_eq!(Book::read(&path).unwrap().0.keys().collect::<Vec<_>>(), [&place(1, 7)]);
}

#[test]
fn frames_come_whole_or_not_at_all() {
    let mut bytes = Vec::new();
    let order = Order::Kill { place: place(1, 1), how: crate::exec::Kill::Gentle };
    frame::put(&mut bytes, &order);
    frame::put(&mut bytes, &order);
    for len in 0..bytes.len() {
        let mut at = 0;
        let whole = std::iter::from_fn(|| frame::take::<Order>(&bytes[..len], &mut at).unwrap()).count();
        assert_eq!(whole, len / (bytes.len() / 2));
    }
    assert!(frame::take::<Order>(&[0xff; 8], &mut 0).is_err(), "longer than any");
    assert!(frame::take::<Order>(&[1, 0, 0, 0, 0xff], &mut 0).is_err(), "not the wire form");
}
