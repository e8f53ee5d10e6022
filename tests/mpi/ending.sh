#!/usr/bin/env bash
# ending.sh MPIEXEC PROGRAM SCENARIO: the run must end within seconds, with the expected exit code and no rank left.
set -u
mpiexec=$1 program=$2 scenario=$3
case $scenario in
    abort) expected=7 ;;
    *) expected=130 ;;
esac
start=$(date +%s%N)
timeout 30 "$mpiexec" --oversubscribe --bind-to none -n 3 "$program" --scenario "$scenario" > "ending-$scenario.log" 2>&1
code=$?
milliseconds=$((($(date +%s%N) - start) / 1000000))
if [ $code -ne $expected ]; then
    echo "exit code $code instead of $expected"
    cat "ending-$scenario.log"
    exit 1
fi
sleep 0.3
if pgrep -f -- "$program --scenario $scenario" > /dev/null; then
    echo "a rank is still running"
    exit 1
fi
echo "ended with $code after $milliseconds ms"
