//! `gateway`: its verbs and flags.
//!
//! Invariants: as in `args`.

use clap::{Args, Subcommand};

#[derive(Debug, Clone, Subcommand)]
pub enum GatewayVerb {
    /// Which node is the gateway, since when, and why
    Status,
    /// Say which workers and clients may come in from other hosts
    #[command(subcommand)]
    Token(TokenVerb),
}

#[derive(Debug, Clone, Subcommand)]
pub enum TokenVerb {
    /// Make a token and print it, once
    Add(TokenAddArgs),
    /// List tokens by name and hash; the tokens themselves are known to nobody
    List,
    /// Let a token in no longer
    Revoke(TokenRevokeArgs),
}

#[derive(Debug, Clone, Args)]
pub struct TokenAddArgs {
    /// Name by which you will know it: letters, digits and -_.
    #[arg(value_name = "NAME")]
    pub name: String,
}

#[derive(Debug, Clone, Args)]
pub struct TokenRevokeArgs {
    /// Name of the token, or the beginning of its hash
    #[arg(value_name = "TOKEN")]
    pub token: String,
}
