#!/usr/bin/env bash
# Run what CI runs: format, lint, types, tests. Arguments go to pytest.
#
#   tests/run.sh [--browser] [PYTEST-ARGUMENT...]
#
# Prepares the machine first and says what it installs (see tests/stack/machine.sh); --browser also has it install Chromium,
# without which the tests of the Prefect UI are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

machine_options=()
if [ "${1:-}" = --browser ]; then
  machine_options=(--browser)
  shift
fi
tests/stack/machine.sh "${machine_options[@]}"

step() {
  printf '\n== %s\n' "$*"
  "$@"
}
export PATH="$PWD/.venv/bin:$PATH"
step ruff check .
step ruff format --check .
step mypy flows tasks deployments tests/conftest.py tests/stack/*.py
step python -m pytest "$@"
