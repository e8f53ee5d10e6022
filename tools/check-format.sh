#!/bin/sh
# Fails, naming the files, when clang-format would change a source file.
set -eu
cd "$(dirname "$0")/.."
git ls-files '*.cpp' '*.hpp' | xargs clang-format --dry-run -Werror
echo "format: all sources are clean"
