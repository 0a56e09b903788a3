# SPDX-License-Identifier: Apache-2.0
#
# The door of the repository; docs/build.md explains. Two targets do everything
# on a fresh machine: `make demo` and `make test`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BUILD := build
ASAN := build-asan
FUZZ := build-fuzz
# How long `make fuzz` runs each target.
SECONDS := 20
# Two compilations at once: a file that includes libtorch takes up to 1 GiB.
JOBS := 2
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup configure build test demo lint format asan fuzz soak simulate hostile matrix peer-test package bench peer-bench recovery-bench clean

help: ## What there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## Install what the build needs
	@tools/bootstrap control cpu model

configure: setup
	@cmake -G Ninja -B $(BUILD) -S . -DCMAKE_BUILD_TYPE=Release >$(BUILD).log 2>&1 \
	  || { cat $(BUILD).log; exit 1; }; rm -f $(BUILD).log

build: configure ## Build the programs in Release into build/bin
	@ninja -j $(JOBS) -C $(BUILD) ft-coordinator ft-worker ft-train ftctl

test: build ## Build and run every test
	@ninja -j $(JOBS) -C $(BUILD)
	@ctest --test-dir $(BUILD) -j 2 --output-on-failure --no-tests=error

hostile: configure ## Clients that attack both listeners: memory, heartbeats
	@ninja -j $(JOBS) -C $(BUILD) coordinator_hostile_test
	@ctest --test-dir $(BUILD) -L hostile --output-on-failure --no-tests=error

demo: build ## Train, fetch and try the example
	@tools/demo

lint: setup ## Format, layers, protos, scripts, licences
	@tools/lint

format: ## Format all C++ sources
	@git ls-files '*.h' '*.cc' | xargs clang-format-19 -i

asan: setup ## Everything without torch under ASan and UBSan
	@cmake -G Ninja -B $(ASAN) -S . -DCMAKE_BUILD_TYPE=None -DFT_TORCH=OFF \
	  -DFT_BENCH=OFF -DFT_SANITIZE=address,undefined \
	  -DCMAKE_CXX_FLAGS="-O1 -g1" >$(ASAN).log 2>&1 \
	  || { cat $(ASAN).log; exit 1; }; rm -f $(ASAN).log
	@ninja -j $(JOBS) -C $(ASAN)
	@LSAN_OPTIONS=suppressions=$(CURDIR)/tools/lsan.supp \
	  ctest --test-dir $(ASAN) -j 2 -LE hostile --output-on-failure --no-tests=error

KILLS := 40
SEED := 1
soak: build ## Kill KILLS processes under load (SEED=1) and check what is left
	@ninja -j $(JOBS) -C $(BUILD) kill_soak
	@$(BUILD)/tests/kill_soak --kills $(KILLS) --seed $(SEED) \
	  --report $(BUILD)/soak-$(KILLS)-$(SEED)

fuzz: setup ## Each fuzz target for SECONDS=20, under ASan and UBSan
	@cmake -G Ninja -B $(FUZZ) -S . -DCMAKE_BUILD_TYPE=None -DFT_TORCH=OFF \
	  -DFT_BENCH=OFF -DFT_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++-19 \
	  -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_FLAGS="-O1 -g1" >$(FUZZ).log 2>&1 \
	  || { cat $(FUZZ).log; exit 1; }; rm -f $(FUZZ).log
	@ninja -j $(JOBS) -C $(FUZZ) fuzz_targets
	@BUILD=$(FUZZ) JOBS=$(JOBS) tests/fuzz/run $(SECONDS)

simulate: configure ## The coordinator's core under faults: SEEDS=N, SEED=first
	@ninja -j $(JOBS) -C $(BUILD) ft-simulate
	@$(BUILD)/tests/ft-simulate --seeds $(or $(SEEDS),1000) --seed $(or $(SEED),1)

matrix: build ## One result over stages, ranks, transports: every cell
	@tests/matrix/run --build $(BUILD) --whole

peer-test: build ## Compare with transformers and PEFT
	@tools/bootstrap peer
	@tests/peer/run
	@tests/k8s/check_manifests

package: build ## Debian packages into build/packages, and a look at them
	@rm -rf $(BUILD)/packages
	@cd $(BUILD) && cpack >package.log 2>&1 || { cat package.log; exit 1; }
	@rm -rf $(BUILD)/packages/_CPack_Packages
	@ls -sh $(BUILD)/packages/*.deb
	@tests/deploy/check_package $(BUILD)/packages

# On a machine without other work; bench/README.md says how to read the figures.
bench: build ## Time our own steps and service: JSON and tables
	@ninja -j $(JOBS) -C $(BUILD) ft-bench-step ft-bench-service
	@bench/run.py --build $(BUILD) $(BENCH)

peer-bench: build ## The same steps beside transformers and PEFT: ratios
	@tools/bootstrap peer
	@ninja -j $(JOBS) -C $(BUILD) ft-bench-step ft-bench-service
	@bench/compare.py --build $(BUILD) $(BENCH)

recovery-bench: build ## What deaths cost: ranks and the coordinator are killed
	@ninja -j $(JOBS) -C $(BUILD) ft-bench-step ft-bench-service ft-bench-fleet
	@bench/recovery.py --build $(BUILD) $(BENCH)

clean: ## Remove the build folders (downloads stay in the cache)
	@rm -rf $(BUILD) $(ASAN) $(FUZZ)
