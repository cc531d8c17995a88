#!/usr/bin/env bash
# Measures this machine: one table, each figure beside the floor of the same run or a peer's quoted figure. --json for one object a line.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked -p starling-node -p starling-testnet
exec ./target/release/starling-testnet bench "$@"
