#!/usr/bin/env bash
# Everything that needs a GPU, in one command: what is here, the tests marked so, parity and speed of every backend.
#
#   AGSR_DATA=... scripts/gpu_check.sh [agsr bench options]
#
# Writes bench/results/NAME_OF_GPU.json. A backend that is missing or fails becomes a row that says why, and
# the rest goes on. Without AGSR_DATA speed alone is measured. BACKENDS=ort,torch tries the script without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -cs '[:alnum:]\n' '-' || true)
gpu=${gpu:-no-gpu}
python -m agsr doctor
failed=0
python -m pytest -q -m gpu || failed=$?

sets=()
if [ -n "${AGSR_DATA:-}" ]; then
  sets=(--set Set14)
fi
mkdir -p bench/results
python -m agsr bench "${sets[@]}" --backends "${BACKENDS:-torch,torch:cuda,ort:cuda,trt}" --steps 1,2,4 --precision fp32,fp16 \
  --boundary both --rounds 10 --json "bench/results/$gpu.json" --markdown "bench/results/$gpu.md" "$@"
exit "$failed"
