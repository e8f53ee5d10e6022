#!/bin/sh
# Installs what Thalweg is built from and runs with, from the distribution's packages. Does nothing, in well under a
# second, when all of it is there. When it may not install, it prints the line that would and fails.
#   tools/install-dependencies.sh [--list]
set -eu

packages="
build-essential cmake ninja-build ccache make git ca-certificates clang-format
libtorch-dev libopenblas0-openmp
libopenmpi-dev openmpi-bin
libyaml-cpp-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libboost-dev zlib1g-dev
libgtest-dev libgmock-dev libbenchmark-dev
libjs-chart.js gnuplot-nox
dataset-fashion-mnist
python3 python3-torch python3-numpy python3-protobuf
clang libclang-rt-dev
"

if [ "${1:-}" = --list ]; then
  echo $packages
  exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install-dependencies: this is not a Debian system; install the counterparts of:" $packages >&2
  exit 1
fi

installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $packages 2>/dev/null | sed -n 's/^installed //p')
missing=""
for package in $packages; do
  case "
$installed
" in
    *"
$package
"*) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
  sudo=""
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
  sudo=sudo
else
  echo "install-dependencies: these packages are missing and this user may not install them. Run as root:" >&2
  echo "  apt-get install --no-install-recommends$missing" >&2
  exit 1
fi

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
