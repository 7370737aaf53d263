#!/usr/bin/env bash
# The kernels and their committed PTX become machine code of each GPU generation that is served, without a warning and
# without spilled registers; and the PTX that the build makes where there is an nvcc can be made.
#
#   NVCC=$(scripts/install-nvcc.sh) tests/kernels/compile.sh FOLDER
set -euo pipefail

readonly folder=$1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly kernels=$root/src/device/kernels
if [[ -z ${NVCC:-} ]]; then
    echo "SKIPPED: no NVCC; scripts/install-nvcc.sh fetches one, or says why not"
    exit 77
fi
readonly ptxas=${NVCC%/*}/ptxas

# Fails if what is on standard input, said about $1, has spills or says nothing of both kernels.
judge() {
    local said
    said=$(cat)
    echo "== $1"
    echo "$said" | grep -E 'Compiling|Used|spill' || true
    [[ $(grep -c ' 0 bytes spill stores, 0 bytes spill loads' <<<"$said") == 2 ]] || { echo "$said"; exit 1; }
}

mkdir -p "$folder"
for arch in sm_80 sm_90 sm_100; do
    "$NVCC" -std=c++17 -arch="$arch" -cubin -Xptxas -v -Werror all-warnings \
        -o "$folder/$arch.cubin" "$kernels/baton.cu" 2>&1 | judge "baton.cu for $arch"
    "$ptxas" -v -arch="$arch" -o "$folder/$arch.committed.cubin" "$kernels/baton.ptx" 2>&1 | judge "baton.ptx for $arch"
done
"$NVCC" -ptx -std=c++17 -arch=compute_80 "$kernels/baton.cu" -o "$folder/baton.ptx"
grep -E '^\.(version|target)' "$folder/baton.ptx"
