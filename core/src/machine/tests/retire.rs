//! Retirement: when jobs leave Facts, what is told of them, and what a restart makes of it.

use super::*;
use crate::testing::node;

/// A node that keeps sealed jobs for 20 s, and at most three; with the records on its disk.
struct Keeper {
    machine: Machine,
    records: Vec<Record>,
    next: u64,
    runs: u64,
}

fn keeper_of(records: Vec<Record>) -> Keeper {
    let total = Resources { cpu_milli: 2_000, mem_bytes: 1 << 30 };
    let identity = Identity { signer: Signer::from_seed(&[1; 32]), secret: SECRET, boot: 1 };
    let config = Config { gateway: false, retain_ms: 20_000, retain_jobs: 3, ..Config::new("wren", total) };
    let mut recovery = Recovery::new(config, Registry::built_in(), identity);
    records.iter().for_each(|record| recovery.record(record.clone()));
    Keeper { machine: recovery.finish(now(0)), records, next: 0, runs: 0 }
}

impl Keeper {
    fn new() -> Self {
        keeper_of(Vec::new())
    }

    /// One step; all writes reach the disk. What was told of retired jobs.
    fn step(&mut self, at: u64, input: Input) -> Vec<u64> {
        let (mut told, mut effects) = (Vec::new(), self.machine.step(now(at), input));
        loop {
            let mut write = None;
            for effect in effects {
                match effect {
                    Effect::Write { write: id, records } => {
                        self.records.extend(records);
                        write = Some(id);
                    }
                    Effect::Retire(past) => told.extend(past.iter().map(|past| past.id.no.0)),
                    Effect::Spawn(spawn) => self.runs = spawn.run.0,
                    Effect::Gossip(_)
                    | Effect::Publish(_)
                    | Effect::Send { .. }
                    | Effect::Serve { .. }
                    | Effect::Kill(_)
                    | Effect::Reply { .. }
                    | Effect::Snapshot(_)
                    | Effect::Fetch { .. }
                    | Effect::Notice(_) => {}
                }
            }
            let Some(write) = write else {
                assert_eq!(check_all(&self.machine), []);
                return told;
            };
            effects = self.machine.step(now(at), Input::Durable(write));
        }
    }

    /// A job with an idempotency key, from submission to seal.
    fn run_job(&mut self, at: u64) {
        self.next += 1;
        self.step(at, command(keyed(self.next)));
        let run = RunId(self.runs);
        self.step(at + 1, Input::TaskEnded { run, outcome: Outcome::Exit(0), usage: Usage::default() });
        self.step(at + 20, Input::Tick);
    }

    fn live(&self) -> Vec<u64> {
        self.machine.facts().jobs().map(|(id, _)| id.no.0).collect()
    }
}

fn check_all(machine: &Machine) -> Vec<Violation> {
    super::super::check(machine)
}

fn keyed(key: u64) -> Command {
    let words = Value::List(vec![Value::text("true")]);
    let spec = WorkSpec::new().with("command", words).with("request", Value::Bytes(vec![u8::try_from(key).unwrap()]));
    let (tasks, ack) = (IntervalSet::one(1), AckLevel::Local);
    Command::Submit(Box::new(Submission { ns: "batch".into(), kind: "".into(), tasks, priority: 0, spec, ack }))
}

#[test]
fn a_sealed_job_is_retired_after_its_time_and_told_of_once() {
    let mut keeper = Keeper::new();
    keeper.run_job(1_000);
    assert_eq!(keeper.step(20_000, Input::Tick), [], "not yet");
    assert_eq!(keeper.live(), [1]);
    assert!(keeper.machine.next_deadline() <= Mono(21_100), "it will be looked at");
    let due = (20_500..22_000).step_by(100).flat_map(|at| keeper.step(at, Input::Tick)).collect::<Vec<_>>();
    assert_eq!((due, keeper.live()), (vec![1], vec![]));
    let events = keeper.machine.frontier().events();
    assert_eq!(keeper.step(90_000, Input::Tick), []);
    assert_eq!(keeper.machine.frontier().events(), events, "nothing is retired twice");
}

#[test]
fn beyond_the_number_that_is_kept_the_oldest_go_at_once() {
    let mut keeper = Keeper::new();
    (1..=5).for_each(|job| keeper.run_job(1_000 * job));
    assert_eq!(keeper.live(), [1, 2, 3, 4, 5], "a node that has just started retires nothing");
    let told = (15_000..16_000).step_by(100).flat_map(|at| keeper.step(at, Input::Tick)).collect::<Vec<_>>();
    assert_eq!((told, keeper.live()), (vec![1, 2], vec![3, 4, 5]));
}

#[test]
fn a_retired_job_is_never_submitted_again_nor_its_number_used() {
    let mut keeper = Keeper::new();
    (1..=2).for_each(|job| keeper.run_job(1_000 * job));
    (21_000..24_000).step_by(100).for_each(|at| drop(keeper.step(at, Input::Tick)));
    assert_eq!(keeper.live(), []);
    let mut again = keeper_of(keeper.records);
    let told = again.step(1, Input::Tick);
    assert_eq!(told, [1, 2], "history may have missed it: it is told again");
    let effects = again.machine.step(now(2), command(keyed(1)));
    assert!(show(&effects).contains("job 1 Local fresh=false"), "{}", show(&effects));
    again.step(3, command(keyed(9)));
    assert_eq!(again.live(), [3]);
    let retired = again.machine.facts().jobs_of(&node(1)).next().map(|(id, _)| id.log).unwrap();
    let cancel = Command::Cancel(JobId { log: LogId { epoch: Epoch(1), ..retired }, no: crate::ids::JobNo(1) });
    let effects = again.machine.step(now(4), command(cancel));
    assert!(show(&effects).contains("AlreadyFinished"), "{}", show(&effects));
}

#[test]
fn a_start_alone_retires_nothing() {
    let mut keeper = Keeper::new();
    (1..=5).for_each(|job| keeper.run_job(1_000 * job));
    let mut records = keeper.records;
    for _ in 0..3 {
        let mut again = keeper_of(records);
        let before = again.records.len();
        (1..10_000).step_by(500).for_each(|at| assert_eq!(again.step(at, Input::Tick), []));
        assert_eq!(again.records.len(), before);
        records = again.records;
    }
}
