#!/usr/bin/env bash
# Every check that the project has: lint, format, types, tests. Arguments go to pytest: scripts/test.sh -k memory
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
. scripts/env.sh

echo "test: ruff"
ruff check .
ruff format --check --quiet .
echo "test: mypy"
mypy
echo "test: pytest"
python -m pytest "$@"
