#!/usr/bin/env bash
# Runs the tests under what finds errors of memory and of threads, with the nightly compiler:
#
#   thread    ThreadSanitizer in the engine, the standard library, the C++ shim and the test hosts
#   address   AddressSanitizer in the same, leaks included
#   miri      Miri over the unit tests of src/proto, planner included
#
#   scripts/sanitize.sh [--or-skip] [thread|address|miri]...      by default all three
#
# What is left out of a part is listed below, each with its reason; what is suppressed, in scripts/sanitize/*.supp.
# Reports go to target/sanitize-<part>/reports, what the tests print to target/sanitize-<part>/log. Fails when anything
# was reported or a test failed. A part that this machine cannot do is skipped by name; with --or-skip that all are
# skipped is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly host=x86_64-unknown-linux-gnu
readonly jobs="${JOBS:-$(nproc)}"
# A test that hangs fails the part, and does not outlast it.
readonly cargo_limit_s=2400 test_limit_s=300

main() {
    local or_skip=no part
    local -a parts=()
    for part in "$@"; do
        case $part in
            --or-skip) or_skip=yes ;;
            thread | address | miri) parts+=("$part") ;;
            *) die "no such part: $part (there are: thread address miri)" ;;
        esac
    done
    ((${#parts[@]})) || parts=(thread address miri)

    total=0 failed=no outcomes=() did=no
    for part in "${parts[@]}"; do
        run_part "$part"
    done
    local all
    all=$(printf ', %s' "${outcomes[@]}")
    echo "sanitize: ${all:2}, $total reports"
    [[ $failed == no ]] || exit 1
    [[ $did == yes || $or_skip == yes ]] || exit 1
}

run_part() { # part
    local reason begun=$SECONDS
    if ! reason=$(why_not "$1"); then
        echo "sanitize: $1 skipped: $reason"
        outcomes+=("$1 skipped")
        return
    fi
    did=yes reports=0 failures=()
    folder=$PWD/target/sanitize-$1
    rm -rf "$folder/reports" "$folder/log"
    mkdir -p "$folder/reports" "$folder/log"
    case $1 in
        miri) miri ;;
        *) sanitizer "$1" ;;
    esac
    total=$((total + reports))
    local outcome=ok
    if ((reports || ${#failures[@]})); then
        outcome=failed failed=yes
        for one in "${failures[@]}"; do echo "sanitize: $1: failed: $one"; done
        ((reports == 0)) || echo "sanitize: $1: all of the reports in $folder/reports"
    fi
    outcomes+=("$1 $outcome")
    echo "sanitize: $1 $outcome: $reports reports, ${#failures[@]} failures, $tests tests, $((SECONDS - begun)) s"
}

# ---- what a machine can do ----

# Succeeds where the part can run; else says why not.
why_not() { # part
    [[ $(uname -sm) == "Linux x86_64" ]] || { echo "this is $(uname -sm); it runs on Linux x86_64" && return 1; }
    local component=rust-src
    [[ $1 != miri ]] || component=miri
    nightly_has "$component" && return
    # Where rustup is, what is missing can be had.
    rustup toolchain install nightly --profile minimal --component rust-src,"$component" --no-self-update \
        </dev/null >&2 2>/dev/null || true
    nightly_has "$component" || {
        echo "no nightly Rust with $component here (rustup toolchain install nightly --component rust-src,$component)"
        return 1
    }
}

nightly_has() { # component
    local sysroot
    sysroot=$(rustc +nightly --print sysroot 2>/dev/null) || return 1
    [[ -e $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]] || return 1
    [[ $1 != miri ]] || cargo +nightly miri --version >/dev/null 2>&1
}

# ---- thread and address ----

sanitizer() { # thread | address
    tests=0
    set_options "$1"
    rust_tests "$1"
    host_tests "$1"
    count_reports
}

set_options() { # thread | address
    local supp=$PWD/scripts/sanitize all="log_path=$folder/reports/report:print_summary=1"
    # UCX writes jumps over the code of mmap and munmap, which are the sanitizers' own here.
    export UCX_MEM_MMAP_HOOK_MODE=none UCX_MEM_EVENTS=n
    export TSAN_OPTIONS="$all:suppressions=$supp/tsan.supp:die_after_fork=0:history_size=4:second_deadlock_stack=1"
    export ASAN_OPTIONS="$all:suppressions=$supp/asan.supp:detect_leaks=1:detect_stack_use_after_return=1"
    export LSAN_OPTIONS="suppressions=$supp/lsan.supp:print_suppressions=0"
    # Some kernels place what is mapped where ThreadSanitizer has its shadow.
    without_aslr=()
    if [[ $1 == thread && $(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28) -gt 28 ]]; then
        without_aslr=(setarch -R)
    fi
    local library
    if library=$(scripts/install-ucx.sh 2>"$folder/log/ucx.txt"); then
        export BATON_UCX_LIBRARY=$library
    fi
}

# Test programs of cargo's, by what is left out of them.
rust_tests() { # thread | address
    local -a targets=(--lib --bins) skips=()
    # Without `simulation`: one thread, no socket and safe code, and a quarter of an hour of it.
    local -a tests_of=(agent config_explain conformance connection doctor hostile rendezvous ucx)
    local target name
    for target in "${tests_of[@]}"; do targets+=(--test "$target"); done
    # Reads its own symbols and expects malloc to be the C library's.
    skips+=(--skip this_program_is_read_as_what_it_is)
    # These hand `baton doctor` an environment without the UCX settings above.
    skips+=(--skip machine:: --skip a_configuration_that_is_none_costs_no_other_section --skip a_refused_setting_is_told_once)
    # These count resident memory, and a sanitizer has memory of its own: what is freed and held back, shadows.
    skips+=(--skip a_short_soak_leaves_nothing)
    # These have two processes over UCX: see left_out.
    for name in a_killed_peer a_fork_ a_process_ a_stopped_peer deregistering_under memory_of_a_replaced shutting_down_under \
        a_peer_that_was_shut_down a_silent_peer; do
        skips+=(--skip "ucx::$name")
    done
    skips+=(--skip is_noticed_ucx)
    local log=$folder/log/rust.txt
    echo "sanitize: $1: Rust tests"
    # Frame pointers end where code of others begins, and suppressions need to see past that. The stand-in for libcuda
    # has the sanitizer, too, and finds it in the program that opens it.
    ASAN_OPTIONS+=":fast_unwind_on_malloc=0" \
        RUSTFLAGS="-Zsanitizer=$1 -Clink-arg=-Wl,--export-dynamic-symbol=__${1:0:1}san_*" \
        CXXFLAGS="-fsanitize=$1 -fno-omit-frame-pointer" \
        timeout -k 10 "$cargo_limit_s" "${without_aslr[@]}" \
        cargo +nightly test -Zbuild-std --target "$host" --target-dir "$folder" --profile sanitize --locked \
        --no-fail-fast "${targets[@]}" -- "${skips[@]}" >"$log" 2>&1 || fail "$log" "cargo test ended with $?"
    count_tests "$log"
}

# The shared library in test hosts of C++, and `baton demo`.
host_tests() { # thread | address
    local build=$folder/build log=$folder/log/hosts.txt
    echo "sanitize: $1: C++ hosts"
    if ! { cmake -S . -B "$build" -DBATON_SANITIZE="$1" -DBATON_CARGO_PROFILE=sanitize \
        && cmake --build "$build" --parallel "$jobs"; } >"$log" 2>&1; then
        fail "$log" "the build of the C++ hosts"
        return
    fi
    # Ten times as slow, a test may miss a deadline of a second that it is about, so it has a second try. What is
    # reported counts all the same. Without UCX, which hosts open beside the lane that they use: see left_out.
    env -u BATON_UCX_LIBRARY "${without_aslr[@]}" \
        ctest --test-dir "$build" --exclude-regex "$(left_out)" --no-tests=error --timeout "$test_limit_s" \
        --parallel "$jobs" --repeat until-pass:2 --output-on-failure >"$log" 2>&1 || fail "$log" "ctest ended with $?"
    tests=$((tests + $(grep -cE '^ *[0-9]+/[0-9]+ Test .*Passed' "$log" || true)))
}

left_out() {
    local -a names=(
        'abi\.exports'             # of symbols: here the sanitizer's are among them
        '.*include_dir'            # builds of their own, of headers alone
        'abi\.legacy_headers'      # a compiler's error
        'panics\..*'               # builds a library of its own, without a sanitizer
        # UCX 1.22 asks whether it may read a peer by reading into the very iovec that says where to; a sanitizer's
        # stand-in for process_vm_readv then follows what has come into it. Two ends in one process read what was there.
        '.*ucx.*'
        'chaos\..*'                # has a command of its own, and programs built without a sanitizer
        'bench\..*'                # times; what it moves, the hosts of the seams move, too
        'abi\..*\.(override|symbols)\..*' # the same cases, where only the way to tell the host's age differs
        'python\..*' 'mixed\..*' 'seam\.s2\..*' 'demo\.s2\..*' # a Python brings no run-time library
    )
    local IFS='|'
    echo "^(${names[*]})\$"
}

# ---- Miri ----

miri() {
    tests=0
    local log=$folder/log/miri.txt
    echo "sanitize: miri: src/proto"
    MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=2 \
        timeout -k 10 "$cargo_limit_s" cargo +nightly miri test --lib --locked --target-dir "$folder" proto:: \
        >"$log" 2>&1 || fail "$log" "cargo miri test ended with $?"
    count_tests "$log"
    reports=$(grep -cE '^error: (Undefined Behavior|memory leaked|unsupported operation|.*deadlock)' "$log" || true)
}

# ---- what was found ----

count_tests() { # log
    tests=$((tests + $(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$1")))
}

# Every SUMMARY line is a report; a process that was killed while it wrote one left its beginning.
count_reports() {
    local file
    for file in "$folder"/reports/*; do
        [[ -e $file ]] || continue
        reports=$((reports + $(grep -cE '(WARNING|ERROR): (Thread|Address|Leak)Sanitizer' "$file" || true)))
    done
    ((reports == 0)) || cat "$folder"/reports/* | grep -hE '^SUMMARY' | sort | uniq -c | sort -rn | head -n 20 || true
}

fail() { # log, what
    failures+=("$2; see ${1#"$PWD"/}")
    grep -E '^test .* FAILED$|\(Failed\)$|\(Timeout\)$|\(.*Exception.*\)$|^error' "$1" | sort -u | head -n 30 || true
}

die() {
    echo "sanitize: $*" >&2
    exit 1
}

main "$@"
