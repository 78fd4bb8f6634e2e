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
memory='' as_root=()
at_exit() {
  kill "$beside" 2>/dev/null || true
  rm -f "$said"
  [ -z "$memory" ] || "${as_root[@]}" rm -rf --one-file-system "$memory"
}
has_plenty_of_memory() {
  case $(findmnt --noheadings --output OPTIONS /dev/shm) in '' | *noexec*) return 1 ;; esac
  [ "$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)" -ge 16 ] &&
    [ "$(df --output=avail --block-size=G /dev/shm | tr -dc '0-9\n' | tail -1)" -ge 8 ]
}
export PATH="$PWD/.venv/bin:$PATH"
step ruff check .
step ruff format --check .
beside mypy
trap at_exit EXIT
# Data directories belong to PostgreSQL's own user: whole copies of them are made, restored and looked into by root.
if [ "$(id -u)" != 0 ]; then
  as_root=(sudo env "PATH=$PATH" "DOCKER_CONFIG=${DOCKER_CONFIG:-$HOME/.docker}" "CI=${CI:-}" ${DOCKER_HOST:+"DOCKER_HOST=$DOCKER_HOST"})
  trap 'at_exit; sudo chown --recursive "$(id -u):$(id -g)" .' EXIT
fi
# Most of what the tests write is stacks' data, made and removed again: in memory where there is plenty of it. Docker's volumes stay on
# the disk, so that both are tried. A `--basetemp` among the arguments has the last word.
place=()
if has_plenty_of_memory; then
  memory=$(mktemp -d /dev/shm/tests-XXXXXX)
  place=(--basetemp="$memory/of")
fi
# Two more at a time than there are cores: much of what the tests do is waiting for containers. The tests of a file share its
# stack, and stay together, in the order of tests/conftest.py.
result=0
step "${as_root[@]}" "$PWD/.venv/bin/python" -m pytest --numprocesses="${WORKERS:-$(($(nproc) + 2))}" --dist=loadfile --no-loadscope-reorder --durations=20 --durations-min=1 "${place[@]}" "$@" || result=$?
printf '\n== %s\n' "$checked"
wait "$beside" || result=1
cat "$said"
exit "$result"
