#!/usr/bin/env bash
# A byte is flipped ahead of each comparison: every part that compares has to see it, and gpu-check has to end with 1.
# It ends with 2 where there is no driver. Arguments: gpu-check, the stand-in for libcuda.
set -euo pipefail
check=$1 library=$2

expect() {
  local wanted=$1 text=$2 code=0 said
  shift 2
  said=$("$check" "$@" 2>&1) || code=$?
  if [[ $code != "$wanted" || $said != *"$text"* ]]; then
    printf '%s\n' "$said"
    echo "gpu-check $*: ended with $code, not with $wanted and '$text'"
    exit 1
  fi
}

for part in kernels/copy kernels/transform paths/cuda/write/vram0-vram0 paths/cuda/read/vmm-fd0-vram0 bench/scattered/64KiB; do
  expect 1 "1 corrupt, 0 failed" --library "$library" --short --only "$part" --corrupt
  expect 0 "0 corrupt, 0 failed" --library "$library" --short --only "$part"
done
expect 2 "cannot load /nowhere/libcuda.so.1" --library /nowhere/libcuda.so.1 --short
expect 2 "no check has any of these" --library "$library" --short --only nonsense
echo "gpu-check can fail"
