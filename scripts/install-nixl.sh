#!/usr/bin/env bash
# Prints the folder of a real NIXL for the tests and benches that run beside it: the wheel nixl-cu12 unpacked under
# target/nixl, for the Python that is asked. It is the agent of TensorRT-LLM without Baton; its libraries carry their
# own UCX, and nothing of CUDA is needed for DRAM.
#
#   folder=$(scripts/install-nixl.sh PYTHON) && PYTHONPATH="$folder" PYTHON -c 'import nixl_cu12'
#
# PYTHON is python3 unless named, CPython 3.10 to 3.13 with numpy. The folder that NIXL_HOME names is used as it
# is. Where none is to be had it says why and exits with 1: what runs beside a real NIXL is then left out,
# everything else works. May run twice at once.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/wheel.sh"

readonly wheel=nixl-cu12==1.5.1
# CPython 3.10 to 3.13, each for x86_64 and aarch64.
readonly -a wheel_sha256=(
    d903838a2327730598eb162cc16eb4a18680cfb8738d4ba6ee5b1723d0142543
    0abfe6eafe4c4edd2befb73378f18278540064a47b71a34cff9252a6574fe4b9
    341d0dfa499f941c054614252f1d8047d1380e33f29c87707372ff5ec7d3779a
    aced5529cc9781f8be1ee22e451c852630455460c1812b06cc863b05d797f2db
    a02005f84e498641b8fe02d058fdc6762c99edf7ae6430176d2d16fa57f4fb93
    98d4b169813a5110842aefc383ba3bf259a886cd09cc9d54c7a6db69bb36de4d
    a35c6d6b307bdd22a2de7f89698b8db9d4cd5fdad791bd3ad2a1df8e58dc1530
    fe43e2fe367a989f1712306286ec4ead3a3b60b272857fcfa86a800a4e7a4699
)
readonly script=${BASH_SOURCE[0]} label=nixl home=NIXL_HOME size="69 MB"
readonly statement='import nixl_cu12._bindings, numpy'
readonly leave_out=nixl_ep # the expert-parallel package, which is for GPUs and most of the size

none() {
    say "no real NIXL here, what runs beside it is left out: $*"
    exit 1
}

say() { echo "install-nixl: $*" >&2; }

provide_package "${1:-python3}"
