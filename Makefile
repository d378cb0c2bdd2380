# The doors into the project. `make` alone says which.

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARE := target/release/tare

PREFIX  ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test test-guest integration guest bench coverage lint man install bundles clean
# the shell's $ are not make's
override CMD := $(value CMD)
export CMD

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

build: ## Build the release binaries
	@integration/build

demo: build ## Make a layered image with umoci, import it, run it, take it apart again
	@integration/install-deps demo
	@integration/demo $(TARE)

test: ## Run all tests, as root: on this machine, and in a guest if it lacks controllers
	@integration/install-deps test
	@integration/test

test-guest: ## Run the tests that need controllers in a guest with pure cgroup v2
	@integration/install-deps test
	@integration/test guest

integration: build ## Run tare under containerd, podman, Docker, conmon and the CRI, as root
	@integration/install-deps clients
	@integration/clients

guest: ## Run a command in that guest: make guest CMD='…' [SYSTEMD=1]
	@integration/install-deps guest
	@integration/guest/run $(if $(filter-out 0,$(SYSTEMD)),--systemd) -- "$$CMD"

coverage: ## Print which lines the tests go through, file by file
	@integration/install-deps coverage
	@integration/coverage

lint: ## Check the format, the lints and the dependencies
	@integration/install-deps lint
	@integration/lint

man: ## Write the manual pages and the shells' completions to target/pages
	@integration/install-deps build
	@cargo run --locked --quiet --example pages -- target/pages
	@echo "target/pages: $$(ls target/pages/man | wc -l) pages, completions for bash, zsh, fish"

install: build man ## Install binaries, pages, completions: PREFIX, DESTDIR
	install -D -m 0755 $(TARE) $(DESTDIR)$(PREFIX)/bin/tare
	install -D -m 0755 $(TARE)-pull $(DESTDIR)$(PREFIX)/bin/tare-pull
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man8 target/pages/man/*
	install -D -m 0644 target/pages/completions/tare.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/tare
	install -D -m 0644 target/pages/completions/_tare \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_tare
	install -D -m 0644 target/pages/completions/tare.fish \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/tare.fish

bundles: ## Give the sample bundles a root file system, below target/bundles
	@integration/install-deps bundles
	@integration/make-bundles

bench: build ## Measure tare beside other runtimes and the kernel's floor, as root
	@integration/install-deps bench
	cargo build --release --locked --quiet --package tare-bench
	@BENCH_TARE=$${BENCH_TARE:-$(TARE)} target/$(HOST)/release/tare-bench

clean: ## Remove all that was built
	cargo clean
