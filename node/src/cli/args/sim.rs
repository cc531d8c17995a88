//! `sim`: the flags of simulations.
//!
//! Invariants: as in `args`; `--env` is the environment's command here, so variables have another long name.

use clap::{Args, Subcommand};

use super::{DemandArgs, ManyArgs};
use crate::cli::units::{EnvEntry, Millis, Words, parse_env};

#[derive(Debug, Subcommand)]
pub enum SimVerb {
    /// Run one simulation somewhere and stream its output here; exits with the policy's code
    Run(SimRunArgs),
    /// Hand one or many simulations to the cluster
    Submit(SimSubmitArgs),
}

/// What a simulation is and needs; shared by `sim run` and `sim submit`.
#[derive(Debug, Clone, Args)]
pub struct PairArgs {
    /// Command of the env, a server. It writes its port to the file named by STARLING_PORT_FILE (or by {port_file} in the command), or
    /// prints PORT=n as its first line. It is stopped when the policy has ended
    #[arg(long = "env", value_name = "CMD")]
    pub env_command: Words,
    /// Command of the policy, started when the env listens. {port} and {host} in it are replaced; STARLING_PORT and STARLING_HOST say the
    /// same. Both commands are split into words as a shell does; for more of a shell write sh -c '…'
    #[arg(long = "policy", value_name = "CMD")]
    pub policy_command: Words,
    /// Within this time of its start the env must listen [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub port_wait: Option<Millis>,
    /// Set a variable of env and policy, or hand on the caller's; may be repeated
    #[arg(short = 'e', long = "var", value_name = "K[=V]", value_parser = parse_env)]
    pub variables: Vec<EnvEntry>,
    #[command(flatten)]
    pub demand: DemandArgs,
}

#[derive(Debug, Clone, Args)]
pub struct SimRunArgs {
    #[command(flatten)]
    pub pair: PairArgs,
}

#[derive(Debug, Clone, Args)]
pub struct SimSubmitArgs {
    #[command(flatten)]
    pub many: ManyArgs,
    #[command(flatten)]
    pub pair: PairArgs,
}
