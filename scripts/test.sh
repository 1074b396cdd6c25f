#!/usr/bin/env bash
# Every check that the project has: lint, format, types, tests. Arguments go to pytest: scripts/test.sh -k memory
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
. scripts/env.sh

echo "test: ruff"
ruff check .
ruff format --check --quiet .

if [ $# -gt 0 ]; then
  echo "test: mypy"
  mypy
  echo "test: pytest"
  exec python -m pytest "$@"
fi

# What trains runs beside the other checks, which saves minutes on two cores; its output comes when it is done. Tests of
# the nodes come last and alone, since they stream over DDS in real time.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python -m pytest -p no:cacheprovider test/training >"$log" 2>&1 &
training=$!
failed=0
echo "test: mypy"
mypy || failed=1
echo "test: pytest, the core"
python -m pytest --ignore=test/training --ignore=test/ros || failed=1
wait "$training" || failed=1
echo "test: pytest, training"
cat "$log"
echo "test: pytest, the nodes"
python -m pytest test/ros || failed=1
exit "$failed"
