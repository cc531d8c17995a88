//! One job, from its assignment to its kept result.
//!
//! Invariants: every job that was taken comes to exactly one result; its place among the running ones is free as soon as its processes are gone, however long its
//! lines take.
//! Does not: know other jobs (`desk`), or deliver the result (`session`, `dial_back`).

use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::dial_back::Gateway;
use super::follow::{Follower, Outlet, Phase};
use super::outcome::{Cause, Outcome};
use super::results::Results;
use super::{Home, Limits, result};
use crate::exec::output::{self, Stream};
use crate::exec::{self, End, ExecEvent, Executor, Kill, Launch, TaskKey};

/// How long lines are still sent when the worker stops.
const STOP_FLUSH: Duration = Duration::from_secs(1);

/// What a server wants done.
#[derive(Clone, Debug, Default)]
pub(super) struct Assignment {
    pub(super) job_id: String,
    /// Empty for a process of this machine.
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// `None` for no limit.
    pub(super) timeout: Option<Duration>,
}

/// What is wanted of a job that runs or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To go on.
    Nothing,
    /// To end, because the server said so.
    Cancel,
    /// To end, because the worker does.
    Stop,
    /// To be gone.
    Now,
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Road {
    /// Into the present stream to the server.
    Stream(Outlet),
    /// Over a call for each job.
    DialBack(Arc<Gateway>),
}

/// What all jobs share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) slots: usize,
    pub(super) results: Arc<Results>,
    free: Semaphore,
    executor: Executor,
    ends: Ends,
    out: PathBuf,
    mark: (String, String),
    image_program: Option<String>,
    limits: Limits,
    road: Road,
    runs: AtomicU64,
}

/// Who waits for which run's end.
#[derive(Clone, Debug, Default)]
struct Ends(Arc<Mutex<BTreeMap<u64, oneshot::Sender<End>>>>);

impl Ends {
    fn table(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<End>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_event(&self, event: ExecEvent) {
        match event {
            ExecEvent::Port { .. } | ExecEvent::Started { .. } => {}
            ExecEvent::Ended { key, end, .. } => {
                let waiter = self.table().remove(&key.run);
                if let Some(waiter) = waiter {
                    // A job that no longer waits is one of a worker that is being dropped.
                    let _gone = waiter.send(end);
                }
            }
        }
    }
}

impl Site {
    pub(super) fn new(
        home: &Home,
        slots: usize,
        image_program: Option<String>,
        limits: Limits,
        road: Road,
        results: Arc<Results>,
    ) -> Self {
        let ends = Ends::default();
        let told = ends.clone();
        let options = exec::Options { threads_max: slots.max(1) };
        Self {
            slots: slots.max(1),
            results,
            free: Semaphore::new(slots.max(1)),
            executor: Executor::start(Box::new(move |event| told.on_event(event)), options),
            ends,
            out: home.out(),
            mark: home.mark(),
            image_program,
            limits,
            road,
            runs: AtomicU64::new(1),
        }
    }

    /// Kills what is left. Blocks until it is gone.
    pub(super) fn shut_down(&self) {
        self.executor.shutdown();
    }

    /// What runs the assignment: its command, or a program that runs it in its image.
    fn argv(&self, assignment: &Assignment) -> Result<Vec<String>, Outcome> {
        if assignment.image.is_empty() {
            return Ok(assignment.command.clone());
        }
        let Some(program) = &self.image_program else {
            let why =
                "this worker runs no images; give it the capability docker or podman, or send the job without an image";
            return Err(Outcome::refused(why));
        };
        let mut argv = vec![program.clone(), "run".to_owned(), "--rm".to_owned()];
        for (name, value) in &assignment.env {
            argv.extend(["-e".to_owned(), format!("{name}={value}")]);
        }
        argv.push(assignment.image.clone());
        argv.extend(assignment.command.iter().cloned());
        Ok(argv)
    }

    fn launch(&self, run: u64, argv: Vec<String>, assignment: &Assignment) -> Launch {
        let is_image = !assignment.image.is_empty();
        let own = assignment.env.iter().filter(|_| !is_image).map(|(name, value)| (name.clone(), value.clone()));
        Launch {
            key: TaskKey { run },
            argv,
            // The mark last, so that no job takes it off by accident.
            env: own.chain([self.mark.clone()]).collect(),
            cwd: None,
            stdin: None,
            out: self.prefix(run),
            cap_bytes: self.limits.output_bytes,
            env_server: None,
        }
    }

    fn prefix(&self, run: u64) -> PathBuf {
        self.out.join(run.to_string())
    }
}

/// Runs a job until its lines are sent and its result is kept, whose number this returns; whoever has the table releases it, so that no server can speak of a job
/// that has ended for it and not for us.
pub(super) async fn run(site: Arc<Site>, assignment: Assignment, asked: watch::Receiver<Asked>) -> u64 {
    let run = site.runs.fetch_add(1, Ordering::Relaxed);
    let job_id = assignment.job_id.clone();
    let phase = watch::Sender::new(Phase::Waiting);
    let follower = |outlet| Follower::new(job_id.clone(), site.prefix(run), site.limits.backlog_bytes, outlet);
    let lines = async {
        match &site.road {
            Road::Stream(outlet) => {
                let mut follower = follower(outlet.clone());
                bounded(&site, &phase, asked.clone(), follower.run(phase.subscribe())).await;
            }
            Road::DialBack(gateway) => {
                let (session, outlet) = watch::channel(None);
                let (all_sent, sent) = oneshot::channel::<()>();
                let mut follower = follower(outlet);
                let follow = async {
                    follower.run(phase.subscribe()).await;
                    drop(all_sent);
                };
                let both = async { tokio::join!(follow, gateway.carry(session, sent, phase.subscribe())) };
                bounded(&site, &phase, asked.clone(), both).await;
            }
        }
    };
    let (no, ()) = tokio::join!(work(&site, run, &assignment, asked.clone(), &phase), lines);
    let prefix = site.prefix(run);
    let _cannot_panic = tokio::task::spawn_blocking(move || remove(&prefix)).await;
    no
}

/// Bounds the sending of lines once the job is over.
async fn bounded<T>(
    site: &Site,
    phase: &watch::Sender<Phase>,
    mut asked: watch::Receiver<Asked>,
    lines: impl Future<Output = T>,
) {
    let cut = async {
        let mut phase = phase.subscribe();
        let _sender_lives = phase.wait_for(|phase| *phase == Phase::Over).await.is_ok();
        tokio::select! {
            () = sleep(site.limits.flush) => {}
            () = async {
                if asked.wait_for(|asked| matches!(asked, Asked::Stop | Asked::Now)).await.is_err() {
                    pending::<()>().await;
                }
                sleep(STOP_FLUSH).await;
            } => {}
        }
    };
    tokio::select! {
        biased;
        _ = lines => {}
        () = cut => tracing::debug!("the last lines of a job could not be sent in time"),
    }
}

/// Waits for a place, runs the process, and keeps the result, whose number it returns.
async fn work(
    site: &Arc<Site>,
    run: u64,
    assignment: &Assignment,
    mut asked: watch::Receiver<Asked>,
    phase: &watch::Sender<Phase>,
) -> u64 {
    let place = tokio::select! {
        biased;
        cause = wanted(&mut asked) => Err(Outcome::of(End::Signal(KILLED), cause)),
        place = site.free.acquire() => Ok(place),
    };
    let argv = place.as_ref().map_err(Clone::clone).and_then(|_place| site.argv(assignment));
    let outcome = match argv {
        Err(outcome) => outcome,
        Ok(argv) => {
            let (ended_tx, ended) = oneshot::channel();
            site.ends.table().insert(run, ended_tx);
            site.executor.launch(site.launch(run, argv, assignment));
            phase.send_replace(Phase::Running);
            attend(site, run, assignment.timeout, asked, ended).await
        }
    };
    drop(place);
    let (keeper, prefix, job_id) = (Arc::clone(&site.results), site.prefix(run), assignment.job_id.clone());
    let kept = tokio::task::spawn_blocking(move || keeper.put(result::make(job_id, &prefix, outcome))).await;
    phase.send_replace(Phase::Over);
    // A panic there is a bug, and is passed on as one.
    kept.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The signal of which a job dies that never ran, should anybody look.
const KILLED: i32 = 9;

/// Waits for the end of a run that was launched, and brings it about when its time is up or it is wanted.
async fn attend(
    site: &Site,
    run: u64,
    timeout: Option<Duration>,
    mut asked: watch::Receiver<Asked>,
    mut ended: oneshot::Receiver<End>,
) -> Outcome {
    let key = TaskKey { run };
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut cause = Cause::Itself;
    loop {
        let time_up = async {
            match deadline.filter(|_| cause == Cause::Itself) {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let (new, how) = tokio::select! {
            biased;
            end = &mut ended => return Outcome::of(end.unwrap_or(End::Signal(KILLED)), cause),
            Ok(()) = asked.changed() => match *asked.borrow() {
                Asked::Nothing => continue,
                Asked::Cancel => (Cause::Cancelled, Kill::Gentle),
                Asked::Stop => (Cause::Stopped, Kill::Gentle),
                Asked::Now => (Cause::Stopped, Kill::Hard),
            },
            () = time_up => (Cause::TimedOut, Kill::Gentle),
        };
        // The first cause is the one that is told.
        cause = if cause == Cause::Itself { new } else { cause };
        site.executor.kill(key, how);
    }
}

/// Returns when a job that waits is to end.
async fn wanted(asked: &mut watch::Receiver<Asked>) -> Cause {
    let wish = asked.wait_for(|asked| *asked != Asked::Nothing).await.map(|asked| *asked);
    match wish {
        Ok(Asked::Cancel) => Cause::Cancelled,
        Ok(Asked::Stop | Asked::Now) | Err(_) => Cause::Stopped,
        Ok(Asked::Nothing) => pending().await,
    }
}

fn remove(prefix: &Path) {
    for stream in Stream::PLAIN {
        // A silent stream has no file; what stays goes with the next start.
        let _absent = std::fs::remove_file(output::path(prefix, stream));
    }
}
