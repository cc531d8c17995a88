//! Compiles the worker protocol as it was published into a client, for tests that are to use nothing but that file.
//!
//! Does not: serve it, or know what Starling adds to it (`proto` does).

use std::error::Error;

/// The published file, byte for byte.
const PUBLISHED: &str = "../proto/tests/hwp";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PUBLISHED}");
    let descriptors = protox::compile(["hwp.proto"], [PUBLISHED])?;
    let builder = tonic_prost_build::configure().emit_rerun_if_changed(false).build_server(false);
    builder.compile_fds(descriptors)?;
    Ok(())
}
