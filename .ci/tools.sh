#!/bin/sh
# Puts on the machine what the tests use beside Python: Java and Maven for a real Kafka, kcat as a client that is not
# ours. Does nothing where all of it is there. Then it gets Kafka's jars, once per machine.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'tools: %s\n' "$*" >&2; }

# command, and the Debian package that brings it
missing=""
for pair in java:default-jre-headless mvn:maven kcat:kcat; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        say "missing:$missing (names of Debian packages); there is no apt-get here, so install them your way"
        exit 1
    fi
    if [ "$(id -u)" = 0 ]; then as_root=""; else as_root=sudo; fi
    if [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; then
        say "missing:$missing; run as root: apt-get install$missing"
        exit 1
    fi
    say "installing$missing with apt-get${as_root:+, as root through sudo}"
    # Its lists of packages may be old or absent, as in a fresh container.
    # shellcheck disable=SC2086 (words on purpose)
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
        $as_root apt-get update -qq
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    }
fi
PYTHONPATH=.:sdk .venv/bin/python -m tests.kafka --fetch >&2
say "ready"
