#!/bin/sh
# Usage: merge.sh PROGRAM [key.path=value…]   (the overrides go to both trainings)
set -eu
program=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
config=$here/../../configs/reproduce/merge-mlp-128.yaml
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$program" train "$config" "$@" seed=1 --out "$folder/a.pt"
"$program" train "$config" "$@" seed=2 --out "$folder/b.pt"
for options in "--align none" "--align weight_matching" "--align weight_matching --finish repair"; do
  echo "== lmc $options"
  # shellcheck disable=SC2086  # the options are words
  "$program" lmc "$folder/a.pt" "$folder/b.pt" --points 5 --split test $options
done
"$program" fuse "$folder/a.pt" "$folder/b.pt" --pipeline weight_matching+mean+repair --out "$folder/merged.pt"
