# The two front doors of the project, and what stands behind them. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := target/venv
DATA_DIR ?=

.PHONY: help up test lint bench prerequisites

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

up: prerequisites ## Run the engine, a pretend cloud and a simulated barn until Ctrl-C
	cargo build -p farmiq-edge -p farmiq-loadtest
	@DATA_DIR="$(DATA_DIR)" deploy/demo

test: prerequisites $(VENV)/.ready ## Run all tests with what they need
	cargo build --workspace --all-targets
	tests/with-postgres cargo nextest run --workspace

lint: ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench: prerequisites ## Measure raw COPY, bare SQL and the engine end to end in one run
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@deploy/bench

prerequisites: # What the machine lacks, from the distribution's packages
	@deploy/prerequisites

$(VENV)/.ready: tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
