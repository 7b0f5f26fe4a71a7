#!/usr/bin/env bash
# Build the images, start them scaled, look at every container, place a call, and take all down again.
# Needs a Docker Engine with Compose. The call needs `make venv`; without it the script says so and fails.
#   SMOKE_HTTP_PORT, SMOKE_SIP_PORT, SMOKE_NATS_PORT, SMOKE_WEBHOOK_PORT   other ports than the ones below
#   DIALBUS_BUILD_NETWORK=host                                             where builds have no network of their own
set -euo pipefail
cd "$(dirname "$0")/../.."

export COMPOSE_PROJECT_NAME=dialbus-smoke
export DIALBUS_HTTP_PORT=${SMOKE_HTTP_PORT:-18080}
export DIALBUS_NATS_PORT=${SMOKE_NATS_PORT:-14222}
export DIALBUS_UA_UDP_PORT=${SMOKE_SIP_PORT:-13550}
webhook_port=${SMOKE_WEBHOOK_PORT:-18090}
export DIALBUS_UA_HANDLER_URL=http://127.0.0.1:$webhook_port/webhook
expected=10 # nats, gateway, sip-ua, 3 × media, 2 × asr, tts, webhook-dispatcher
scale=(--scale media=3 --scale asr=2)
work=$(mktemp -d)
receptionist=""

failed() {
  echo "compose smoke: FAILED: $*" >&2
  docker compose ps --all >&2 || true
  docker compose logs --no-color --tail 40 >&2 || true
  exit 1
}

finish() {
  [ -n "$receptionist" ] && kill "$receptionist" 2>/dev/null
  docker compose down --volumes --timeout 10 >"$work/down.log" 2>&1 || cat "$work/down.log" >&2
  rm -rf "$work"
}
trap finish EXIT

echo "compose smoke: building"
docker compose build >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; failed "the build"; }

echo "compose smoke: starting ${scale[*]}"
docker compose up --detach --no-build --wait --wait-timeout 180 "${scale[@]}" >"$work/up.log" 2>&1 ||
  { tail -30 "$work/up.log" >&2; failed "not healthy"; }

ids=$(docker compose ps --quiet)
count=$(echo "$ids" | wc -l)
[ "$count" -eq "$expected" ] || failed "$count containers instead of $expected"
for id in $ids; do
  read -r name image state health < <(docker inspect --format \
    '{{.Name}} {{.Config.Image}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' "$id")
  [ "$state" = running ] || failed "$name is $state"
  case $image in
    nats:*) user=root ;; # the official image, which has no health check that works everywhere; others wait for it
    *)
      [ "$health" = healthy ] || failed "$name is $health"
      user=$(docker exec "$id" python -c 'import os; print(os.getuid())')
      [ "$user" -ne 0 ] || failed "$name runs as root"
      ;;
  esac
  printf '  %-40s %-9s %-8s user %s\n' "${name#/}" "$state" "$health" "$user"
done

[ -x .venv/bin/dialbus ] || failed "no call could be placed: .venv is missing, run make venv"
echo "compose smoke: calling"
.venv/bin/python examples/receptionist.py --server "ws://127.0.0.1:$DIALBUS_HTTP_PORT" --port "$webhook_port" \
  >"$work/receptionist.log" 2>&1 &
receptionist=$!
for _ in $(seq 50); do grep -q '^webhook:' "$work/receptionist.log" && break; sleep 0.1; done
timeout 90 .venv/bin/dialbus phone "sip:4000@127.0.0.1:$DIALBUS_UA_UDP_PORT" --say examples/caller.wav --after-greeting \
  --record "$work/heard.wav" --seconds 45 | sed 's/^/  phone: /' || failed "the call"
sed 's/^/  receptionist: /' "$work/receptionist.log"
grep -q '^caller: ' "$work/receptionist.log" || failed "nothing the caller said arrived"
grep -q '^call ended: ' "$work/receptionist.log" || failed "the call did not end"
echo "compose smoke: twelve calls at once"
callers=()
for file in tests/data/numbers/*.wav tests/data/numbers/11.wav tests/data/numbers/12.wav; do
  timeout 60 .venv/bin/dialbus phone "sip:4001@127.0.0.1:$DIALBUS_UA_UDP_PORT" --say "$file" --wait-before-say 1 \
    --seconds 10 >>"$work/callers.log" 2>&1 &
  callers+=($!)
done
for caller in "${callers[@]}"; do wait "$caller" || { tail -20 "$work/callers.log" >&2; failed "one of twelve calls"; }; done

# Which worker did how much: a counter of each container's /metrics.
worked() { # service, counter
  for id in $(docker compose ps --quiet "$1"); do
    docker exec "$id" python -c '
import json, os, pathlib, sys, urllib.request
newest = max(pathlib.Path(os.environ["DIALBUS_RUN_DIR"]).glob("*.json"), key=lambda path: path.stat().st_mtime)
url = json.loads(newest.read_text())["health"].replace("//0.0.0.0:", "//127.0.0.1:").replace("/health", "/metrics")
lines = urllib.request.urlopen(url, timeout=5).read().decode().splitlines()
print(int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sys.argv[1]))))' "$2"
  done
}
for pair in media:dialbus_media_packets_in_total asr:dialbus_asr_decodes_total; do
  service=${pair%%:*}
  counts=$(worked "$service" "${pair#*:}" | tr '\n' ' ')
  echo "  $service workers: ${pair#*:} = $counts"
  busy=$(echo "$counts" | tr ' ' '\n' | awk '$1 > 0' | wc -l)
  [ "$busy" -ge 2 ] || failed "the calls did not spread over the $service workers"
done
echo "compose smoke: passed"
