# SPDX-License-Identifier: Apache-2.0
#
# The door of the repository; docs/build.md explains. Two targets do everything
# on a fresh machine: `make demo` and `make test`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BUILD := build
ASAN := build-asan
# Two compilations at once: a file that includes libtorch takes up to 1 GiB.
JOBS := 2
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup configure build test demo lint format asan peer-test bench package clean

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
	  ctest --test-dir $(ASAN) -j 2 --output-on-failure --no-tests=error

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

clean: ## Remove the build folders (downloads stay in the cache)
	@rm -rf $(BUILD) $(ASAN)
