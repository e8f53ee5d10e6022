#!/usr/bin/env bash
# Builds the fuzz targets and lets each run for SECONDS, on a fresh corpus that begins with the seeds in fuzz/seeds. Fails
# on a crash, a leak, a hang (10 s for one input), memory far beyond the input's size, or undefined behaviour, and says
# where the input is that shows it.
#   fuzz/run.sh SECONDS [TARGET...]
#   BUILD: build folder (build/fuzz); JOBS: compilers, and targets, at once; SEED: of the mutations (1; 0: another each time)
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?usage: fuzz/run.sh SECONDS [TARGET...]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(state_dict safetensors idx cifar configuration)
build=${BUILD:-build/fuzz}

cmake --preset fuzz -B "$build" >/dev/null
cmake --build "$build" -j "${JOBS:-$(nproc)}" --target "${targets[@]/#/fuzz_}" >"$build/build.log" 2>&1 ||
  { tail -n 40 "$build/build.log"; exit 1; }

work=$(mktemp -d)
trap 'for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done; rm -rf "$work"' EXIT
mkdir -p "$build/findings"

fuzz() {
  local target=$1 log=$work/$1.log
  local corpus=("$work/$target" "fuzz/seeds/$target")
  [ "$target" != configuration ] || corpus+=(configs)
  # A gzipped file of 16 KiB may rightly unzip to 16 MiB, deflate's most.
  if TMPDIR=$work OMP_NUM_THREADS=1 "$build/fuzz/fuzz_$target" -seed="${SEED:-1}" -max_total_time="$seconds" \
    -timeout=10 -max_len=16384 -len_control=0 -print_funcs=0 -malloc_limit_mb=64 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$target-" "${corpus[@]}" >"$log" 2>&1; then
    local runs edges peak
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    echo "fuzz: $target: $runs inputs in $seconds s, $edges edges, $peak MB: nothing found"
  else
    grep -v '^#[0-9]*.*\(NEW\|REDUCE\|pulse\|INITED\|RELOAD\)' "$log" | tail -n 60
    local found
    found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "fuzz: $target FAILED; the input that shows it: ${found:-none was written}"
    return 1
  fi
}

# One target a core at a time, each a process group that the trap ends as a whole; what each prints stays together.
set -m
for target in "${targets[@]}"; do
  mkdir "$work/$target"
  [ "$(jobs -rp | wc -l)" -lt "${JOBS:-$(nproc)}" ] || wait -n || true
  { fuzz "$target" >"$work/$target.said" && touch "$work/$target.fine" || true; cat "$work/$target.said"; } &
done
wait
for target in "${targets[@]}"; do
  [ -e "$work/$target.fine" ] || exit 1
done
