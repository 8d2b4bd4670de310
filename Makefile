# The two front doors of the project, and what stands behind them. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := target/venv
NODE := target/node
CONSOLE_NODE := target/console
MODEL_VENV := target/venv-model
CARGO_DENY := target/tools/bin/cargo-deny
DEPLOY_TOOLS := target/tools/deploy
DATA_DIR ?=
# Most tests wait for a server, a clock or each other: two for each core keep it busy.
TEST_THREADS ?= $(shell echo $$(($$(nproc) * 2)))
PREBUILT = $(and $(wildcard target/release/farmiq-edge),$(wildcard target/release/farmiq-loadtest))
# The target of a program that needs no library of the system: with musl where Rust's library for it is installed, otherwise with
# glibc, which is linked in as well (its resolver knows files and DNS by itself since 2.34).
MACHINE := $(shell uname -m)
STATIC := $(MACHINE)-unknown-linux-$(if $(wildcard $(shell rustc --print sysroot 2>/dev/null)/lib/rustlib/$(MACHINE)-unknown-linux-musl/lib),musl,gnu)
STATIC_ENV := $(if $(findstring musl,$(STATIC)),CC_$(subst -,_,$(STATIC))=musl-gcc,RUSTFLAGS="-C target-feature=+crt-static")

.PHONY: $(STATIC) help up test test-large test-console test-console-large walk-console two-months lint advisories deploy-check documents image package bundle bench bench-door bench-weigh bench-inference bench-retention bench-rest bench-fan-out model to-open to-run to-test to-browse

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

up: $(if $(PREBUILT),to-open,to-run) ## Run the engine, a pretend cloud and a simulated barn until Ctrl-C
	@$(if $(PREBUILT),echo "opening the release in target/release (make up PREBUILT= builds from the sources)",echo "building the engine (about ten minutes the first time)" && cargo build -p farmiq-edge -p farmiq-loadtest)
	@PROFILE=$(if $(PREBUILT),release,debug) DATA_DIR="$(DATA_DIR)" deploy/demo

test: to-test $(VENV)/.ready $(NODE)/.ready ## Run all tests with what they need
	@tests/previous-program
	cargo build --workspace --all-targets
	tests/with-postgres cargo nextest run --workspace --test-threads $(TEST_THREADS)

test-large: to-test ## Run what is too large for every day: 5,000 encrypted connections through kills and outages
	cargo build --workspace --all-targets
	tests/with-postgres cargo nextest run --workspace --run-ignored only

# Built with the features of the tests, so that what they have built is used.
test-console: to-browse $(CONSOLE_NODE)/.ready ## Look at the console in a real browser, offline: accessible, fast, in both languages
	cargo build --workspace --all-targets
	NODE_MODULES=$(CURDIR)/$(CONSOLE_NODE) tests/console/scene node tests/console/check.mjs

test-console-large: to-browse ## Measure each screen of the console: 60 days, 50 devices, a million events that wait; at most 50 ms
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	PROFILE=release DAYS=60 WEIGHINGS=2000 DEVICES=50 OUTBOX=1000000 tests/console/scene node tests/console/times.mjs

walk-console: to-browse $(CONSOLE_NODE)/.ready ## Walk through the console as a newcomer beside `make up`, and count clicks
	cargo build --workspace --all-targets
	NODE_MODULES=$(CURDIR)/$(CONSOLE_NODE) tests/console/walk

two-months: to-test ## Live two months of a barn in an hour, with wrong clocks, outages and a restore; the judge looks
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@loadtest/two-months

lint: $(CARGO_DENY) ## Check formatting, lints, and the licenses and sources of what we depend on
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo fetch --locked
	$(CARGO_DENY) --offline check licenses bans sources

advisories: $(CARGO_DENY) ## Look for known vulnerabilities in what we depend on; needs the internet
	$(CARGO_DENY) check advisories

deploy-check: $(DEPLOY_TOOLS)/.ready ## Check images, manifests, units, rules and dashboards below deploy/, without a cluster
	@$(DEPLOY_TOOLS)/python/bin/python deploy/check

documents: ## Run the commands of the documents that are marked as runnable; as root
	cargo build -p farmiq-edge
	tests/documents

$(STATIC):
	$(STATIC_ENV) cargo build --profile dist --locked -p farmiq-edge --target $(STATIC)

image: $(STATIC) ## Build both images into target/image; needs buildah and mmdebstrap
	@PROGRAM=target/$(STATIC)/dist/farmiq-edge deploy/image/build

package: $(STATIC) ## Build the Debian package into target/debian; needs cargo-deb
	cargo deb --no-build --profile dist -p farmiq-edge --target $(STATIC) --output target/debian/

bundle: image package ## Pack images, manifests and package into one file for a box without internet
	@deploy/bin/bundle

bench: to-run ## Measure raw COPY, bare SQL and the engine end to end in turns, and how a backlog goes to the cloud
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@loadtest/bench

bench-door: to-test ## Measure the MQTT listener beside Mosquitto and rumqttd, and what an idle connection costs
	cargo build --release -p farmiq-edge -p farmiq-loadtest -p broker --bins --example plain_rumqttd
	@loadtest/bench-door --idle 1000,10000,50000

bench-weigh: to-run ## Measure the way of pictures to weights, and their error, with both places for pictures
	cargo build --workspace --example objects
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@loadtest/bench-weigh

bench-inference: $(MODEL_VENV)/.ready ## Measure what weighing an image costs here, with the bundled and with a larger model
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@$(MODEL_VENV)/bin/python loadtest/bench-inference target/release/farmiq-edge target/mobilenet

bench-retention: to-run ## Measure what deleting a million old rows costs those who write
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@loadtest/bench-retention

bench-rest: to-run ## Measure what an engine and its PostgreSQL use at rest, and at 200 readings a second with the cloud up
	cargo build --release -p farmiq-edge -p farmiq-loadtest
	@loadtest/bench-rest

bench-fan-out: ## Measure live messages to subscribers, through the router and through the queues
	cargo run --release -p broker --example fan_out

model: $(MODEL_VENV)/.ready ## Draw pictures and train the demonstration model again (a few minutes)
	cargo build --release -p farmiq-loadtest
	target/release/farmiq-loadtest render --count 5000 --seed 20260101 --out target/pictures
	$(MODEL_VENV)/bin/python actors/model/train/train.py target/pictures actors/model

$(CARGO_DENY):
	cargo install --quiet --locked --debug --root target/tools --version 0.20.2 cargo-deny

$(DEPLOY_TOOLS)/.ready: deploy/requirements.txt deploy/prerequisites
	@deploy/prerequisites check
	python3 -m venv $(DEPLOY_TOOLS)/python
	$(DEPLOY_TOOLS)/python/bin/pip install --quiet --disable-pip-version-check -r $<
	npm install --prefix $(DEPLOY_TOOLS)/node --ignore-scripts --no-audit --no-fund --loglevel=error \
		@kubernetes-models/prometheus-operator@6.0.0 @kubernetes-models/cert-manager@4.4.4 @kubernetes-models/keda@0.4.2
	cd $(DEPLOY_TOOLS) && apt-get download -q prometheus prometheus-alertmanager && for package in *.deb; do dpkg -x "$$package" dist; done
	@touch $@

to-open to-run to-test to-browse: # What the machine lacks, from the distribution's packages
	@deploy/prerequisites $(@:to-%=%)

$(VENV)/.ready: tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(NODE)/.ready: tests/clients/package.json tests/clients/package-lock.json
	mkdir -p $(NODE)
	cp $^ $(NODE)
	npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(CONSOLE_NODE)/.ready: tests/console/package.json tests/console/package-lock.json
	mkdir -p $(CONSOLE_NODE)
	cp $^ $(CONSOLE_NODE)
	npm ci --prefix $(CONSOLE_NODE) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(MODEL_VENV)/.ready: actors/model/train/requirements.txt
	python3 -m venv $(MODEL_VENV)
	$(MODEL_VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
