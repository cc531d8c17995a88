//! `run`, and `sim run` after it: one task somewhere in the cluster, as if it ran here.
//!
//! Invariants: both streams arrive live on the streams of the same name; the exit code is the job's;
//! the first Ctrl-C (or SIGTERM) cancels the job, the second leaves it; a reader of the output that
//! goes away cancels it too.
//! Does not: forward a terminal or signals other than by cancelling.

use starling_proto::v1::{CancelRequest, JobSummary, LogsRequest, SubmitRequest};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Session;
use super::args::RunArgs;
use super::connect::{Client, call};
use super::error::{CliError, EXIT_INTERRUPTED, job_exit_code};
use super::logs::{Prefix, Printer};
use super::{submit, wait};

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, args: RunArgs) -> Result<u8, CliError> {
    Box::pin(follow(session, submit::task_request(args.task)?)).await
}

/// Submits, prints the output as it comes, and exits as the job does.
pub(crate) async fn follow(session: &Session<'_>, request: SubmitRequest) -> Result<u8, CliError> {
    let out = session.out;
    // Before the job exists, so that no Ctrl-C can fall between it and its cancel.
    let mut interrupts = Interrupts::new()?;
    let mut client = session.open().await?;
    let reply = submit::send(&mut client, request).await?;
    if !reply.warning.is_empty() {
        out.warn(&reply.warning);
    }
    let job = reply.job;
    let watched = watch(session, client.clone(), job.clone());
    let mut watched = std::pin::pin!(watched);
    tokio::select! {
        biased;
        ended = &mut watched => return match ended {
            Ok(ended) => finish(session, &ended),
            Err(error) => {
                if error.is_closed_pipe() {
                    // Here the command would have died of SIGPIPE.
                    cancel(session, client, job).await?;
                }
                Err(error)
            }
        },
        () = interrupts.next() => {}
    }
    out.note(&format!("cancelling {job}; Ctrl-C again leaves it"));
    let cancel = cancel(session, client, job.clone());
    let ended = async {
        cancel.await?;
        watched.await
    };
    tokio::select! {
        biased;
        ended = ended => finish(session, &ended?),
        () = interrupts.next() => {
            out.note(&format!("left {job}; see `starling jobs {job}`"));
            Ok(EXIT_INTERRUPTED)
        }
    }
}

fn finish(session: &Session<'_>, job: &JobSummary) -> Result<u8, CliError> {
    let code = job_exit_code(job);
    // What the command said itself needs no comment; an ending from outside does.
    if !job.reason.is_empty() {
        session.out.note(&wait::sentence(job));
    }
    Ok(code)
}

/// Prints the output and returns the end.
async fn watch(session: &Session<'_>, client: Client, job: String) -> Result<JobSummary, CliError> {
    let request = LogsRequest { job: job.clone(), follow: true, ..LogsRequest::default() };
    let mut printer = Printer::new(session, Prefix::None);
    let (ended, ()) = tokio::try_join!(
        wait::one(session, client.clone(), job, wait::Report::Quiet),
        printer.print_all(client, request)
    )?;
    Ok(ended)
}

async fn cancel(session: &Session<'_>, mut client: Client, job: String) -> Result<(), CliError> {
    let request = CancelRequest { jobs: vec![job], reason: "interrupted".to_owned() };
    match call(client.cancel(request.clone())).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let mut client = session.reopen(error, &mut super::Patience::default()).await?;
            call(client.cancel(request)).await.map(|_| ())
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Runtime);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Cancel safety: a signal is not lost when the future is dropped before it arrives.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
