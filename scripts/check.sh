#!/usr/bin/env bash
# Every check of this project, the same here and in CI. Run it in the environment of the README's
# second command; AGSR_DATA names the data folder, without it the tests that need data are skipped.
# Tests run in one process per core; arguments go to pytest: --cov reports the coverage, in more time.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$log"' EXIT

ruff check .
ruff format --check .
mypy >"$log" 2>&1 & # on one core; on another what is as short
types=$!
lint-imports
pytest --doctest-modules agsr --ignore agsr/export/triton_model.py # the examples of docstrings; that module runs in a server
pytest --collect-only -q -q >/dev/null # compiles what every process of the tests imports
wait "$types" || { cat "$log"; exit 1; }
cat "$log"

pytest -n logical --dist worksteal -m "not gpu" "$@"
# One after another: there may be one GPU.
pytest -m gpu tests/engines tests/training

# What depends on the processor once more, as if it had AVX2 and nothing newer.
hides='import sys; from agsr.system.cpu import NEWER_THAN_AVX2, features
sys.exit(not NEWER_THAN_AVX2 & set(features()))'
if python -c "$hides"; then
  AGSR_MAX_CPU_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
    pytest -n logical --dist worksteal -m processor
else
  echo "This processor has nothing newer than AVX2: the tests above have covered that."
fi
