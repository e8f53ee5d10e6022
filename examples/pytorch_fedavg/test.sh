#!/bin/sh
# A short run of the comparison: two rounds of 120 steps a client must agree within 0.3 points. Exit code 77: skipped.
set -eu
program=$1
here=$(cd "$(dirname "$0")" && pwd)
python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import torch, numpy' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  echo "skipped: no Python here can import torch (apt install python3-torch)"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
config=$here/../../configs/reproduce/fedavg-cnn.yaml
small="server.rounds=2 data.holdout=50000 data.partition.clients=4 clients.epochs=1"
# shellcheck disable=SC2086  # the settings are words
"$program" run "$config" $small --out "$folder/run"
# shellcheck disable=SC2086
"$program" partition "$config" $small --export "$folder/plan.pt"
"$python" "$here/fedavg.py" "$folder/run" "$folder/plan.pt" --epochs 1 | tee "$folder/table"
awk '/largest difference/ { found = 1; if ($3 > 0.3) exit 1 } END { if (!found) exit 1 }' "$folder/table"
