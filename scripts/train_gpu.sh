#!/usr/bin/env bash
# Train in slices on one GPU or several: start, or go on where the slice before ended.
#
#   AGSR_DATA=... scripts/train_gpu.sh RUN_FOLDER MINUTES [agsr train options]
#   AGSR_DATA=... scripts/train_gpu.sh runs/psnr 9
#   AGSR_DATA=... scripts/train_gpu.sh runs/end 9 --init runs/psnr/best.safetensors \
#     --schedule 4x5000@64/16 --rate 6e-4 --set pixel_loss=l2        # the end, if PSNR counts
#   AGSR_DATA=... scripts/train_gpu.sh runs/gan 9 --stage gan --init runs/psnr/best.safetensors
#
# GPUS=4 divides each batch among four GPUs of this machine. The schedules are sized for a data-centre GPU;
# they have not been run on one yet. DEVICE=cpu with a short --schedule tries the script itself.
set -euo pipefail
run=$1 minutes=$2
shift 2

start=()
if [ -f "$run/state.safetensors" ]; then
  start=(--resume)
elif [[ " $* " =~ \ --stage[=\ ]gan\  ]]; then
  start=(--schedule '4x20000@32/32')
elif [[ " $* " =~ \ --model[=\ ]sr ]]; then
  start=(--schedule '1x75000@48/32' --rate 1e-3)
else
  start=(--schedule '1x6000@48/32,2x6000@48/32,4x30000@64/16')
fi
launch=(python)
if [ "${GPUS:-1}" -gt 1 ]; then
  launch=(torchrun --nproc-per-node "$GPUS")
fi
if [ "${DEVICE:-cuda}" != cpu ]; then
  start+=(--compile)
fi
exec "${launch[@]}" -m agsr train -o "$run" --device "${DEVICE:-cuda}" --minutes "$minutes" "${start[@]}" "$@"
