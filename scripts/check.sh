#!/usr/bin/env bash
# Every check of this project, the same here and in CI. Run it in the environment of the README's
# second command; AGSR_DATA names the data folder, without it the tests that need data are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff check .
ruff format --check .
mypy
lint-imports
pytest "$@"
