#!/bin/sh
# Resolves both pyproject.toml files, all groups, for every platform and Python >= 3.11, into the file named.
# The output holds names, versions, markers and hashes: no address of a package server, so that it works with any.
# Versions already in the file are kept unless an option such as --upgrade or --upgrade-package NAME follows.
set -eu
cd "$(dirname "$0")/.."
command -v uv >/dev/null 2>&1 || { echo "lock: uv is needed to resolve (pip alone can install the result): pip install uv" >&2; exit 2; }
out=$1
shift
uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-package unship --no-emit-index-url --group dev --group train "$@" --output-file "$out" \
    pyproject.toml sdk/pyproject.toml
