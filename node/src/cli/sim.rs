//! `sim run` and `sim submit`: simulations from the command line.
//!
//! Invariants: everything but the two commands is as for `run` and `submit`.
//! Does not: know where an env will listen.

use starling_proto::v1::{Simulation, SubmitRequest};

use super::args::{PairArgs, SimRunArgs, SimSubmitArgs};
use super::error::CliError;
use super::{Session, run, submit};

/// Runs one simulation here, as far as one can see.
pub(crate) async fn run(session: &Session<'_>, args: SimRunArgs) -> Result<u8, CliError> {
    Box::pin(run::follow(session, pair_request(args.pair)?)).await
}

/// Submits; with `--wait` returns the job's exit code.
pub(crate) async fn submit(session: &Session<'_>, args: SimSubmitArgs) -> Result<u8, CliError> {
    let SimSubmitArgs { many, pair } = args;
    submit::hand_in(session, pair_request(pair)?, many).await
}

/// The part of the request that both verbs share.
pub(crate) fn pair_request(args: PairArgs) -> Result<SubmitRequest, CliError> {
    let simulation = Simulation {
        env_command: args.env_command.0,
        policy_command: args.policy_command.0,
        port_wait_ms: args.port_wait.map_or(0, |wait| wait.0),
    };
    Ok(SubmitRequest { simulation: Some(simulation), ..submit::demand_request(args.demand, args.variables)? })
}
