#!/bin/sh
# Builds what entry.mjs imports into build/ beside it: the Rust module, and the configuration that is deployed with it.
#
#   TIDEGATE_FILE       the configuration to compile; the example for Workers if absent
#   TIDEGATE_COMPILED   a configuration that was compiled before, instead
#   TIDEGATE_WORKER     a build/ that was made before; then nothing is built
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."

if [ -n "${TIDEGATE_WORKER:-}" ]; then
  mkdir -p "$here/build"
  cp "$TIDEGATE_WORKER/index.js" "$TIDEGATE_WORKER/index_bg.wasm" "$TIDEGATE_WORKER/tidegate.json.txt" "$here/build/"
  exit
fi

worker-build --release adapters/cloudflare
# It keeps the names of all functions, a seventh of what is deployed.
cargo run --locked --quiet --package xtask -- strip "$here/build/index_bg.wasm"
if [ -n "${TIDEGATE_COMPILED:-}" ]; then
  cp "$TIDEGATE_COMPILED" "$here/build/tidegate.json.txt"
else
  cargo run --quiet --package tidegate -- compile "${TIDEGATE_FILE:-examples/workers/tidegate.toml}" --out "$here/build/tidegate.json.txt"
fi
