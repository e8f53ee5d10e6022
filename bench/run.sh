#!/usr/bin/env bash
# run.sh [BUILD_DIR] [google-benchmark flags]: runs every bench_* program with one thread and prints one markdown table.
# The JSON results stay in BUILD_DIR/bench/results. Build with -DTHALWEG_BENCHMARKS=ON first.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")" && pwd)
build_dir=${1:-$source_dir/../build/release}
shift || true
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
results=$build_dir/bench/results
mkdir -p "$results"
shopt -s nullglob
programs=("$build_dir"/bench/bench_*)
if [ ${#programs[@]} -eq 0 ]; then
    echo "no benchmarks in $build_dir/bench; configure with -DTHALWEG_BENCHMARKS=ON and build them" >&2
    exit 1
fi
files=()
for program in "${programs[@]}"; do
    [ -x "$program" ] && [ -f "$program" ] || continue
    file=$results/$(basename "$program").json
    echo "running $(basename "$program")" >&2
    "$program" --benchmark_repetitions=3 --benchmark_report_aggregates_only=true --benchmark_out_format=json \
        --benchmark_out="$file" "$@" >&2
    files+=("$file")
done
python3 "$source_dir/table.py" "${files[@]}"

# Beside plain Python, where there is one with both packages.
for python in python3 /usr/bin/python3; do
    "$python" -c 'import numpy, scipy' 2> /dev/null || continue
    printf '\n### weight matching beside NumPy and SciPy\n\n'
    "$python" "$source_dir/matching_numpy.py" "$build_dir/thalweg"
    printf '\n### scipy.optimize.linear_sum_assignment, for the table of assignments\n\n'
    "$python" "$source_dir/assignment_scipy.py"
    exit
done
echo "weight matching beside NumPy and SciPy: skipped, it needs python3-numpy and python3-scipy" >&2
