#!/usr/bin/env bash
# Installs what building and testing Baton needs and is not there yet. For Debian 12, Ubuntu 22.04 and newer.
#
#   scripts/install-deps.sh           what `make build`, `make demo` and `make test` need
#   scripts/install-deps.sh --gate    also rustfmt and clippy for `make gate`, and UCX's headers for the test
#                                     that holds our bindings against them
#   scripts/install-deps.sh --pip     also pip, with which scripts/install-ucx.sh fetches a UCX
#   scripts/install-deps.sh --python  also Python's headers and venv, for scripts/install-python.sh
#
# Asks nothing, changes nothing when nothing is missing, and may run twice at once. Where it may not install
# (no root, no sudo, not a Debian), it says exactly what to install and exits with 1.
set -euo pipefail

readonly min_rust=1.89
readonly script=${BASH_SOURCE[0]}
export PATH="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"

# Command -> the Debian package that brings it.
readonly -a needed=(make:make cmake:cmake g++:g++ ar:binutils nm:binutils)

main() {
    gate=no pip=no python=no
    case ${1:-} in
        --gate) gate=yes ;;
        --pip) pip=yes ;;
        --python) python=yes ;;
        "") ;;
        *) die "no such option: $1" ;;
    esac

    all_there && return 0
    # One at a time: the lock is on this file, so it leaves nothing behind.
    exec 9<"$script"
    if command -v flock >/dev/null; then flock -w 1200 9 || die "another run of $script has not ended in 20 minutes"; fi

    install_packages
    install_rust
    [[ $gate == no ]] || install_components
    all_there || die "after installing, something is still missing: $(missing_words)"
}

# ---- what is there ----

all_there() { [[ -z $(missing_words) ]]; }

missing_words() {
    missing_packages
    missing_wishes
    rust_is_new_enough || echo "cargo>=$min_rust"
    [[ $gate == no ]] || missing_components
}

missing_packages() {
    local entry
    for entry in "${needed[@]}"; do
        command -v "${entry%%:*}" >/dev/null || echo "${entry##*:}"
    done | sort -u
}

# What is used where it is there and done without where it is not. The ucx lane opens libucp at run time; its
# headers are for a test only. A wish that could not be had is not asked for again in the same run.
missing_wishes() {
    [[ -n ${wishes_denied:-} ]] && return 0
    { PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null || true; } | grep -q 'libucp\.so\.0' || echo libucx0
    [[ $gate == no || -e /usr/include/ucp/api/ucp.h ]] || echo libucx-dev
    [[ $pip == no ]] || python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
    [[ $python == no ]] || missing_python
}

# Of the distribution's Python: the caller asks only where no other one will do.
missing_python() {
    local headers='import os, sysconfig; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")'
    /usr/bin/python3 -c "$headers" 2>/dev/null || echo python3-dev
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv
}

rust_is_new_enough() {
    local version
    version=$(cargo --version 2>/dev/null | awk '{print $2}') || return 1
    [[ -n $version ]] && [[ $(printf '%s\n%s\n' "$min_rust" "$version" | sort -V | head -n1) == "$min_rust" ]]
}

missing_components() {
    cargo fmt --version >/dev/null 2>&1 || echo rustfmt
    cargo clippy --version >/dev/null 2>&1 || echo clippy
}

# ---- packages ----

install_packages() {
    local -a missing wishes
    mapfile -t missing < <(missing_packages)
    mapfile -t wishes < <(missing_wishes)
    ((${#missing[@]} + ${#wishes[@]})) || return 0

    if ! can_use_apt; then
        ((${#missing[@]} == 0)) \
            || die "missing: ${missing[*]}. Install them (on Debian and Ubuntu, as root: apt-get install ${missing[*]}) and run this again"
        deny_wishes "cannot install packages here"
        return 0
    fi
    say installing "${missing[@]}" "${wishes[@]}"
    apt update || say "apt-get update failed; trying with the lists that are there"
    if ((${#missing[@]})); then
        apt install "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
    fi
    if ((${#wishes[@]})); then
        apt install "${wishes[@]}" || deny_wishes "apt-get could not install them"
    fi
}

deny_wishes() {
    say "without $(missing_wishes | xargs) ($1): what needs it (the ucx lane, tests) is left out, everything else works"
    wishes_denied=yes
}

can_use_apt() {
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) == 0 ]]; then
        as_root=()
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    elif command -v sudo >/dev/null && [[ -t 0 ]]; then
        as_root=(sudo) # a person is there to give a password
    else
        return 1
    fi
}

# apt update | apt install PACKAGE...: another apt at work, or a mirror that hiccups, is waited for.
apt() {
    local verb=$1 try
    shift
    for try in 1 2 3; do
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
            -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$verb" "$@" </dev/null >&2 && return 0
        ((try == 3)) || sleep 5
    done
    return 1
}

# ---- Rust ----

install_rust() {
    rust_is_new_enough && return 0
    if command -v rustup >/dev/null; then
        say "updating Rust's stable toolchain"
        rustup toolchain install stable --profile minimal </dev/null >&2 || true
        [[ -n $(rustup default 2>/dev/null) ]] || rustup default stable </dev/null >&2 || true
    else
        rustup_from_the_distribution || rustup_from_its_makers || true
    fi
    hash -r
    rust_is_new_enough || die "Rust $min_rust or newer is needed; found: $(cargo --version 2>/dev/null || echo none).
  Install it from https://rustup.rs, or run: rustup update stable && rustup default stable"
}

rustup_from_the_distribution() {
    can_use_apt && apt-cache show rustup >/dev/null 2>&1 || return 1
    say "installing rustup"
    apt install rustup && rustup default stable </dev/null >&2
}

rustup_from_its_makers() {
    local installer status
    if ! command -v curl >/dev/null; then
        can_use_apt && apt install curl ca-certificates || return 1
    fi
    say "installing Rust with the installer of rustup.rs"
    installer=$(mktemp)
    # Whole file first: half an installer must not run.
    status=0
    curl --proto '=https' --tlsv1.2 --retry 3 --max-time 300 -fsSL https://sh.rustup.rs -o "$installer" \
        && sh "$installer" -y --profile minimal --default-toolchain stable --no-modify-path </dev/null >&2 || status=$?
    rm -f "$installer"
    return "$status"
}

install_components() {
    local -a missing
    mapfile -t missing < <(missing_components)
    ((${#missing[@]})) || return 0
    command -v rustup >/dev/null || die "missing: ${missing[*]}. Install them as your Rust was installed"
    say "adding ${missing[*]}"
    rustup component add "${missing[@]}" </dev/null >&2 || die "rustup could not add ${missing[*]}"
}

say() { echo "install-deps: $*" >&2; }

die() {
    say "$*"
    exit 1
}

main "$@"
