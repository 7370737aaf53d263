# The commands that people and scripts use. `make` alone lists them.
#
#   DEMO_FLAGS="--lane local --requests 10"   is handed to `baton demo`
#   SEEDS=100000                              is how many storms `make simulate` lets pass
#   SOAK_CYCLES=10000                         is how often `make soak` connects and disconnects on each lane
#   SANITIZE="thread address miri"            are the parts of `make sanitize`: some of these, all by default
#   CHAOS_FLAGS="--only tx. --row 17,18"      is handed to `chaos` (target/release/chaos --help)
#   GPU_CHECK_FLAGS="--only bench"            is handed to `gpu-check` (target/release/gpu-check --help)
#   BENCH_FLAGS="--path tcp --only stride2"   is handed to `baton bench`
#   PREFIX=/opt/baton                         where `make install` puts things (DESTDIR is honoured)

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX     ?= /usr/local
DEMO_FLAGS ?=
CHAOS_FLAGS ?=
BENCH_FLAGS ?=
GPU_CHECK_FLAGS ?=
SANITIZE ?= thread address miri
JOBS       ?= $(shell nproc)
# A hung test must fail the run, not outlast it.
TEST_LIMIT_S ?= 1500
# Storms of `make simulate`.
SEEDS ?= 10000
# Cycles of `make soak` on each lane.
SOAK_CYCLES ?= 10000

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Nothing is rebuilt in CI, and incremental data costs time and disk.
ifeq ($(CI),true)
export CARGO_INCREMENTAL := 0
endif

BATON := target/release/baton
HOST  := build/bin/baton-engine-host
LIBS  := build/lib

# Exports BATON_UCX_LIBRARY for the rest of a recipe line, if a libucp that the ucx lane can use is to be had.
USE_UCX := if library=$$(scripts/install-ucx.sh); then export BATON_UCX_LIBRARY="$$library"; fi
# Exports MPI_HOME for the rest of a recipe line, if an mpirun for the tests is to be had.
USE_MPI := if home=$$(scripts/install-mpi.sh); then export MPI_HOME="$$home"; fi
# Exports NIXL_HOME for the rest of a recipe line, if a real NIXL for the tests' Python is to be had.
USE_NIXL := if python=$$(scripts/install-python.sh) && home=$$(scripts/install-nixl.sh "$$python"); then export NIXL_HOME="$$home"; fi
# Exports NVCC for the rest of a recipe line, if an nvcc for the test of the kernels is to be had.
USE_NVCC := if nvcc=$$(scripts/install-nvcc.sh); then export NVCC="$$nvcc"; fi
# Sets `peers` for the rest of a recipe line: the flags that hand `baton bench` a Python, Baton's binding, NIXL and
# Mooncake, as far as they are to be had.
USE_PEERS := peers=(); if python=$$(scripts/install-python.sh); then \
  peers+=(--python "$$python" --binding-dir build/python/plain-open); \
  if home=$$(scripts/install-nixl.sh "$$python"); then peers+=(--nixl "$$home"); fi; \
  if home=$$(scripts/install-mooncake.sh "$$python"); then peers+=(--mooncake "$$home"); fi; fi
# The demo fetches a UCX only when it is asked for that lane.
DEMO_UCX = $(if $(findstring ucx,$(DEMO_FLAGS) $(BATON_LANES)),$(USE_UCX); )

# Seam S2 is Python's: its demo needs one, and the build makes the binding for it.
ifneq (,$(findstring s2,$(DEMO_FLAGS)))
DEMO_NEEDS  := python
DEMO_PYTHON  = --python "$$(scripts/install-python.sh)"
endif

.PHONY: help demo test simulate soak kills loom sanitize chaos bench bench-full gpu-check gate build install clean deps python fuzz fuzz-seeds

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO_NEEDS) build ## hand real requests' KV over between processes; details in target/demo.json
	$(DEMO_UCX)$(BATON) demo --lib-dir $(LIBS) --host $(HOST) $(DEMO_PYTHON) $(DEMO_FLAGS)

# The Python comes before the build, which looks for it.
test: python ## every test, Rust, C++ and Python
	$(MAKE) --no-print-directory build
	$(USE_UCX); \
	$(USE_MPI); \
	$(USE_NIXL); \
	timeout $(TEST_LIMIT_S) cargo test --workspace --locked; \
	timeout $(TEST_LIMIT_S) cargo test --locked --features planted --test simulation planted; \
	$(USE_NVCC); \
	ctest --test-dir build --output-on-failure --no-tests=error --timeout 120

# A storm that breaks a rule says how to run it again; the table says how often which fault struck.
simulate: deps ## storms of faults over two or three simulated hosts: SEEDS=100000
	@rm -f target/simulation.txt
	@[[ "$(SEEDS)" =~ ^[1-9][0-9]*$$ ]] || { echo "SEEDS is '$(SEEDS)': give a whole number of storms, 1 or more"; exit 2; }
	BATON_SIM_SEEDS=$(SEEDS) cargo test --release --locked --test simulation -- \
	  --ignored --exact storm::many::storm_of_a_night --nocapture || failed=1; \
	cat target/simulation.txt; exit $${failed:-0}

# A lane's run has a process of its own; what it had before and after is in the table.
soak: deps ## connect and disconnect again and again, and see what is left behind: SOAK_CYCLES=10000
	$(USE_UCX); BATON_SOAK_CYCLES=$(SOAK_CYCLES) cargo test --release --locked --test agent -- \
	  --ignored --exact soak::long_soak --nocapture

# For an idle machine: peers of one host are killed one after the other, 100 on each lane.
kills: deps ## how soon a wait ends after the kill of a peer on the same host
	$(USE_UCX); cargo test --release --locked --test agent -- \
	  --ignored --exact kills::waits_end_soon_after_a_kill --nocapture

# The models are built in a folder of their own: everything else is without loom.
loom: deps ## orders of the threads in the models of hand-offs outside a lock
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --lib --locked --target-dir target/loom models

# In target folders of its own. What is left out and suppressed, and why, is said in the script and beside it.
sanitize: deps ## the tests under ThreadSanitizer, AddressSanitizer and Miri: SANITIZE="thread address miri"
	scripts/sanitize.sh $(SANITIZE)

chaos: python ## faults of every kind done to real processes, row by row; details in target/chaos.json
	$(MAKE) --no-print-directory build
	$(USE_UCX); \
	python=$$(scripts/install-python.sh 2>/dev/null) || python=; \
	target/release/chaos $${python:+--python "$$python"} $(CHAOS_FLAGS)

bench: python ## Baton beside NIXL, Mooncake and the machine's limits; details in target/bench
	$(MAKE) --no-print-directory build
	@$(USE_PEERS); $(BATON) bench --lib-dir $(LIBS) --driver-dir build/bin "$${peers[@]}" $(BENCH_FLAGS)

bench-full: override BENCH_FLAGS += --set full
bench-full: bench ## the same over every size and count up to 512 MiB

# On the machine with the GPU it needs no cargo and no network, if it was built before.
gpu-check: ## GPU memory on a real GPU: every path against a CPU, kills, times; results in benches/results
	@[[ -x target/release/gpu-check ]] || { scripts/install-deps.sh && cargo build --release --locked -p gpu-check; }
	target/release/gpu-check $(GPU_CHECK_FLAGS)

gate: ## formatting, lints, the rules of the tree, documentation
	scripts/install-deps.sh --gate
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --locked --test tidy
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	@echo "gate: passed"

# The staticlib and the programs come from one cargo call; CMake finds the staticlib fresh and links it.
build: deps ## the library under its names (build/lib), the engine host, the baton program
	cargo build --release --locked -p baton -p chaos -p gpu-check -p fake-cuda
	cmake -S . -B build $(if $(BATON_PYTHON),-DBATON_PYTHON=$(BATON_PYTHON))
	cmake --build build --parallel $(JOBS)

fuzz: deps ## every decoder under libFuzzer: FUZZ_SECONDS=60 or FUZZ_RUNS=10000000 for each, FUZZ_TARGETS="blob ..."
	scripts/fuzz.sh

# After a change of a format: the inputs that fuzzing and tests/hostile begin with.
fuzz-seeds:
	cargo test --locked --test hostile write_the_seeds -- --ignored

install: build ## the library, the program and the engine host under PREFIX
	cmake --install build --prefix $(PREFIX)
	install -D -m 755 $(BATON) $(DESTDIR)$(PREFIX)/bin/baton
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/libexec/baton $(HOST) build/bin/baton-bench-agent build/bin/baton-bench-limit
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/libexec/baton/drivers/python benches/drivers/python/*.py

clean: ## remove what was built
	rm -rf build target

deps:
	scripts/install-deps.sh

# For the Python side of seam S2. Where none is to be had, the script says why and its tests are skipped by name.
python: deps
	scripts/install-python.sh >/dev/null || true
