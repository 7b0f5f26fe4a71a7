#!/bin/sh
# mypy over the tests: one run a folder, since each has a `tests` of its own; folders with a hyphen can't be packages.
# Usage: scripts/type_tests.sh path/to/mypy
set -u
mypy=$1
cd "$(dirname "$0")/.." || exit

failed=0
"$mypy" --no-error-summary conftest.py tests --exclude '^tests/contract/[a-z]+-[a-z]+/' || failed=1
for folder in tests/contract/*-* shared/tests cli/tests services/*/tests; do
  "$mypy" --no-error-summary "$folder" || failed=1
done
exit $failed
