//! The `starling` binary: reads the command line and hands over.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A node that caught up, or was busy for an hour, gives back what it needed then; the system's allocator keeps most of it (ADR 21).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    starling_node::daemon::main(std::env::args_os())
}
