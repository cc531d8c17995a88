//! The table of jobs: who is here, who may still come, and who is asked to go.
//!
//! Invariants: a job id is in the table once; at most `QUEUE_FACTOR` jobs wait for each slot; the desk waits for nobody.
//! Does not: run jobs (`job`) or speak to servers.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::job::{self, Asked, Assignment, Site};

/// Jobs that wait, for each slot.
const QUEUE_FACTOR: usize = 4;
/// Questions that wait; whoever asks more waits himself.
const QUESTIONS: usize = 64;
/// When the worker stops: from the gentle kill to the hard one, within the five seconds that it has.
const GRACE: Duration = Duration::from_millis(3_500);

/// What became of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    /// It is here already, and goes on.
    Known,
    /// There is no room for it to wait.
    Full,
    Stopping,
}

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It is asked to end; a result follows.
    Asked,
    /// It had ended, and its result is now acknowledged.
    Acknowledged,
    Unknown,
}

#[derive(Debug)]
enum Question {
    Assign(Assignment, oneshot::Sender<Taken>),
    Cancel(String, oneshot::Sender<Cancelled>),
    Current(oneshot::Sender<Vec<String>>),
    Stop(oneshot::Sender<()>),
}

/// Asks the desk. What it says when it is gone is what a stopping one says.
#[derive(Clone, Debug)]
pub(super) struct Handle(mpsc::Sender<Question>);

impl Handle {
    pub(super) async fn assign(&self, assignment: Assignment) -> Taken {
        self.ask(|answer| Question::Assign(assignment, answer)).await.unwrap_or(Taken::Stopping)
    }

    pub(super) async fn cancel(&self, job_id: String) -> Cancelled {
        self.ask(|answer| Question::Cancel(job_id, answer)).await.unwrap_or(Cancelled::Unknown)
    }

    /// The jobs that run or wait, in order of their ids.
    pub(super) async fn current(&self) -> Vec<String> {
        self.ask(Question::Current).await.unwrap_or_default()
    }

    /// Takes no more jobs, ends all, and returns when their results are kept.
    pub(super) async fn stop(&self) {
        self.ask(Question::Stop).await.unwrap_or_default();
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        self.0.send(question(tx)).await.ok()?;
        rx.await.ok()
    }
}

#[derive(Debug)]
pub(super) struct Desk {
    site: Arc<Site>,
    questions: mpsc::Receiver<Question>,
    jobs: BTreeMap<String, watch::Sender<Asked>>,
    /// Each gives its job and the number of its result.
    running: JoinSet<(String, u64)>,
    /// Who waits for the last job's end, once the worker stops.
    stopped: Option<oneshot::Sender<()>>,
    is_stopping: bool,
    /// When patience with those that are to end is over.
    hard_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(site: Arc<Site>) -> (Self, Handle) {
        let (tx, questions) = mpsc::channel(QUESTIONS);
        (
            Self {
                site,
                questions,
                jobs: BTreeMap::new(),
                running: JoinSet::new(),
                stopped: None,
                is_stopping: false,
                hard_at: None,
            },
            Handle(tx),
        )
    }

    /// Serves until every handle is gone, or a job's task panicked, which is a bug.
    pub(super) async fn run(mut self) {
        loop {
            let hard_at = self.hard_at;
            let patience = async {
                match hard_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => match ended {
                    Ok((job_id, result)) => {
                        self.jobs.remove(&job_id);
                        self.site.results.release(result);
                    }
                    Err(error) => return tracing::error!(%error, "the task of a job broke"),
                },
                question = self.questions.recv() => match question {
                    Some(question) => self.answer(question),
                    None => return,
                },
                () = patience => {
                    self.hard_at = None;
                    self.ask_all(Asked::Now);
                }
            }
            if self.jobs.is_empty()
                && let Some(stopped) = self.stopped.take()
            {
                // Whoever asked may have lost patience.
                let _gone = stopped.send(());
                self.questions.close();
            }
        }
    }

    fn answer(&mut self, question: Question) {
        // Whoever asked may be gone by now, which is no matter of the desk's.
        match question {
            Question::Assign(assignment, answer) => drop(answer.send(self.assign(assignment))),
            Question::Cancel(job_id, answer) => drop(answer.send(self.cancel(&job_id))),
            Question::Current(answer) => drop(answer.send(self.jobs.keys().cloned().collect())),
            Question::Stop(answer) => {
                self.stopped = Some(answer);
                self.is_stopping = true;
                self.hard_at = Some(Instant::now() + GRACE);
                self.ask_all(Asked::Stop);
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) -> Taken {
        if self.is_stopping {
            return Taken::Stopping;
        }
        if self.jobs.contains_key(&assignment.job_id) {
            return Taken::Known;
        }
        if self.jobs.len() >= self.site.slots.saturating_mul(1 + QUEUE_FACTOR) {
            return Taken::Full;
        }
        // The server knows its last end, or does not care.
        self.site.results.forget_job(&assignment.job_id);
        let (asked_tx, asked) = watch::channel(Asked::Nothing);
        let (site, job_id) = (Arc::clone(&self.site), assignment.job_id.clone());
        self.jobs.insert(job_id.clone(), asked_tx);
        self.running.spawn(async move {
            let result = job::run(site, assignment, asked).await;
            (job_id, result)
        });
        Taken::New
    }

    fn cancel(&self, job_id: &str) -> Cancelled {
        if let Some(asked) = self.jobs.get(job_id) {
            ask(asked, Asked::Cancel);
            return Cancelled::Asked;
        }
        if self.site.results.forget_job(job_id) { Cancelled::Acknowledged } else { Cancelled::Unknown }
    }

    fn ask_all(&self, what: Asked) {
        self.jobs.values().for_each(|asked| ask(asked, what));
    }
}

/// A job that is asked twice does what is more urgent.
fn ask(job: &watch::Sender<Asked>, what: Asked) {
    job.send_if_modified(|asked| {
        let is_more = rank(what) > rank(*asked);
        if is_more {
            *asked = what;
        }
        is_more
    });
}

fn rank(asked: Asked) -> u8 {
    match asked {
        Asked::Nothing => 0,
        Asked::Cancel => 1,
        Asked::Stop => 2,
        Asked::Now => 3,
    }
}
