#!/usr/bin/env bash
# Everything that needs a GPU, in stages with a time limit each; see docs/gpu.md.
#
#   scripts/gpu_kit.sh run check                              # on the GPU's machine
#   scripts/gpu_kit.sh run --seconds 560 train 7 speed -- --init psnr
#   scripts/gpu_kit.sh pack .kit                              # beforehand, here; also slim, restore, rehearse
#
# Results go to ${OUT:-runs/gpu}. DEVICE=cpu SIZES=tiny runs the same code without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 KIT_HOME="${KIT_HOME:-/tmp/agsr-kit}"
export PYTHONPATH="$KIT_HOME/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" scripts/gpu_kit.py "$@"
