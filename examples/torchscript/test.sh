#!/bin/sh
# The whole way at small scale: two rounds of 30 steps a client. Exit code 77: skipped.
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
"$python" "$here/net.py" save "$folder/net.pt"
"$program" run "$here/federate.yaml" "model.file=$folder/net.pt" server.rounds=2 data.partition.clients=2 \
  clients.steps=30 --out "$folder/run"
"$python" "$here/net.py" check "$folder/run"
"$program" eval "$folder/run/final.pt"
