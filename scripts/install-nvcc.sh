#!/usr/bin/env bash
# Prints the path of an nvcc for the test that compiles the GPU's kernels, and fetches one where the machine has none.
# Nothing else needs it: the kernels are committed as PTX, too.
#
#   nvcc=$(scripts/install-nvcc.sh) && export NVCC="$nvcc"
#
# In this order: what NVCC names, the nvcc of the path, of CUDA_HOME and of /usr/local/cuda if it knows every GPU
# generation that is served, the copy under target/nvcc, and the wheels of NVIDIA's compiler by pip, unpacked as they
# are. Nothing is installed into the system but pip, where it is missing. Where none is to be had it says why and exits
# with 1: the test is then skipped by name, everything else works. May run twice at once.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/wheel.sh"

readonly version=13.5.37
readonly newest_gpu=sm_100
# The compiler, its front end's headers, its middle, and the headers of the language; each with the hashes of its wheel
# for x86_64 and of the one for aarch64.
readonly -a wheels=(
    nvidia-cuda-nvcc f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7
    588eda18eb5076ae859fe272844b526459228af22df0b117f54eec3aa82bc9c8
    nvidia-cuda-crt e898b7f73d3035fa89915a3f7bf3b54a73e90249746111aed295822c4729bb29
    9ed2c565fdf3244fa6719769a80a466b85bfd4b1467ea339353bc91c971d09e0
    nvidia-nvvm c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070
    b659bd3115b7ac7ec8931e67d0e2c0dd09cd35b08a6a7372df6f8f22c67da80a
    nvidia-cuda-runtime df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d
    de2dc5a7367974228b0a69588a9acc9340d3768bef1bf38bf0801eb08497cd2d
)
readonly script=${BASH_SOURCE[0]}
root=$(cd "$(dirname "$script")/.." && pwd)
readonly root
readonly folder=$root/target/nvcc
readonly fetched=$folder/$version/nvidia/cu13/bin/nvcc

main() {
    if [[ -n ${NVCC:-} ]]; then
        echo "$NVCC" # the user's choice; the test says so itself if it is of no use
        return
    fi
    usable "$(command -v nvcc || true)" && return
    usable "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" && return
    usable "$fetched" && return
    # One at a time: the lock is on this file, so it leaves nothing behind.
    exec 9<"$script"
    if command -v flock >/dev/null; then flock -w 600 9 || none "another run of $script has not ended in 10 minutes"; fi
    usable "$fetched" && return # another run may have fetched it

    "$root/scripts/install-deps.sh" --pip >&2 || true # what it could not do shows in the next line
    python3 -m pip --version >/dev/null 2>&1 || none "there is no pip to fetch one with (on Debian and Ubuntu: python3-pip)"
    fetch
    usable "$fetched" || none "the one that was fetched does not compile: $("$fetched" --version 2>&1 | tail -n1)"
}

# Prints the path if it is an nvcc that compiles for the newest GPU, with the host compiler that is here.
usable() {
    [[ -x $1 ]] || return 1
    echo '__global__ void nothing() {}' | "$1" -std=c++17 -arch="$newest_gpu" -x cu -ptx -o /dev/null - >/dev/null 2>&1 || return 1
    echo "$1"
}

# Puts the wheels' files where `fetched` says, all at once, and removes those of other versions.
fetch() {
    local work i wheel
    local -a wheel_sha256
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.fetch.XXXXXX")
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$work'" EXIT
    say "fetching nvidia-cuda-nvcc $version and what it needs into target/nvcc, once (125 MB)"
    for ((i = 0; i < ${#wheels[@]}; i += 3)); do
        wheel=${wheels[i]}==$version
        wheel_sha256=("${wheels[@]:i+1:2}")
        download_wheel python3 "$work"
    done
    unpack "$work" || none "the wheels of nvidia-cuda-nvcc $version do not hold what they should"
    find "$folder" -mindepth 1 -maxdepth 1 ! -name "${work##*/}" -exec rm -rf {} +
    mv "$work/unpacked" "$folder/$version"
}

# Wheels forget which files are programs.
unpack() {
    python3 - "$1" <<'PY'
import glob, os, sys, zipfile

work = sys.argv[1]
for path in glob.glob(work + "/*.whl"):
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(work + "/unpacked")
        os.remove(path)
programs = glob.glob(work + "/unpacked/nvidia/cu13/bin/*") + glob.glob(work + "/unpacked/nvidia/cu13/nvvm/bin/*")
for program in filter(os.path.isfile, programs):
    os.chmod(program, 0o755)
sys.exit(0 if programs else "missing: programs")
PY
}

none() {
    say "no nvcc here, the kernels are not compiled for GPUs: $*"
    exit 1
}

say() { echo "install-nvcc: $*" >&2; }

main
