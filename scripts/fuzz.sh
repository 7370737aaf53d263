#!/usr/bin/env bash
# Builds the fuzz targets and runs each in turn, without cargo-fuzz: the nightly compiler is all it takes.
#
#   FUZZ_SECONDS=60        how long each target runs
#   FUZZ_RUNS=10000000     or how many inputs each is given
#   FUZZ_TARGETS="blob"    these alone
#   FUZZ_SANITIZER=none    without AddressSanitizer: a tenth of the time for long runs of what is safe code
#   --or-skip              without the nightly compiler, say so and succeed
#
# New inputs go to target/fuzz/corpus, crashes to target/fuzz/artifacts, the figures also to target/fuzz.json. Fails when
# a target has crashed, hung, or taken more memory than it may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=target/fuzz
sanitizer="${FUZZ_SANITIZER:-address}"
build="$out"
[[ "$sanitizer" == none ]] && build="$out/plain"
seconds="${FUZZ_SECONDS:-60}"
runs="${FUZZ_RUNS:-}"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: skipped: there is no nightly compiler here (rustup toolchain install nightly)"
    [[ "${1:-}" == --or-skip ]] && exit 0
    exit 1
fi

host="$(rustc +nightly -vV | sed -n 's/^host: //p')"
programs="$build/$host/release"

# What `cargo fuzz build` sets: coverage that libFuzzer reads, and AddressSanitizer.
instrument="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    instrument+=" -Cllvm-args=-sanitizer-coverage-$option"
done
echo "fuzz: building the targets"
flags="$instrument --cfg fuzzing"
[[ "$sanitizer" == none ]] || flags+=" -Zsanitizer=$sanitizer"
RUSTFLAGS="$flags" \
    cargo +nightly build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$build"

# Longer inputs take longer and find nothing more.
longest() {
    case "$1" in
        config_file | environment) echo 1024 ;;
        endpoint) echo 512 ;;
        connection_info) echo 128 ;;
        *) echo 4096 ;;
    esac
}

figure() { # name, log
    sed -n "s/^stat::$1: *//p" "$2" | tail -n 1
}

# Where memory was allocated does not matter in safe code, and finding it out costs half the speed.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:malloc_context_size=0:quarantine_size_mb=8}"

read -r -a targets <<<"${FUZZ_TARGETS:-$(cd fuzz/fuzz_targets && echo *.rs | sed 's/\.rs//g')}"
mkdir -p "$out/artifacts" "$out/log"
row="%-16s %14s %10s %9s %9s %9s\n"
table="$(printf "$row" target executions exec/s branches features crashes)"
json=() total=0 crashes=0
for target in "${targets[@]}"; do
    log="$out/log/$target.log"
    mkdir -p "$out/corpus/$target"
    options=(-max_len="$(longest "$target")" -timeout=20 -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1
        -artifact_prefix="$out/artifacts/$target-")
    if [[ -n "$runs" ]]; then options+=(-runs="$runs"); else options+=(-max_total_time="$seconds"); fi
    [[ -f "fuzz/dictionaries/$target.dict" ]] && options+=(-dict="fuzz/dictionaries/$target.dict")
    crash=0 begun="$(date +%s%N)"
    "$programs/$target" "${options[@]}" "$out/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1 || crash=1
    executions="$(figure number_of_executed_units "$log")"
    rate=$((${executions:-0} * 1000 / (($(date +%s%N) - begun) / 1000000 + 1)))
    coverage="$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | tr -dc 0-9 || true)"
    features="$(grep -oE 'ft: [0-9]+' "$log" | tail -n 1 | tr -dc 0-9 || true)"
    line="$(printf "$row" "$target" "${executions:-0}" "$rate" "${coverage:-0}" "${features:-0}" "$crash")"
    table+=$'\n'"$line"
    echo "fuzz: $line"
    if ((crash)); then
        grep -E 'panicked at|ERROR:|SUMMARY:|Test unit written' -A 1 "$log" | head -n 12 || true
        echo "fuzz: all of it in $log; the input again: $programs/$target <the file named above>"
    fi
    json+=("{\"target\": \"$target\", \"executions\": ${executions:-0}, \"per_second\": $rate,
     \"branches\": ${coverage:-0}, \"features\": ${features:-0}, \"crashes\": $crash}")
    total=$((total + ${executions:-0})) crashes=$((crashes + crash))
done

(
    IFS=,
    printf '{"targets": [%s],\n "executions": %s, "crashes": %s}\n' "${json[*]}" "$total" "$crashes" >target/fuzz.json
)
printf '\n%s\n\n' "$table"
echo "fuzz: ${#targets[@]} targets, $total executions, $crashes crashes"
((crashes == 0))
