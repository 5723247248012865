#!/usr/bin/env bash
# Plays all clients against a gateway that was started with tidegate.toml and secrets.env.
#
#   run.sh URL [FAKES_URL]      FAKES_URL: the fakes behind it, to see what reached them
#   run.sh --direct FAKES_URL   the fakes themselves, without a gateway
#
# Every client ends with its counts. Exits with 1 if one of them failed, or played nothing.
set -uo pipefail
cd "$(dirname "$0")" || exit 2
unset TIDEGATE_DIRECT TIDEGATE_FAKES_URL

case ${1:-} in
  --direct) export TIDEGATE_DIRECT=1 TIDEGATE_URL=${2:?which URL?} ;;
  http://* | https://*) export TIDEGATE_URL=$1 ${2:+TIDEGATE_FAKES_URL=$2} ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
# shellcheck source=secrets.env
. ./secrets.env
export CLIENTS_THRIFTY_KEY CLIENTS_COUNTED_KEY CLIENTS_GUESSED_KEY
export TIDEGATE_KEY=${TIDEGATE_KEY:-$CLIENTS_KEY} TIDEGATE_LIMITED_KEY=${TIDEGATE_LIMITED_KEY:-$CLIENTS_LIMITED_KEY}
export PYTHONDONTWRITEBYTECODE=1 NO_COLOR=1
# The gateway is on this machine.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

# Installs what the list $1 pins, unless the stamp $2 says that this very list was installed.
once() {
  local list=$1 stamp=$2
  shift 2
  cmp --silent "$list" "$stamp" || { "$@" && cp "$list" "$stamp"; }
}
# What Dify's package wants is older than what the others use: it has an environment of its own.
python_packages() {
  local list=$1 folder=$2
  python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$list"
}
npm_packages() {
  npm ci --prefix node --no-audit --no-fund --loglevel error
}
for name in "" -dify; do
  list=python/requirements$name.txt folder=python/.venv$name
  once "$list" "$folder/.installed" python_packages "$list" "$folder" || exit 1
done
once node/package-lock.json node/node_modules/.installed npm_packages || exit 1

failed=()
# Plays the client $1; the rest is its command.
play() {
  local name=$1
  shift
  echo "-- $name"
  "$@" 2>&1 | tee "$output"
  local status=${PIPESTATUS[0]}
  # Where nothing passed, nothing was tested.
  if [ "$status" != 0 ] || ! grep -qE '^(# pass |ℹ pass )[1-9]|^[1-9][0-9]* passed, 0 failed' "$output"; then
    failed+=("$name")
  fi
}
output=$(mktemp)
trap 'rm -f "$output"' EXIT

play compose timeout 60 python/.venv-dify/bin/python python/compose.py
play openai-python timeout 300 python/.venv/bin/python python/openai_sdk.py
play estimate timeout 300 python/.venv/bin/python python/estimate.py
play dify-plugin timeout 300 python/.venv/bin/python python/dify_plugin_client.py
play dify-plugin-package timeout 300 python/.venv-dify/bin/python python/dify_plugin_package.py
play dify-api timeout 300 python/.venv/bin/python python/dify_api_client.py
play dify-client-python timeout 300 python/.venv-dify/bin/python python/dify_client_package.py
play openai-node timeout 300 node --test-reporter=spec node/openai_sdk.test.mjs
play dify-client-node timeout 300 node --test-reporter=spec node/dify_client.test.mjs

if [ ${#failed[@]} != 0 ]; then
  echo "clients that failed: ${failed[*]}"
  exit 1
fi
