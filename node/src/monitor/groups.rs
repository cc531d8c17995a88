//! CPU time and memory of the process groups of running jobs.
//!
//! Invariants: `/proc` is gone through only while something runs, and no oftener than its cost allows.
//! Does not: see processes that left their task's group, or tasks that came and went between two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::time::{Duration, Instant};

use starling_core::namespace::monitor::JOBS_MAX;

use super::pace::Pace;
use super::procfs::{self, Process};
use super::{JobKey, JobUse};

/// Milliseconds of a clock tick: `USER_HZ` is part of the kernel's ABI and 100 on every Linux that Rust runs on.
const TICK_MS: u64 = 10;

/// A process group of a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskGroup {
    /// The task's job.
    pub job: JobKey,
    /// The task's run: any number, the same for all groups of one task and no other.
    pub run: u64,
    /// The group's id.
    pub group: u32,
}

/// What one group uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) cpu_ticks: u64,
    pub(super) rss_bytes: u64,
}

/// The groups as they were at the last look.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pace: Pace,
    looked: Option<Instant>,
    ticks: BTreeMap<u32, u64>,
    uses: Vec<JobUse>,
}

impl Groups {
    /// What running jobs use, the largest first.
    pub(super) fn look(&mut self, running: &[TaskGroup]) -> Vec<JobUse> {
        let begin = Instant::now();
        if running.is_empty() {
            // Whatever runs at the next look has used its time since now.
            self.looked = Some(begin);
            self.ticks.clear();
            self.uses.clear();
        } else if self.pace.is_due(begin) {
            let found = scan(running);
            self.fold(begin, running, &found);
            self.pace.took(begin, Instant::now());
        }
        self.uses.clone()
    }

    /// Adds up what was found at `now`.
    pub(super) fn fold(&mut self, now: Instant, running: &[TaskGroup], found: &BTreeMap<u32, Used>) -> &[JobUse] {
        let elapsed = self.looked.map(|looked| now.saturating_duration_since(looked));
        let mut jobs: BTreeMap<JobKey, JobUse> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        for TaskGroup { job, run, group } in running {
            let used = found.get(group).copied().unwrap_or_default();
            let before = self.ticks.get(group).copied().unwrap_or(0);
            let ticks = used.cpu_ticks.saturating_sub(before);
            let sum = jobs.entry(*job).or_insert(JobUse { job: *job, tasks: 0, cpu_milli: 0, cpu_ms: 0, rss_bytes: 0 });
            // A pair has two groups and is one task.
            sum.tasks += u64::from(counted.insert(*run));
            sum.cpu_milli += elapsed.map_or(0, |elapsed| milli(ticks, elapsed));
            sum.cpu_ms = sum.cpu_ms.saturating_add(used.cpu_ticks.saturating_mul(TICK_MS));
            sum.rss_bytes = sum.rss_bytes.saturating_add(used.rss_bytes);
        }
        let mut uses: Vec<JobUse> = jobs.into_values().collect();
        uses.sort_by_key(|used| std::cmp::Reverse((used.cpu_milli, used.rss_bytes)));
        uses.truncate(JOBS_MAX);
        self.uses = uses;
        self.ticks = running
            .iter()
            .map(|TaskGroup { group, .. }| (*group, found.get(group).map_or(0, |used| used.cpu_ticks)))
            .collect();
        self.looked = Some(now);
        &self.uses
    }
}

/// Thousandths of a CPU that `ticks` in `elapsed` come to.
fn milli(ticks: u64, elapsed: Duration) -> u64 {
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    ticks.saturating_mul(TICK_MS * 1_000) / elapsed_ms
}

/// Goes through all processes. One that ends meanwhile is left out.
fn scan(running: &[TaskGroup]) -> BTreeMap<u32, Used> {
    let mut found: BTreeMap<u32, Used> = running.iter().map(|task| (task.group, Used::default())).collect();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    let mut stat = String::new();
    for entry in entries.flatten() {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_process {
            continue;
        }
        stat.clear();
        let read = File::open(entry.path().join("stat")).and_then(|mut file| file.read_to_string(&mut stat));
        let Some(Process { group, cpu_ticks, rss_pages }) = read.ok().and_then(|_bytes| procfs::process(&stat)) else {
            continue;
        };
        if let Some(used) = found.get_mut(&group) {
            used.cpu_ticks = used.cpu_ticks.saturating_add(cpu_ticks);
            used.rss_bytes = used.rss_bytes.saturating_add(rss_pages.saturating_mul(page));
        }
    }
    found
}
