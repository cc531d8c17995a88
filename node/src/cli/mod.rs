//! The command line client: one process, one connection, one verb.
//!
//! Invariants: data goes to stdout, talk to stderr; the exit code is the job's own, or 124 timed out,
//! 125 cancelled, 2 usage, 69 no daemon, 75 lost; nothing here is faster or better informed than
//! any other client of the API.
//! Does not: run nodes, workers or supervisors or read their configuration: `up`, `hwp-worker`, `supervise`,
//! `cluster init` and `config show` are handed back to the caller.

pub mod args;
mod connect;
mod down;
mod error;
mod events;
mod facts;
mod gateway;
mod jobs;
mod live;
mod log;
mod logs;
mod members;
mod node;
mod nodes;
mod ns;
mod output;
mod relays;
mod run;
mod sim;
mod submit;
mod table;
mod top;
pub mod units;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use tokio::time::Instant;

use self::args::{Cli, ClientOptions, ClusterVerb, ConfigVerb, JobVerb, NodeVerb, SimVerb, Verb};
pub use self::args::{ClusterInitArgs, HwpArgs, HwpAt, HwpWorkerArgs, LivenessArgs, SuperviseArgs, UpArgs};
pub use self::connect::base_dir;
use self::connect::{Client, Target};
use self::error::CliError;
use self::output::Output;
pub use self::output::{complain, print, say};
pub use self::units::{CpusMilli, MemBytes, Millis, duration};

/// How long a watching verb looks for another node after its own went away: longer than it takes to
/// restart one.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Run a node in this process.
    Up(Box<UpArgs>),
    /// Write a cluster secret.
    ClusterInit(ClusterInitArgs),
    /// Show the configuration that these flags would give.
    ConfigShow(Box<UpArgs>),
    /// Be a worker of an HWP server.
    HwpWorker(Box<HwpWorkerArgs>),
    /// Host tasks for a node.
    Supervise(SuperviseArgs),
    /// Ask a node; see [`execute`].
    Client(Box<ClientCommand>),
}

/// A verb that some node answers.
#[derive(Debug)]
pub struct ClientCommand {
    options: ClientOptions,
    verb: ClientVerb,
}

#[derive(Debug)]
enum ClientVerb {
    Down(args::DownArgs),
    Submit(args::SubmitArgs),
    Run(args::RunArgs),
    SimRun(args::SimRunArgs),
    SimSubmit(args::SimSubmitArgs),
    Jobs(args::JobsArgs),
    JobInfo(args::JobArg),
    JobExplain(args::JobArg),
    Logs(args::LogsArgs),
    Wait(args::WaitArgs),
    Cancel(args::CancelArgs),
    Nodes(args::NodesArgs),
    NodeInfo(args::NodeInfoArgs),
    Drain(args::DrainArgs),
    Resume(args::MemberArg),
    Forget(args::ForgetArgs),
    Top(args::TopArgs),
    Relays,
    Gateway(args::GatewayVerb),
    Events(args::EventsArgs),
    Facts(args::FactsArgs),
    Log(args::LogVerb),
    Ns(args::NsVerb),
    ClusterInfo,
    Doctor,
}

/// Reads the command line, program name first.
///
/// # Errors
/// The exit code, after help or the usage error was printed: 0 for help and version, else 2.
pub fn parse<I, T>(arguments: I) -> Result<Parsed, ExitCode>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map(sort).map_err(|error| ExitCode::from(output::usage(&error)))
}

fn sort(cli: Cli) -> Parsed {
    let verb = match cli.verb {
        Verb::Up(up) => return Parsed::Up(Box::new(up)),
        Verb::Cluster(ClusterVerb::Init(init)) => return Parsed::ClusterInit(init),
        Verb::Config(ConfigVerb::Show(up)) => return Parsed::ConfigShow(up),
        Verb::HwpWorker(worker) => return Parsed::HwpWorker(worker),
        Verb::Supervise(supervise) => return Parsed::Supervise(supervise),
        Verb::Down(down) => ClientVerb::Down(down),
        Verb::Submit(submit) => ClientVerb::Submit(submit),
        Verb::Run(run) => ClientVerb::Run(run),
        Verb::Sim(SimVerb::Run(run)) => ClientVerb::SimRun(run),
        Verb::Sim(SimVerb::Submit(submit)) => ClientVerb::SimSubmit(submit),
        Verb::Jobs(jobs) => ClientVerb::Jobs(jobs),
        Verb::Job(JobVerb::Info(job)) => ClientVerb::JobInfo(job),
        Verb::Job(JobVerb::Explain(job)) => ClientVerb::JobExplain(job),
        Verb::Job(JobVerb::Events(of)) => {
            ClientVerb::Events(args::EventsArgs { follow: of.follow, job: Some(of.job), ..args::EventsArgs::default() })
        }
        Verb::Logs(logs) => ClientVerb::Logs(logs),
        Verb::Wait(wait) => ClientVerb::Wait(wait),
        Verb::Cancel(cancel) => ClientVerb::Cancel(cancel),
        Verb::Nodes(nodes) => ClientVerb::Nodes(nodes),
        Verb::Node(NodeVerb::Info(info)) => ClientVerb::NodeInfo(info),
        Verb::Node(NodeVerb::Drain(drain)) => ClientVerb::Drain(drain),
        Verb::Node(NodeVerb::Resume(node)) => ClientVerb::Resume(node),
        Verb::Cluster(ClusterVerb::Forget(forget)) => ClientVerb::Forget(forget),
        Verb::Top(top) => ClientVerb::Top(top),
        Verb::Relays => ClientVerb::Relays,
        Verb::Gateway(verb) => ClientVerb::Gateway(verb),
        Verb::Events(events) => ClientVerb::Events(events),
        Verb::Facts(facts) => ClientVerb::Facts(facts),
        Verb::Log(log) => ClientVerb::Log(log),
        Verb::Ns(ns) => ClientVerb::Ns(ns),
        Verb::Cluster(ClusterVerb::Info) => ClientVerb::ClusterInfo,
        Verb::Doctor => ClientVerb::Doctor,
    };
    Parsed::Client(Box::new(ClientCommand { options: cli.options, verb }))
}

/// Asks a node and prints its answer; builds its own runtime, so it must not be called from one.
pub fn execute(command: Box<ClientCommand>) -> ExitCode {
    let out = Output::new(&command.options);
    // One thread: a client has one connection, and starting more costs milliseconds.
    let outcome =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime).and_then(
            |runtime| {
                let outcome = runtime.block_on(perform(*command, &out));
                // A blocked read of stdin must not hold the process.
                runtime.shutdown_background();
                outcome
            },
        );
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            out.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn perform(command: ClientCommand, out: &Output) -> Result<u8, CliError> {
    let target = Target::parse(command.options.via.as_deref());
    let session = Session { target, out };
    match command.verb {
        ClientVerb::Down(args) => down::down(&session, args).await,
        ClientVerb::Submit(args) => submit::submit(&session, args).await,
        ClientVerb::Run(args) => run::run(&session, args).await,
        ClientVerb::SimRun(args) => sim::run(&session, args).await,
        ClientVerb::SimSubmit(args) => sim::submit(&session, args).await,
        ClientVerb::Jobs(args) => jobs::list(&session, args).await,
        ClientVerb::JobInfo(args) => jobs::info(&session, args.job).await,
        ClientVerb::JobExplain(args) => jobs::explain(&session, args.job).await,
        ClientVerb::Logs(args) => logs::logs(&session, args).await,
        ClientVerb::Wait(args) => wait::wait(&session, args).await,
        ClientVerb::Cancel(args) => jobs::cancel(&session, args).await,
        ClientVerb::Nodes(args) => nodes::list(&session, &args).await,
        ClientVerb::NodeInfo(args) => node::info(&session, args).await,
        ClientVerb::Drain(args) => members::drain(&session, &args).await,
        ClientVerb::Resume(args) => members::resume(&session, &args).await,
        ClientVerb::Forget(args) => members::forget(&session, &args).await,
        ClientVerb::Top(args) => top::top(&session, &args).await,
        ClientVerb::Relays => relays::list(&session).await,
        ClientVerb::Gateway(verb) => gateway::gateway(&session, verb).await,
        ClientVerb::Events(args) => events::events(&session, args).await,
        ClientVerb::Facts(args) => facts::facts(&session, args).await,
        ClientVerb::Log(verb) => log::log(&session, verb).await,
        ClientVerb::Ns(verb) => ns::ns(&session, verb).await,
        ClientVerb::ClusterInfo => nodes::info(&session).await,
        ClientVerb::Doctor => nodes::doctor(&session).await,
    }
}

/// Whom to ask and where to print.
#[derive(Debug)]
struct Session<'a> {
    target: Target,
    out: &'a Output,
}

impl Session<'_> {
    async fn open(&self) -> Result<Client, CliError> {
        connect::open(&self.target).await
    }

    /// Opens again, maybe to another node, after `error` broke a watching call; any other error is
    /// handed back, and so is this one when patience has run out.
    async fn reopen(&self, error: CliError, patience: &mut Patience) -> Result<Client, CliError> {
        // A job that was acknowledged exists: a node that does not know it yet is catching up.
        let behind = patience.until.is_some() && error.is_not_found();
        if !error.is_link_loss() && !behind {
            return Err(error);
        }
        let until = match patience.until {
            Some(until) if Instant::now() >= until => return Err(error),
            Some(until) => until,
            None => {
                self.out.note("the node went away; looking for another one");
                Instant::now() + PATIENCE
            }
        };
        patience.until = Some(until);
        connect::reopen(&self.target, until).await
    }
}

/// Until when a verb that only watches looks for a node that can go on.
#[derive(Debug, Default)]
struct Patience {
    until: Option<Instant>,
}

impl Patience {
    /// The new node is as good as the old one was.
    fn renew(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests;
