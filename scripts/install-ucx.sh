#!/usr/bin/env bash
# Prints the path of a libucp that the ucx lane can use, and fetches one where the machine has none. UCX puts
# natively between processes of one host from 1.16 on; Debian 12 and Ubuntu 22.04 ship older ones.
#
#   library=$(scripts/install-ucx.sh) && export BATON_UCX_LIBRARY="$library"
#
# In this order: what BATON_UCX_LIBRARY names, the system's libucp.so.0, the copy under target/ucx, and the wheel
# libucx-cu12 by pip, of which only UCX's own libraries are kept (nothing of CUDA). Nothing is
# installed into the system but pip, where it is missing. Where none is to be had it says why and exits with 1: the
# ucx lane and its tests are then left out, everything else works. May run twice at once.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/wheel.sh"

readonly min_ucx=1.16
readonly wheel=libucx-cu12==1.22.0
# Of the wheel for x86_64 and the one for aarch64.
readonly -a wheel_sha256=(
    5cbbef0c140a0a158ae3486089af659b38822b2234cd3dc90ba40a5e6553402a
    269aa884c3f83ced2ffb5f7704fb3a2da56d9402431222ddbe2901c1ae4fb227
)
readonly script=${BASH_SOURCE[0]}
root=$(cd "$(dirname "$script")/.." && pwd)
readonly root
readonly folder=$root/target/ucx
readonly fetched=$folder/${wheel/==/-}/libucp.so.0

main() {
    if [[ -n ${BATON_UCX_LIBRARY:-} ]]; then
        echo "$BATON_UCX_LIBRARY" # the user's choice; the lane says so itself if it cannot use it
        return
    fi
    usable libucp.so.0 && return
    usable "$fetched" && return
    # One at a time: the lock is on this file, so it leaves nothing behind.
    exec 9<"$script"
    if command -v flock >/dev/null; then flock -w 600 9 || none "another run of $script has not ended in 10 minutes"; fi

    "$root/scripts/install-deps.sh" --pip >&2 || true # what it could not do shows in the next line
    python3 -m pip --version >/dev/null 2>&1 || none "there is no pip to fetch one with (on Debian and Ubuntu: python3-pip)"
    # Without a Python nobody could ask the system's libucp before; and another run may have fetched one.
    usable libucp.so.0 && return
    usable "$fetched" && return
    fetch
    usable "$fetched" || none "the one that was fetched does not load: $(version "$fetched" 2>&1 | tail -n1)"
}

# Prints the file's path if it is a libucp that is new enough.
usable() {
    local found
    found=$(version "$1" 2>/dev/null) || return 1
    [[ $(printf '%s\n%s\n' "$min_ucx" "${found%% *}" | sort -V | head -n1) == "$min_ucx" ]] || return 1
    echo "${found#* }"
}

# "VERSION PATH" of a libucp, by its own word; a bare name is looked up by the dynamic linker.
version() {
    python3 - "$1" <<'EOF'
import ctypes, sys

libucp = ctypes.CDLL(sys.argv[1])
numbers = [ctypes.c_uint() for _ in range(3)]
libucp.ucp_get_version(*map(ctypes.byref, numbers))
path = sys.argv[1]
if "/" not in path:
    with open("/proc/self/maps") as maps:
        path = next(line.split(None, 5)[5].strip() for line in maps if "/libucp.so" in line)
print(".".join(str(number.value) for number in numbers), path)
EOF
}

# Puts the wheel's libraries where `fetched` says, all at once, and removes those of other versions.
fetch() {
    local work
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.fetch.XXXXXX")
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$work'" EXIT
    say "fetching ${wheel/==/ } into target/ucx, once (43 MB)"
    download_wheel python3 "$work"
    unpack "$work" || none "the wheel of $wheel does not hold what it should"
    find "$folder" -mindepth 1 -maxdepth 1 ! -name "${work##*/}" -exec rm -rf {} +
    mv "$work/lib" "$(dirname "$fetched")"
}

unpack() {
    python3 - "$1" <<'EOF'
import glob, os, sys, zipfile

work = sys.argv[1]
wanted = {"libucp.so.0", "libucs.so.0", "libuct.so.0", "libucm.so.0", "ucx/libuct_cma.so.0"}
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    for name in wheel.namelist():
        inner = name.removeprefix("libucx/lib/")
        licence = os.path.basename(name).upper().startswith("LICENSE")
        if inner not in wanted and not licence:
            continue
        wanted.discard(inner)
        target = os.path.join(work, "lib", "LICENSE" if licence else inner)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as out:
            out.write(wheel.read(name))
sys.exit("missing: " + ", ".join(sorted(wanted)) if wanted else 0)
EOF
}

none() {
    say "no UCX $min_ucx or newer here, the ucx lane and its tests are left out: $*"
    exit 1
}

say() { echo "install-ucx: $*" >&2; }

main
