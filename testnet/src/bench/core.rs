//! Figures of the core alone: folding, and the simulator's speed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use starling_core::event::{Entry, SignedBatch, Signer, Value, WorkSpec, cluster_id};
use starling_core::facts::{Facts, Outcome, Usage};
use starling_core::ids::{Attempt, Dot, Epoch, GrantId, GrantNo, Hash, JobId, JobNo, LogId, Seq, Term};
use starling_core::lattice::IntervalSet;
use starling_core::namespace::{Registry, Voice, batch, sys};
use starling_core::time::Hlc;

use super::figures::{Beside, Figure};

const SECRET: [u8; 32] = [9; 32];
const EVENTS: u64 = 1_000_000;
/// Events of one job: submit, grant, start, end, seal.
const PER_JOB: u64 = 5;
const FLOOR_FOR: Duration = Duration::from_secs(2);

pub(super) fn figures(_binary: &Path) -> anyhow::Result<Vec<Figure>> {
    let (ratio, _totals) =
        crate::sim::campaign::speed(50).map_err(|failure| anyhow!("the simulator failed: {failure:?}"))?;
    Ok(vec![
        Figure::new("fold_events_per_s", fold_rate(), "events/s", Beside::Target(300_000.0)),
        Figure::new("snapshot_10k_jobs_ms", snapshot_ms(), "ms", Beside::Target(50.0)),
        Figure::new("sim_speedup_50", ratio, "x", Beside::Target(200.0)),
    ])
}

/// Folds a million events of 200,000 jobs, from bytes as they lie on disk, on one core.
fn fold_rate() -> f64 {
    let signer = Signer::from_seed(&[1; 32]);
    let log = LogId { node: signer.node(), epoch: Epoch(1) };
    let cluster = cluster_id(&SECRET);
    let registry = Registry::built_in();
    let mut batches = Vec::new();
    let mut prev = Hash::ZERO;
    let mut seq = 1;
    for first in (1..=EVENTS / PER_JOB).step_by(50) {
        let events = (first..first + 50).flat_map(|no| job_events(log, no));
        let events: Vec<_> = events.map(|event| (event.clone(), event.to_bytes())).collect();
        let count = events.len() as u64;
        let sealed = SignedBatch::seal(&signer, cluster, Epoch(1), Seq(seq), prev, events);
        prev = sealed.head();
        seq += count;
        batches.push(sealed.bytes().to_vec());
    }
    let start = Instant::now();
    let mut facts = Facts::bot();
    for bytes in &batches {
        let Ok(opened) = SignedBatch::open_own(bytes, &cluster) else {
            continue;
        };
        for (seq, entry) in opened.entries() {
            facts.fold(Dot { log, seq }, entry, &registry);
        }
    }
    let took = start.elapsed().as_secs_f64();
    let folded = facts.job_count() as u64 * PER_JOB;
    folded as f64 / took
}

/// What a snapshot of 10,000 sealed jobs takes of the driver's time.
fn snapshot_ms() -> f64 {
    let log = LogId { node: Signer::from_seed(&[1; 32]).node(), epoch: Epoch(1) };
    let (mut facts, registry) = (Facts::bot(), Registry::built_in());
    for no in 1..=10_000 {
        for (seq, event) in (1..).zip(job_events(log, no)) {
            facts.fold(Dot { log, seq: Seq(no * PER_JOB + seq) }, &Entry::Event(event), &registry);
        }
    }
    facts.root();
    let start = Instant::now();
    let bytes = facts.to_bytes();
    let took = start.elapsed().as_secs_f64() * 1_000.0;
    if bytes.is_empty() { f64::NAN } else { took }
}

fn job_events(log: LogId, no: u64) -> [starling_core::event::Event; 5] {
    let job = JobId { log, no: JobNo(no) };
    let grant = GrantId { job, no: GrantNo { term: Term(1), no: 1 } };
    let hlc = Hlc { wall_ms: 1_700_000_000_000 + no, count: 0 };
    let task = IntervalSet::one(0);
    let command = Value::List(vec![Value::text("/usr/bin/env"), Value::text("true")]);
    let spec = WorkSpec::new().with("command", command).with("name", Value::text("bench"));
    [
        batch::submit_job(hlc, job, task.clone(), 0, spec),
        sys::grant(hlc, grant, &starling_core::ids::Seat::machine(log.node), Attempt(1), task.clone()),
        Voice::default().started(hlc, grant, task.clone()),
        Voice::default().finished(hlc, grant, task.clone(), &Outcome::Exit(0), &Usage::default()),
        sys::seal(hlc, job, Term(1), task, &Outcome::Exit(0)),
    ]
}

/// Spawn and wait of /bin/true in one tight loop per core, together.
pub(super) fn spawn_floor() -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let start = Instant::now();
    let counts: Vec<_> = (0..threads).map(|_| std::thread::spawn(move || spawn_loop(start))).collect();
    let total: u64 = counts.into_iter().filter_map(|count| count.join().ok()).sum();
    total as f64 / start.elapsed().as_secs_f64()
}

fn spawn_loop(start: Instant) -> u64 {
    use std::os::unix::process::CommandExt as _;
    let mut count = 0;
    while start.elapsed() < FLOOR_FOR {
        let mut command = std::process::Command::new("/bin/true");
        if command.process_group(0).status().is_ok_and(|status| status.success()) {
            count += 1;
        }
    }
    count
}
