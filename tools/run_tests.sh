#!/usr/bin/env bash
# Runs ctest in a build folder and, after it, lists what was skipped and why.
# Usage: tools/run_tests.sh BUILD_FOLDER [ctest arguments]      Exit status: ctest's.
set -uo pipefail
build=$1
shift
start=$SECONDS
ctest --test-dir "$build" --output-on-failure --no-tests=error "$@"
status=$?
# GoogleTest: "file:line: Skipped" and the reason below it; Python's unittest: "... skipped 'reason'"; others: "SKIP reason".
skipped=$(grep -E -A1 ': Skipped$|skipped .[^ ]|^SKIP ' "$build/Testing/Temporary/LastTest.log" |
  grep -vE '^--$|: Skipped$|^\[' | sort -u)
if [ -n "$skipped" ]; then
  printf '\nSkipped here, and why:\n%s\n' "$skipped"
else
  printf '\nNothing was skipped.\n'
fi
printf 'Tests took %d s.\n' $((SECONDS - start))
exit $status
