#!/bin/sh
# A replica that is a shell script: it answers, sends its events, and obeys, with curl and the sidecar only.
# It starts a monitor of its own in a temporary folder, and ends within seconds.
set -eu

bin=${UNSHIP_BIN:-$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin}
folder=$(mktemp -d)
cd "$folder"
export UNSHIP_LOG="embedded:$folder/unship-data"
# The installed command is `unship-replica`.
replica() { "$bin/python" -m unship.sidecar.cli "$@"; }
pids=
# shellcheck disable=SC2086
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$folder"' EXIT

cat > unship.yaml <<'YAML'
models: {fraud: {policy: {mode: act}, one_false_alarm_per: 1000, worse_by: 0.01}}
YAML
"$bin/unship" -q keys new
for deployment in '"v41","status":"live"' '"v42","status":"live","previous":"v41"' '"v41","status":"holdback"'; do
    replica emit deployment "{\"model\":\"fraud\",\"version\":$deployment}"
done
"$bin/unship" -q run > run.log 2>&1 &
pids="$!"
"$bin/python" -m unship.sidecar.cli sidecar --model fraud --version v42 --replica shell-0 \
    --trust unship-keys/trust.json --listen 127.0.0.1:0 > address &
pids="$pids $!"
tries=0
while [ ! -s address ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
base=$(cat address)
echo v42 > serving

# Ask what is desired, naming the tag of what is known; switch; confirm.
obey() {
    tag='"0.0.0"'
    while curl -sS --max-time 30 -D head -H "If-None-Match: $tag" "$base/v1/desired?wait=10" > desired; do
        grep -q '^HTTP/1.1 200' head || continue
        tag=$(tr -d '\r' < head | sed -n 's/^ETag: //p')
        version=$(sed 's/.*"version":"\([^"]*\)".*/\1/' desired)
        epoch=$(sed 's/.*"epoch":\(\[[^]]*\]\).*/\1/' desired)
        # Here a service would load the version. A file that is renamed is never read half written.
        echo "$version" > serving.new && mv serving.new serving
        curl -sS -X PUT -d "{\"version\":\"$version\",\"epoch\":$epoch}" "$base/v1/ack" > confirmed || true
        echo "$version" >> obeyed
    done
}
obey 2> /dev/null &
pids="$pids $!"
tries=0
while ! grep -qx v42 obeyed 2> /dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done

# Forty answers a round with their truths; three in ten by the version before. After 2000 answers v42 decays.
round=0
while [ "$round" -lt 150 ] && { [ "$round" -lt 50 ] || [ "$(cat serving)" != v41 ]; }; do
    awk -v round="$round" -v live="$(cat serving)" 'BEGIN {
        srand(round + 5)
        printf "["
        for (i = 0; i < 40; i++) {
            id = "r" round "-" i
            holdback = rand() < 0.3
            version = holdback ? "v41" : live
            wrong = rand() < (round >= 50 && version == "v42" ? 0.6 : 0.05)
            printf "%s{\"type\":\"prediction\",\"id\":\"%s\",\"version\":\"%s\",\"role\":\"%s\",\"output\":1},", \
                i ? "," : "", id, version, holdback ? "holdback" : "live"
            printf "{\"type\":\"feedback\",\"id\":\"%s\",\"truth\":%d}", id, wrong ? 0 : 1
        }
        printf "]"
    }' | curl -sS --fail -o /dev/null --data-binary @- "$base/v1/events"
    round=$((round + 1))
    # The monitor decides while a slower service would still be answering.
    [ "$round" -lt 50 ] || sleep 0.05
done
if [ "$(cat serving)" != v41 ]; then
    echo "After $((round * 40)) answers $(cat serving) still serves." >&2
    exit 1
fi
echo "v42 began to decay after 2000 answers, and after $((round * 40)) this script was told to serve v41, and does."
