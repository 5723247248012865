#!/bin/sh
# Builds the Worker into DIRECTORY, prints its size, and fails if it is too large.
#
#   tests/workerd/build.sh [DIRECTORY]     (build/ beside this file if absent, where serve.mjs looks for it)
#
# Needs `npm ci` in this folder, and wasm-bindgen-cli and worker-build in the folder bin of $TIDEGATE_TOOLS.
set -eu
limit=$((350 * 1024))
out=${1:-$(dirname "$0")/build}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")"
here=$PWD
adapter=$here/../../adapters/cloudflare
tools=${TIDEGATE_TOOLS:-$HOME/.cache/tidegate/tools}/bin

export PATH="$here/node_modules/.bin:$tools:$PATH"
export WASM_BINDGEN_BIN="$tools/wasm-bindgen"
export ESBUILD_BIN="$here/node_modules/.bin/esbuild"
export WASM_OPT_BIN="$here/node_modules/.bin/wasm-opt"
"$adapter/build.sh"

mkdir -p "$out/build"
cp "$adapter/entry.mjs" "$out/"
cp "$adapter/build/index.js" "$adapter/build/index_bg.wasm" "$adapter/build/tidegate.json.txt" "$out/build/"

raw=$(wc -c < "$out/build/index_bg.wasm")
gzip=$(gzip -9 -c "$out/build/index_bg.wasm" | wc -c)
echo "workerd: $raw bytes of wasm, $gzip gzipped, of $limit allowed"
[ "$gzip" -le "$limit" ]
