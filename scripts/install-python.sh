#!/usr/bin/env bash
# Prints the path of a Python that can build and run the Python binding's tests: a virtual environment under
# target/python with the packages of tests/python/requirements.txt, each checked against its hash.
#
#   python=$(scripts/install-python.sh) && "$python" -m pytest tests/python
#
# In this order: the interpreter that BATON_PYTHON names (used as it is, nothing is installed into it), the
# environment that is there, a new one. Of the system it needs Python 3.10 or newer with its headers and venv;
# where they are missing, scripts/install-deps.sh --python brings them. Nothing is installed outside target/ but
# those. Where it cannot be had it says why and exits with 1: the tests of seam S2 are then left out, everything
# else works. May run twice at once.
set -euo pipefail

readonly script=${BASH_SOURCE[0]}
root=$(cd "$(dirname "$script")/.." && pwd)
readonly root
readonly folder=$root/target/python
readonly requirements=$root/tests/python/requirements.txt
readonly stamp=$folder/installed.txt

main() {
    if [[ -n ${BATON_PYTHON:-} ]]; then
        has_packages "$BATON_PYTHON" || none "BATON_PYTHON=$BATON_PYTHON lacks packages of tests/python/requirements.txt: $(missing "$BATON_PYTHON")"
        echo "$BATON_PYTHON"
        return
    fi
    is_current && print_it && return
    # One at a time: the lock is on this file, so it leaves nothing behind.
    exec 9<"$script"
    if command -v flock >/dev/null; then flock -w 900 9 || none "another run of $script has not ended in 15 minutes"; fi
    is_current && print_it && return

    local base
    if ! base=$(usable_python); then
        "$root/scripts/install-deps.sh" --python >&2 || true # what it could not do shows in the next line
        base=$(usable_python) || none "there is no Python 3.10 or newer with headers and venv (on Debian and Ubuntu: python3-dev python3-venv)"
    fi
    make_environment "$base"
    print_it
}

print_it() { echo "$folder/bin/python"; }

# Whether the environment is that of the present requirements, and still runs (its base may have been upgraded).
is_current() {
    cmp -s "$requirements" "$stamp" && can_build_modules "$folder/bin/python"
}

# The first Python that can make an environment in which modules can be compiled.
usable_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if can_build_modules "$candidate" && "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# CPython 3.10 to 3.13, for which there are wheels, with its headers.
can_build_modules() {
    "$1" - 2>/dev/null <<'EOF'
import os, sys, sysconfig

ok = (3, 10) <= sys.version_info[:2] <= (3, 13) and sys.implementation.name == "cpython"
sys.exit(not (ok and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))))
EOF
}

has_packages() { [[ -z $(missing "$1") ]]; }

missing() {
    "$1" - <<'EOF' 2>&1 || true
import importlib.util

wanted = ("nanobind", "numpy", "zmq", "pytest", "pytest_timeout")
print(*(name for name in wanted if importlib.util.find_spec(name) is None))
EOF
}

# The stamp comes last: an environment without it is made anew.
make_environment() {
    say "making target/python with $("$1" --version), once"
    rm -rf "$folder"
    mkdir -p "$root/target"
    "$1" -m venv "$folder" >&2 || none "$1 cannot make a virtual environment (its reason is above)"
    timeout 600 "$folder/bin/python" -m pip install --quiet --only-binary=:all: --no-deps --require-hashes \
        --retries 2 --timeout 20 --disable-pip-version-check --requirement "$requirements" </dev/null >&2 \
        || none "pip could not install tests/python/requirements.txt (its reason is above; most often the package index cannot be reached)"
    cp "$requirements" "$stamp"
}

none() {
    say "the tests of seam S2 (the Python agent) are left out: $*"
    exit 1
}

say() { echo "install-python: $*" >&2; }

main
