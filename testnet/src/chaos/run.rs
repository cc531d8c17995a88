//! One run: nodes, load, the plan's faults in their time, healing, and the questions at the end.
//!
//! Invariants: bounded in time: the plan, then `SETTLE` at most; an interrupt ends it at the next tick, and everything is cleaned up.
//! Does not: judge (`judge`) or print anything but where it stands.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::faults::Injector;
use super::field::Field;
use super::judge::{Cause, Happened, Story, Verdict, judge};
use super::ledger;
use super::load::{Load, Plot};
use super::plan::{Fault, Kind, Plan, Shape};
use super::report::say;
use super::settle::{Healing, settle};
use super::view::View;
use crate::local::{SUSPICION, pause, traces};

const CLIENTS: usize = 3;
const TICK: Duration = Duration::from_millis(50);
/// How often the watch looks at the clock, and how late it must be to call it a stall.
const WATCH: Duration = Duration::from_millis(100);
const STALL: Duration = Duration::from_millis(1_500);

/// What no node may say: a panic, and that equal logs have unequal roots.
const ALARMS: [&str; 2] = ["panicked", "equal logs gave different"];

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) happened: Vec<Happened>,
    /// How long the nodes took after each storm until all held what any had held.
    pub(super) healings: Vec<Duration>,
    pub(super) settled_in: Duration,
    pub(super) lasted: Duration,
    /// How often an owner said that an executor is dead.
    pub(super) suspicions: usize,
    /// Where everything was kept, if a promise was broken.
    pub(super) kept: Option<PathBuf>,
}

/// A run on its way.
struct Run<'a> {
    plan: &'a Plan,
    field: Field,
    view: View,
    injector: Injector,
    began: Instant,
    /// Faults that are on, and since when.
    on: Vec<(Fault, u64)>,
    happened: Vec<Happened>,
    healing: Option<Healing>,
    healings: Vec<Duration>,
    findings: Vec<String>,
    gone: Vec<usize>,
    interrupted: Arc<AtomicBool>,
}

/// What to run, on what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'a> {
    pub(super) binary: &'a Path,
    /// The library that steps clocks, if there is one.
    pub(super) faketime: Option<&'a Path>,
    pub(super) shape: &'a Shape,
    pub(super) plan: &'a Plan,
}

/// Runs a plan.
///
/// # Errors
/// If the nodes do not come up, the system refuses a fault, or somebody interrupts.
pub(super) fn run(setting: Setting<'_>) -> anyhow::Result<Outcome> {
    let interrupted = heed_signals()?;
    let Setting { shape, plan, .. } = setting;
    let field = Field::start(setting.binary, shape.nodes, shape.tools, setting.faketime)?;
    let view = View::open(&field.cluster)?;
    say(&format!("{} nodes are up; load and faults for {} s", shape.nodes, plan.length_ms / 1_000));
    let mut run = Run {
        plan,
        field,
        view,
        injector: Injector::default(),
        began: Instant::now(),
        on: Vec::new(),
        happened: Vec::new(),
        healing: None,
        healings: Vec::new(),
        findings: Vec::new(),
        gone: Vec::new(),
        interrupted,
    };
    match run.whole(shape.seed) {
        Ok(outcome) if outcome.verdict.findings.is_empty() => Ok(outcome),
        Ok(outcome) => Ok(Outcome { kept: Some(run.field.keep()), ..outcome }),
        Err(error) if run.interrupted.load(Ordering::Relaxed) => Err(error),
        Err(error) => Err(error.context(format!("everything was kept in {}", run.field.keep().display()))),
    }
}

impl Run<'_> {
    /// From the first submission to the verdict.
    fn whole(&mut self, seed: u64) -> anyhow::Result<Outcome> {
        let count = self.field.cluster.len();
        let began_ms = traces::uptime_ms()?;
        let ledgers: Vec<PathBuf> =
            (1..=CLIENTS).map(|number| self.field.file(&format!("ledger-{number}.tsv"))).collect();
        let nodes = (1..=count).map(|number| self.field.cluster.dir(number)).collect();
        let plot = Plot { seed, nodes, traces: self.field.file("traces"), began: self.began };
        let watch = Watch::start(self.began)?;
        let load = Load::start(&plot, &ledgers)?;
        self.play()?;
        load.finish()?;
        let submissions = ledger::read(&ledgers)?;
        let up = self.up();
        let start = Instant::now();
        let (seen, troubles) = settle(&self.view, &up, &submissions, || self.interrupted.load(Ordering::Relaxed))?;
        let settled_in = start.elapsed();
        self.findings.extend(troubles);
        self.look_after(&up)?;
        let logs = self.logs();
        self.happened.extend(watch.stalls());
        let traces = traces::read(&plot.traces, began_ms, self.view.keys())?;
        let story = Story { submissions, traces, happened: std::mem::take(&mut self.happened), seen, up };
        let mut verdict = judge(&story);
        // What happened to nodes explains what happened to jobs.
        let judged = std::mem::replace(&mut verdict.findings, std::mem::take(&mut self.findings));
        verdict.findings.extend(logs.alarms.into_iter().chain(judged));
        let healings = std::mem::take(&mut self.healings);
        let (happened, suspicions, lasted) = (story.happened, logs.suspicions, self.began.elapsed());
        Ok(Outcome { verdict, happened, suspicions, healings, settled_in, lasted, kept: None })
    }

    /// Nodes that are not lost for good.
    fn up(&self) -> Vec<usize> {
        (1..=self.field.cluster.len()).filter(|node| !self.gone.contains(node)).collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Faults in their time, until the plan is over and all are healed.
    fn play(&mut self) -> anyhow::Result<()> {
        let mut coming = self.plan.faults.iter().peekable();
        let mut calms = self.plan.calms_ms.iter().peekable();
        let all: Vec<usize> = (1..=self.field.cluster.len()).collect();
        while self.now_ms() < self.plan.length_ms {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            self.end_due()?;
            while let Some(fault) = coming.next_if(|fault| fault.start_ms <= self.now_ms()) {
                self.begin(fault)?;
            }
            if calms.next_if(|calm| **calm <= self.now_ms()).is_some() {
                self.healing = Some(Healing::start());
            }
            self.look_at_healing();
            self.look_after(&all)?;
            self.injector.tick(&self.field)?;
            pause(TICK);
        }
        for (fault, _) in &mut self.on {
            fault.end_ms = 0;
        }
        self.end_due()?;
        if self.healing.take().is_some() {
            self.findings.push("the nodes did not hold the same logs by the end of the last calm".to_owned());
        }
        Ok(())
    }

    fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        say(&format!("{:6.1} s  {}", self.now_ms() as f64 / 1_000.0, fault.kind));
        if self.healing.take().is_some() {
            self.findings
                .push(format!("the nodes did not hold the same logs when the storm at {} ms began", fault.start_ms));
        }
        let from_ms = self.now_ms();
        self.injector.begin(&mut self.field, &fault.kind)?;
        if let Kind::Gone { node } = fault.kind {
            self.gone.push(node);
        }
        self.on.push((fault.clone(), from_ms));
        Ok(())
    }

    fn end_due(&mut self) -> anyhow::Result<()> {
        let now_ms = self.now_ms();
        let (due, on) = std::mem::take(&mut self.on).into_iter().partition(|(fault, _)| fault.end_ms <= now_ms);
        self.on = on;
        let due: Vec<(Fault, u64)> = due;
        for (fault, from_ms) in due {
            self.injector.end(&mut self.field, &fault.kind)?;
            self.happened.push(Happened { cause: Cause::Fault(fault), from_ms, until_ms: self.now_ms() });
        }
        Ok(())
    }

    fn look_at_healing(&mut self) {
        let up = self.up();
        let took = self.healing.as_mut().and_then(|healing| healing.look(&self.view, &up));
        if let Some(took) = took {
            say(&format!("          all nodes hold the same {:.1} s after the storm", took.as_secs_f64()));
            self.healings.push(took);
            self.healing = None;
        }
    }

    /// A node that ends by itself is a finding, and is started again.
    fn look_after(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        for node in nodes {
            if let Some(status) = self.field.cluster.ended(*node)? {
                let at = self.now_ms() as f64 / 1_000.0;
                self.findings.push(format!("node {node} ended by itself at {at:.1} s: {status}"));
                self.field.cluster.boot(*node)?;
            }
        }
        Ok(())
    }

    fn logs(&self) -> Logs {
        let mut logs = Logs::default();
        for node in 1..=self.field.cluster.len() {
            let text = std::fs::read(self.field.cluster.log(node)).unwrap_or_default();
            for line in String::from_utf8_lossy(&text).lines() {
                logs.suspicions += usize::from(line.contains(SUSPICION));
                if ALARMS.iter().any(|alarm| line.contains(alarm)) {
                    logs.alarms.push(format!("node {node} says: {line}"));
                }
            }
        }
        logs
    }
}

/// What the nodes' own logs tell.
#[derive(Debug, Default)]
struct Logs {
    suspicions: usize,
    /// Lines that must not be there.
    alarms: Vec<String>,
}

/// True once this program is asked to end; its own end is then left to whoever looks.
fn heed_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&asked);
    let runtime = super::view::runtime()?;
    let (ready, heard) = channel();
    let work = move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let both = signal(SignalKind::interrupt()).and_then(|one| Ok((one, signal(SignalKind::terminate())?)));
            // Nobody waits any more if the run has given up by now.
            let Ok((mut interrupt, mut terminate)) = both.inspect_err(|_| _ = ready.send(false)) else { return };
            let _given_up = ready.send(true);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            told.store(true, Ordering::Relaxed);
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(work).context("starting a thread")?;
    if !heard.recv().unwrap_or(false) {
        bail!("this system does not say when a program is to end");
    }
    Ok(asked)
}

/// Notices when the machine runs nobody's program.
struct Watch {
    stalls: Receiver<Happened>,
}

impl Watch {
    fn start(began: Instant) -> anyhow::Result<Self> {
        let (tell, stalls): (Sender<Happened>, _) = channel();
        let work = move || {
            loop {
                let before = Instant::now();
                pause(WATCH);
                if before.elapsed() < STALL + WATCH {
                    continue;
                }
                let millis = |moment: Instant| u64::try_from((moment - began).as_millis()).unwrap_or(u64::MAX);
                let (from_ms, until_ms) = (millis(before), millis(Instant::now()));
                if tell.send(Happened { cause: Cause::Stall, from_ms, until_ms }).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("watch".to_owned()).spawn(work).context("starting a thread")?;
        Ok(Self { stalls })
    }

    fn stalls(&self) -> Vec<Happened> {
        self.stalls.try_iter().collect()
    }
}
