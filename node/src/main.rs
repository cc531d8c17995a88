//! The `starling` binary: reads the command line and hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    starling_node::daemon::main(std::env::args_os())
}
