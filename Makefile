# The front door. Everything happens in CMake's presets; see README.md.
#   make run     installs what is missing, builds, runs the quickstart on two ranks
#   make test    the same, then every test
#   make build   the program at build/release/thalweg
#   make bench   the benchmarks, as a table
RANKS ?= 2
CONFIG ?= configs/quickstart.yaml
PRESET ?= release
JOBS ?= $(shell nproc)

# As root Open MPI wants to be asked twice; --oversubscribe lets more ranks than cores start; --bind-to none, so that two
# runs side by side do not share the same cores.
MPIRUN = OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe --bind-to none

.PHONY: run test configure build bench dependencies format clean
.DEFAULT_GOAL := build

dependencies:
	@tools/install-dependencies.sh

configure: dependencies
	@cmake --preset $(PRESET) $(if $(filter bench,$(MAKECMDGOALS)),-DTHALWEG_BENCHMARKS=ON) > /dev/null

build: configure
	@cmake --build --preset $(PRESET) -j $(JOBS) --target thalweg

run: build
	$(MPIRUN) -n $(RANKS) build/$(PRESET)/thalweg run $(CONFIG) $(SET)

test: configure
	@cmake --build --preset $(PRESET) -j $(JOBS)
	@ctest --preset $(PRESET) -j $(JOBS)

bench: configure
	@cmake --build --preset $(PRESET) -j $(JOBS)
	@bench/run.sh build/$(PRESET)

format: dependencies
	@git ls-files '*.cpp' '*.hpp' | xargs clang-format -i

clean:
	rm -rf build
