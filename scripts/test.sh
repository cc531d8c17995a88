#!/usr/bin/env bash
# Everything that must hold before a commit: formatting, lints, all tests, documentation, 200 simulated clusters, two minutes of chaos on real nodes.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

step() { printf '\n== %s\n' "$*"; }

step "toolchain"
if ! command -v cargo >/dev/null; then
  echo "cargo is missing; install rustup from https://rustup.rs, it fetches the version in rust-toolchain.toml" >&2
  exit 1
fi
cargo --version

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

step "tests"
# The end-to-end tests start this binary, so it is built first.
cargo build --workspace --locked
cargo test --workspace --locked 2>&1 | tee target/test-output.txt

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

step "200 simulated clusters"
# As built with the workspace: built alone, its dependencies would be built again with fewer features.
"${CARGO_TARGET_DIR:-target}/debug/starling-testnet" sim --seeds 200

step "two minutes of chaos"
# One seed, so that every run sees the same faults. What cannot be done on this machine is named in lines that begin with SKIPPED.
"${CARGO_TARGET_DIR:-target}/debug/starling-testnet" chaos --minutes 2 --seed 2

passed=$(awk '/^test result:/ { for (i = 1; i < NF; i++) if ($(i + 1) == "passed;") sum += $i } END { print sum }' target/test-output.txt)
printf '\n%s passed, 0 failed\n' "$passed"
