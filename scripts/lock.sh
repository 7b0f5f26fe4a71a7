#!/bin/sh
# Write every lock: the build tools, the whole workspace with its dev tools, and one per service with the same versions.
# Usage: scripts/lock.sh path/to/uv   (extra arguments, such as --upgrade, go to uv)
set -eu
uv=$1
shift
cd "$(dirname "$0")/.."

compile() {
  "$uv" pip compile --quiet --universal --generate-hashes --python-version 3.11 \
    --custom-compile-command "make lock" "$@"
}

members="dialbus dialbus-cli dialbus-gateway dialbus-sip-ua dialbus-media dialbus-asr dialbus-tts dialbus-webhook-dispatcher"
without_members=$(for member in $members; do printf -- '--no-emit-package %s ' "$member"; done)

compile "$@" requirements-build.in -o requirements-build.lock
# shellcheck disable=SC2086 - the options are words
compile "$@" pyproject.toml --group dev $without_members -o requirements-dev.lock
for folder in cli services/*; do
  compile "$folder/pyproject.toml" --all-extras --constraint requirements-dev.lock $without_members -o "$folder/requirements.lock"
done

# A lock says what and with which hash; from where is the installer's affair.
if grep -nE '://|file:|^ *-(i|f|-index-url|-extra-index-url|-find-links)' requirements-*.lock cli/requirements.lock services/*/requirements.lock; then
  echo "scripts/lock.sh: a lock names a place; see the lines above" >&2
  exit 1
fi
