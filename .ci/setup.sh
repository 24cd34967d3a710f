#!/bin/sh
# Makes .venv: the locked third-party packages first (hashes checked), then the two local packages, editable.
# Runs with uv where it is installed and with venv and pip where it is not; both read requirements.lock.
# Two stamps keep it quick: a changed lock rebuilds the environment, a changed pyproject.toml only re-installs
# the local packages, and otherwise nothing is done.
set -eu

cd "$(dirname "$0")/.."
here=$(pwd)
venv=$here/.venv
wanted=3.11

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 2; }

uv=$(command -v uv || true)
[ -z "${UNSHIP_SETUP_WITHOUT_UV:-}" ] || uv=""

# The path is part of the stamp because scripts inside a virtual environment hold it: a copied checkout starts anew.
locked_stamp="$here $(cat requirements.lock .ci/setup.sh | cksum)"
installed_stamp="$here $(cat pyproject.toml sdk/pyproject.toml | cksum)"
stamp_is() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

if stamp_is "$venv/.locked" "$locked_stamp" && stamp_is "$venv/.installed" "$installed_stamp" \
    && [ -x "$venv/bin/unship" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Prints the first interpreter that is new enough; PYTHON, when given, is the only candidate.
find_python() {
    seen=""
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if new_enough "$candidate"; then
            command -v "$candidate"
            return 0
        fi
        seen="$seen $candidate is $("$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo unusable);"
    done
    say "expected Python >= $wanted, found:${seen:- no python3 on PATH}"
    say "fix: install Python $wanted or newer (Debian, Ubuntu: apt-get install python3 python3-venv) and run 'make setup' again,"
    say "     or name it: make setup PYTHON=/path/to/python$wanted; with uv installed: uv python install $wanted"
    return 1
}

# An environment made by uv has no pip: without uv it cannot be added to, so it is made anew.
installer_works() {
    if [ -n "$uv" ]; then "$venv/bin/python" -c '' 2>/dev/null; else "$venv/bin/python" -c 'import pip' 2>/dev/null; fi
}

if ! stamp_is "$venv/.locked" "$locked_stamp" || ! installer_works; then
    [ ! -e "$venv" ] || [ -f "$venv/pyvenv.cfg" ] || stop ".venv exists and is not a virtual environment: move it away"
    if [ -n "$uv" ]; then
        # uv can fetch a Python where the machine has none that is new enough.
        python=$(find_python 2>/dev/null) || python=">=$wanted"
        rm -rf "$venv"
        say "uv, Python $python, $(grep -c '==' requirements.lock) locked packages"
        "$uv" venv --quiet --no-project --python "$python" "$venv"
        "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r requirements.lock
    else
        python=$(find_python) || exit 2
        rm -rf "$venv"
        say "pip, $("$python" --version), $(grep -c '==' requirements.lock) locked packages"
        "$python" -m venv "$venv" || stop "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    fi
    printf '%s' "$locked_stamp" > "$venv/.locked"
fi

# --no-deps: the lock alone says what is installed. --no-build-isolation: the build backend is locked as well.
say "the local packages unship and unship-monitor, editable"
rm -f "$venv/.installed"
if [ -n "$uv" ]; then
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e ./sdk -e .
    "$uv" pip check --quiet --python "$venv/bin/python" || missing=yes
else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./sdk -e .
    "$venv/bin/python" -m pip check --disable-pip-version-check >&2 || missing=yes
fi
[ -z "${missing:-}" ] || stop "requirements.lock lacks what a pyproject.toml asks for: run 'make lock' (needs uv)"
printf '%s' "$installed_stamp" > "$venv/.installed"
say "ready: .venv/bin/unship"
