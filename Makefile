# Every command that CI runs, by name. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
KEYFALL := $(TARGET)/release/keyfall

.PHONY: help demo build test lint fmt clippy doc deps purity licences rules sizes words
.PHONY: unit sim e2e interop fuzz-smoke bench packages

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: build ## build Keyfall and show the whole story on this machine, no root needed
	@$(KEYFALL) demo

build: ## the release binary, target/release/keyfall
	@[ -x $(KEYFALL) ] || echo "Building Keyfall for the first time: about 250 packages, 2 to 5 minutes on 2 cores." >&2
	$(CARGO) build --release --locked --bin keyfall

test: ## everything below but bench, on a machine that has only Rust; ends with what ran and what was skipped
	@scripts/test

lint: fmt clippy doc deps purity licences rules sizes words ## every check that runs nothing of ours

fmt: ## formatting
	$(CARGO) fmt --all --check
	@for manifest in fuzz/Cargo.toml bench/Cargo.toml; do \
	  [ ! -f $$manifest ] || $(CARGO) fmt --manifest-path $$manifest --check; done

clippy: ## compiler and clippy warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: ## the code's documentation builds without a warning, private items too
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

deps: ## who may import whom
	@scripts/check-imports

purity: ## no clock, file, socket or randomness in the core and the planes
	@scripts/check-purity

licences: ## licences and sources of every dependency
	@scripts/check-licences

rules: ## every protocol check in docs/RULES.md has its code and its test
	@scripts/check-rules

sizes: ## files of at most 800 lines, names that say something
	@scripts/check-sizes

words: ## no machine's paths, nothing left for later
	@scripts/check-words

unit: ## the tests of every crate but the simulator's
	@scripts/test unit

sim: ## the simulator's tests, in release: 1,000 seeds, and 1,000 of key sharing; KEYFALL_SEED=N replays one
	@scripts/test sim

e2e: ## the demo with real processes and sockets; every step must be as it must be
	@scripts/test build e2e

interop: ## captures and packets read by other people's programs (Python, libsrtp)
	@scripts/test packages build interop

fuzz-smoke: ## every fuzz target builds and runs for FUZZ_SECONDS (10)
	@scripts/test fuzz

bench: ## the figures of docs and closing notes, as ratios and limits
	@scripts/bench

packages: ## install what the tests need from Debian's packages (as root)
	@scripts/test packages
