#!/usr/bin/env bash
# Starts the fakes and a gateway before them, and plays all clients.
#
#   play.sh native     the `tidegate` binary
#   play.sh workerd    the worker, as tests/workerd serves it
#   play.sh spin       the component, in the test host
#   play.sh direct     no gateway: shows that the fakes are what the clients expect
#
# Programs are looked for where cargo puts them. TIDEGATE_BIN, TIDEGATE_FAKES_BIN, TIDEGATE_SPIN_HOST, TIDEGATE_SPIN_WASM and
# TIDEGATE_WORKERD (the folder of the built worker) say otherwise.
set -uo pipefail
cd "$(dirname "$0")" || exit 2
here=$PWD
root=$here/../..
target=${CARGO_TARGET_DIR:-$root/target}
folder=$(mktemp -d)
started=()
end() {
  for process in "${started[@]}"; do kill "$process" 2>/dev/null; done
  wait "${started[@]}" 2>/dev/null
  rm -rf "$folder"
}
trap end EXIT

# Finds the program $1: where the variable $2 says, else where cargo puts it.
program() {
  local path
  for path in "${!2:-}" "$target/native/$1" "$target/debug/$1" "$target/release/$1"; do
    if [ -n "$path" ] && [ -x "$path" ]; then echo "$path"; return; fi
  done
  echo "$1 is not built" >&2
  return 1
}

# Starts a program, called $1; the rest is its command. Its address is then in $url.
start() {
  local name=$1
  shift
  # Its standard input ends when this script does, however that comes about, and so does it.
  "$@" --until-stdin-closes < <(exec tail --pid=$$ --follow /dev/null) >"$folder/$name.records" 2>"$folder/$name.log" &
  local process=$!
  started+=("$process")
  for _ in $(seq 300); do
    url=$(sed -n 's/^listening on \(http:[^ ]*\)$/\1/p' "$folder/$name.log")
    [ -n "$url" ] && return
    kill -0 "$process" 2>/dev/null || break
    sleep 0.2
  done
  echo "$name does not start:" >&2
  cat "$folder/$name.log" >&2
  exit 1
}

fakes=$(program tidegate-fakes TIDEGATE_FAKES_BIN) || exit 1
start fakes "$fakes" --listen 127.0.0.1:0
fakes_url=$url
if [ "${1:-}" = direct ]; then
  ./run.sh --direct "$fakes_url"
  exit
fi

set -a
# shellcheck source=secrets.env
. ./secrets.env
set +a
mapfile -t secrets < <(sed -n 's/^\([A-Z_]*\)=.*/\1/p' secrets.env)
sed "s|{fakes}|$fakes_url|g" tidegate.toml >"$folder/tidegate.toml"
tidegate=$(program tidegate TIDEGATE_BIN) || exit 1
compiled() {
  "$tidegate" compile "$folder/tidegate.toml" --out "$folder/tidegate.json" || exit 1
}
case ${1:-} in
  native)
    start gateway "$tidegate" serve --config "$folder/tidegate.toml" --listen 127.0.0.1:0
    ;;
  workerd)
    compiled
    # The worker's own Node, if the one at hand is too old for it.
    node=$root/tests/workerd/node_modules/node/bin/node
    [ -x "$node" ] || node=node
    start gateway "${TIDEGATE_NODE:-$node}" "$root/tests/workerd/serve.mjs" --config "$folder/tidegate.json" --port 0 \
      "${secrets[@]/#/--secret=}" ${TIDEGATE_WORKERD:+"--artefact=$TIDEGATE_WORKERD"}
    ;;
  spin)
    compiled
    host=$(program tidegate-spin-host TIDEGATE_SPIN_HOST) || exit 1
    component=${TIDEGATE_SPIN_WASM:-$target/wasm32-wasip2/release/tidegate.wasm}
    for name in "${secrets[@]}"; do export "SPIN_VARIABLE_$name=${!name}"; done
    start gateway "$host" --component "$component" --config "$folder/tidegate.json" --listen 127.0.0.1:0 --state "$folder/state"
    ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
./run.sh "$url" "$fakes_url"
status=$?
# The records must not tell a secret either.
for name in "${secrets[@]}"; do
  if grep -qF -- "${!name}" "$folder"/gateway.*; then
    echo "the gateway wrote the secret $name"
    status=1
  fi
done
if [ "$status" != 0 ]; then
  echo "-- what the gateway said last"
  tail -n 20 "$folder/gateway.log"
fi
exit "$status"
