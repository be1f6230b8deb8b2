#!/usr/bin/env bash
# Train in slices on one GPU: start, or go on where the slice before ended.
#
#   AGSR_DATA=... scripts/train_gpu.sh RUN_FOLDER MINUTES [agsr train options]
#
# The schedule is sized for a data-centre GPU: larger batches and crops than on a CPU. It has not been run on
# one yet; DEVICE=cpu with a short --schedule tries the script itself.
set -euo pipefail
run=$1 minutes=$2
shift 2

if [ -f "$run/state.safetensors" ]; then
  start=(--resume)
else
  start=(--schedule '1x60000@48/32,2x10000@48/32,4x20000@64/16' --rate 1e-3)
fi
exec python -m agsr train -o "$run" --device "${DEVICE:-cuda}" --minutes "$minutes" "${start[@]}" "$@"
