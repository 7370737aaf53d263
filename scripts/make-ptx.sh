#!/usr/bin/env bash
# Makes src/device/kernels/baton.ptx anew from the kernels beside it; run it after every change of them.
#
# The PTX is committed, so that nobody needs a CUDA toolkit, and is of an old version of the language (7.8, of CUDA
# 11.8) for the oldest GPU served (sm_80): every driver that Baton works with can compile it for its GPU. The compiler is
# NVRTC 11.8 from its wheel, unpacked under target/nvrtc; it needs neither a GPU nor a driver.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/wheel.sh

readonly wheel=nvidia-cuda-nvrtc-cu11==11.8.89
# Of the wheel for x86_64 and the one for aarch64.
readonly -a wheel_sha256=(
    a8d02f3cba345be56b1ffc3e74d8f61f02bb758dd31b0f20e12277a5a244f756
    8ab17ed51e7c4928f7170a0551e3e3b42f89d973bd267ced9688c238b3e10aef
)
readonly kernels=src/device/kernels
readonly folder=target/nvrtc/${wheel/==/-}
work=""

main() {
    # shellcheck disable=SC2064 # the folder's name is known now
    work=$(mktemp -d) && trap "rm -rf '$work'" EXIT
    if [[ ! -e $folder/nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2 ]]; then
        echo "make-ptx: fetching ${wheel/==/ } into target/nvrtc, once (23 MB)" >&2
        download_wheel python3 "$work"
        mkdir -p "$folder"
        python3 -m zipfile -e "$work"/*.whl "$folder"
    fi
    compile >"$work/baton.ptx"
    mv "$work/baton.ptx" $kernels/baton.ptx
    echo "make-ptx: wrote $kernels/baton.ptx, PTX $(awk '/^\.version/ { print $2 }' $kernels/baton.ptx)" >&2
}

# The PTX, under a line that says from which sources; the test in src/device/kernels.rs computes it, too.
compile() {
    echo "// sources: sha256 $(cat $kernels/{segment.cuh,machine.cuh,copy.cu,transform.cu,baton.cu} | sha256sum | cut -d' ' -f1)"
    python3 - "$folder/nvidia/cuda_nvrtc/lib" $kernels <<'PY'
import ctypes, sys

libraries, kernels = sys.argv[1:]
ctypes.CDLL(f"{libraries}/libnvrtc-builtins.so.11.8", mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(f"{libraries}/libnvrtc.so.11.2")


def call(name, *arguments):
    result = getattr(nvrtc, name)(*arguments)
    if result != 0:
        sys.exit(f"make-ptx: {name} returned {result}:\n{log() if name == 'nvrtcCompileProgram' else ''}")


def text(what):
    size = ctypes.c_size_t()
    call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    call(f"nvrtcGet{what}", program, buffer)
    return buffer.value.decode()


def log():
    return text("ProgramLog")


program = ctypes.c_void_p()
source = open(f"{kernels}/baton.cu", "rb").read()
call("nvrtcCreateProgram", ctypes.byref(program), source, b"baton.cu", 0, None, None)
options = [b"--gpu-architecture=compute_80", b"--std=c++17", f"--include-path={kernels}".encode()]
call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
sys.stderr.write(log())
lines = text("PTX").rstrip("\0").splitlines()
print("\n".join(line.rstrip() for line in lines).rstrip())
PY
}

none() {
    echo "make-ptx: $*" >&2
    exit 1
}

main
