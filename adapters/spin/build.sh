#!/bin/sh
# Builds what spin.toml runs: the component, and its configuration, compiled from TOML and checked on the way.
# The configuration is examples/spin/tidegate.toml, or the file that the environment variable TIDEGATE_FILE names.
set -eu
cd "$(dirname "$0")/../.."

# spin.toml looks for the component there.
CARGO_TARGET_DIR=target cargo run --locked --quiet -p xtask -- component
mkdir -p build/spin
cargo run --locked --quiet -p tidegate -- compile --runtime spin "${TIDEGATE_FILE:-examples/spin/tidegate.toml}" \
  --out build/spin/tidegate.json
