#!/usr/bin/env bash
# Run what CI runs: format, lint, types, tests; show the slowest twenty. Arguments go to pytest.
#
#   tests/run.sh [PYTEST-ARGUMENT...]
#
# Prepares the machine first, Chromium for the tests of the Prefect UI included, and says what it installs (see tests/stack/machine.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests/stack/machine.sh --browser

said=$(mktemp)
step() {
  printf '\n== %s\n' "$*"
  "$@"
}
# Types are checked beside the tests, whose first minutes are spent waiting for containers; what was said comes at the end.
beside() {
  "$@" >"$said" 2>&1 &
  beside=$! checked=$*
}
at_exit() {
  kill "$beside" 2>/dev/null || true
  rm -f "$said"
}
export PATH="$PWD/.venv/bin:$PATH"
step ruff check .
step ruff format --check .
beside mypy
trap at_exit EXIT
# Data directories belong to PostgreSQL's own user: whole copies of them are made, restored and looked into by root.
as_root=()
if [ "$(id -u)" != 0 ]; then
  as_root=(sudo env "PATH=$PATH" "DOCKER_CONFIG=${DOCKER_CONFIG:-$HOME/.docker}" "CI=${CI:-}" ${DOCKER_HOST:+"DOCKER_HOST=$DOCKER_HOST"})
  trap 'at_exit; sudo chown --recursive "$(id -u):$(id -g)" .' EXIT
fi
# Two more at a time than there are cores: much of what the tests do is waiting for containers. The tests of a file share its
# stack, and stay together, in the order of tests/conftest.py.
result=0
step "${as_root[@]}" "$PWD/.venv/bin/python" -m pytest --numprocesses="${WORKERS:-$(($(nproc) + 2))}" --dist=loadfile --no-loadscope-reorder --durations=20 --durations-min=1 "$@" || result=$?
printf '\n== %s\n' "$checked"
wait "$beside" || result=1
cat "$said"
exit "$result"
