#!/usr/bin/env bash
# Prints the folder of a Mooncake for the benches that run beside it: the wheel mooncake-transfer-engine-non-cuda
# unpacked under target/mooncake, for the Python that is asked.
#
#   folder=$(scripts/install-mooncake.sh PYTHON) && PYTHONPATH="$folder" PYTHON -c 'import mooncake.engine'
#
# PYTHON is python3 unless named, CPython 3.10 to 3.13. The folder that MOONCAKE_HOME names is used as it is. Where none
# is to be had it says why and exits with 1: what runs beside a Mooncake is then left out, everything else works. May run
# twice at once.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/wheel.sh"

readonly wheel=mooncake-transfer-engine-non-cuda==0.3.13.post1
# CPython 3.10 to 3.13, each for x86_64 and aarch64.
readonly -a wheel_sha256=(
    7390920887511db3f3259aba48ff212de7771ab6f1cb48c7954dd5461ca9feae
    b44a252058db23c4542996699cb740079f08630931c02745b2f143d1f6e7745d
    ca9f668a04ffe648b250fda28b97d0a7da149cb110dec5cf3d166a9e68afc940
    04796829bebb1b34f84460e9ab1a630162a20d848819514463f6ca839a871138
    892fd0ee77d736fc8d625981c485a43282dbdbc0926b95f05c1cadd8b0debe51
    7ba184594fa0020ab388dda825b8b53d61edd8f175d40c2a7e45b6448b2f59b3
    0f97a95a3af7ac7532affe5badc4128c71d7bff8740118fea9a8bbbbc65dd578
    572197c6bd2180b7feabbade40f42533804a674e4ef56f2e57e4d07f44e01000
)
readonly script=${BASH_SOURCE[0]} label=mooncake home=MOONCAKE_HOME size="40 MB"
readonly statement='import mooncake.engine'

none() {
    say "no Mooncake here, what runs beside it is left out: $*"
    exit 1
}

say() { echo "install-mooncake: $*" >&2; }

provide_package "${1:-python3}"
