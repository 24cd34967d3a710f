#!/bin/sh
# Runs the named make targets one after another, each under a header and with its time, and ends with a summary.
# A failing step does not hide the ones behind it; the exit code is 1 if any failed.
set -u
cd "$(dirname "$0")/.."
make=${MAKE:-make}
summary=""
failed=0
began=$(date +%s)
for step in "$@"; do
    printf '\n==== %s\n' "$step"
    start=$(date +%s)
    if "$make" --no-print-directory "$step"; then result=ok; else result=FAILED; failed=1; fi
    seconds=$(($(date +%s) - start))
    printf -- '---- %s: %s, %s s\n' "$step" "$result" "$seconds"
    summary="$summary$(printf '%-12s %-7s %4s s' "$step" "$result" "$seconds")
"
    # Without an environment every later step fails for the same reason.
    if [ "$step" = setup ] && [ "$failed" = 1 ]; then break; fi
done
printf '\n==== summary\n%s%-12s %-7s %4s s\n' "$summary" all "$([ "$failed" = 0 ] && echo ok || echo FAILED)" "$(($(date +%s) - began))"
exit "$failed"
