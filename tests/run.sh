#!/usr/bin/env bash
# Run what CI runs: format, lint, types, tests. Arguments go to pytest.
#
#   tests/run.sh [PYTEST-ARGUMENT...]
#
# Prepares the machine first, Chromium for the tests of the Prefect UI included, and says what it installs (see tests/stack/machine.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests/stack/machine.sh --browser

step() {
  printf '\n== %s\n' "$*"
  "$@"
}
export PATH="$PWD/.venv/bin:$PATH"
step ruff check .
step ruff format --check .
step mypy flows tasks deployments tests/conftest.py tests/stack/*.py
step python -m pytest "$@"
