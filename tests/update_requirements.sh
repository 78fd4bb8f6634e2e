#!/usr/bin/env bash
# Write requirements.txt anew with newer packages, as far as pyproject.toml allows them; install them; run the smoke tests (tests/smoke.txt).
#
#   tests/update_requirements.sh [PACKAGE...]
#
# With names only these move, as after a new entry in pyproject.toml. The file has names, versions and hashes, and never says where packages came
# from: no address of an index is written, whatever this machine's pip is configured to use. It is replaced only once it is whole.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp --directory)
trap 'rm -rf "$scratch"' EXIT

python_of_the_tests=$PWD/.venv/bin/python
"$python_of_the_tests" -c '' || { echo "first make .venv (CONTRIBUTING.md): the pins are those of its Python" >&2; exit 1; }

echo "== pip-compile"
"$python_of_the_tests" -m venv "$scratch/tools"
# Of its own, for it wants packages that the program does not; 7.6 is the version that this was tried with.
"$scratch/tools/bin/python" -m pip --quiet --disable-pip-version-check install 'pip-tools>=7.6,<8'
which=(--upgrade)
if [ $# -gt 0 ]; then which=("${@/#/--upgrade-package=}"); fi
cp requirements.txt "$scratch/requirements.txt"
CUSTOM_COMPILE_COMMAND="tests/update_requirements.sh" "$scratch/tools/bin/pip-compile" --quiet --extra=dev --generate-hashes --strip-extras \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options "${which[@]}" \
  --output-file="$scratch/requirements.txt" pyproject.toml

if grep --line-number --extended-regexp '://|^ *-|^[^#]* @ |(^|[[:space:]])/' "$scratch/requirements.txt" | grep --invert-match --extended-regexp '^[0-9]+:    --hash=sha256:[0-9a-f]{64}( \\)?$'; then
  echo "the lines above say where a package came from; requirements.txt is unchanged" >&2
  exit 1
fi
echo "== what changes"
diff <(grep -o '^[^ ]*==[^ ]*' requirements.txt) <(grep -o '^[^ ]*==[^ ]*' "$scratch/requirements.txt") || true
cat "$scratch/requirements.txt" >requirements.txt

echo "== install"
"$python_of_the_tests" -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes -r requirements.txt
"$python_of_the_tests" -m pip --quiet --disable-pip-version-check install --no-deps -e .
"$python_of_the_tests" -m pip check

tests/run.sh @tests/smoke.txt
