# wsnic. "make run" starts it, "make test" tests it; both do all the set-up that they need.
# On Debian 12 with a Rust toolchain (https://rustup.rs), make and a C compiler for the linker.

CARGO ?= cargo
# Options for wsnic, such as ARGS="--ws-server-addr 0.0.0.0 -v".
ARGS ?=
DESTDIR ?=
# The day that man pages show.
SOURCE_DATE_EPOCH ?= $(shell date +%s)

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
RELEASE := $(TARGET)/release
PROGRAMS := wsnic wsnic-priv wsnic-front
# Makes man pages and completions, and is no part of what is installed.
MANUAL ?= $(TARGET)/debug/wsnic-manual
# Where cargo puts what "make test" installs.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin:/sbin
CARGO_DENY_VERSION := 0.20.2
# "make run" works for any user who may use sudo.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: run build test setup lint deny fuzz conformance bench soak install manual install-files deb \
	image-check clean

# Defaults, and the Internet for guests by the interface of the default route.
run: build
	@echo "== starting wsnic, Ctrl-C ends it"
	@exec $(SUDO) $(RELEASE)/wsnic run --enable-inet $(ARGS)

build:
	@echo "== building"
	@$(CARGO) build --locked --release $(PROGRAMS:%=--package %)

# Doc tests first: the summary of all other tests is the last that is printed.
test: setup lint deny
	@echo "== building programs and tests"
	@$(CARGO) build --locked --workspace --all-features --bins
	@CARGO_TARGET_DIR=$(TARGET) packaging/programs.sh musl $$(dpkg --print-architecture) \
		$(TARGET)/static dev
	@$(CARGO) test --locked --workspace --all-features --no-run
	@echo "== doc tests"
	@$(CARGO) test --locked --workspace --all-features --doc --quiet
	@echo "== tests"
	@if $(CARGO) nextest --version > /dev/null 2>&1; then \
		WSNIC_BIN_DIR=$(TARGET)/debug $(CARGO) nextest run --locked --workspace --all-features; \
	else \
		WSNIC_BIN_DIR=$(TARGET)/debug $(CARGO) test --locked --workspace --all-features \
			--no-fail-fast --lib --bins --tests; \
	fi

setup:
	@echo "== what the tests need"
	@CARGO_TARGET_DIR=$(TARGET) tests/setup.sh

lint:
	@echo "== format"
	@$(CARGO) fmt --all --check
	@$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	@echo "== clippy"
	@$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings

deny:
	@echo "== licences, advisories and sources of dependencies"
	@$(CARGO) deny --version > /dev/null 2>&1 || { \
		echo "installing cargo-deny, which takes some minutes"; \
		$(CARGO) install --locked --quiet cargo-deny --version $(CARGO_DENY_VERSION); }
	@$(CARGO) fetch --locked --quiet
	@$(CARGO) deny --offline --log-level error check licenses bans sources
	@if timeout 60 $(CARGO) deny --log-level error fetch db > /dev/null 2>&1; then \
		$(CARGO) deny --log-level error check --disable-fetch advisories; \
	else \
		echo "advisories: SKIPPED, the database of RustSec cannot be fetched from here"; \
	fi

# Every target for FUZZ_SECONDS, until the first finding; see docs/fuzzing.md.
FUZZ_SECONDS ?= 60
fuzz:
	@CARGO_TARGET_DIR=$(TARGET)/fuzz FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/run.sh

# Every case of the Autobahn testsuite that a server of Ethernet frames can pass, by ws and wss; see
# docs/conformance.md. "make test" plays some of them.
conformance: setup
	@$(CARGO) build --locked --workspace --all-features --bins
	@echo "== the Autobahn testsuite (root)"
	@WSNIC_CONFORMANCE=all WSNIC_BIN_DIR=$(TARGET)/debug $(CARGO) test --locked \
		--package wsnic-tests --test conformance -- --nocapture

# Options by ARGS, such as ARGS="--only tcp --rounds 3 --seconds 2"; WSNIC_PYTHON is a checkout of the
# Python program to compare with. docs/performance.md says what is measured.
bench: build
	@$(CARGO) build --locked --release --package wsnic-bench
	@$(SUDO) env CARGO_TARGET_DIR=$(TARGET) tests/setup.sh programs
	@echo "== measuring the release build (root; the machine should be idle)"
	@$(SUDO) env WSNIC_BIN_DIR=$(RELEASE) WSNIC_PYTHON="$(WSNIC_PYTHON)" \
		$(RELEASE)/wsnic-bench --json $(TARGET)/bench.json $(ARGS)

# SOAK_FRAMES random frames through the release build, each compared; SOAK_SEED for others.
SOAK_FRAMES ?= 24000000
soak: build
	@echo "== $(SOAK_FRAMES) random frames (root)"
	@$(CARGO) build --locked --release --package wsnic-tests --bin wsnic-soak
	@$(SUDO) env WSNIC_BIN_DIR=$(RELEASE) SOAK_FRAMES=$(SOAK_FRAMES) $(RELEASE)/wsnic-soak

install: build manual install-files

manual:
	@echo "== building what makes the manual"
	@$(CARGO) build --locked --package wsnic-manual

# What is built lies in RELEASE.
install-files:
	install -D -m 0755 $(RELEASE)/wsnic $(DESTDIR)/usr/bin/wsnic
	install -D -m 0755 -t $(DESTDIR)/usr/libexec/wsnic $(RELEASE)/wsnic-priv $(RELEASE)/wsnic-front
	install -D -m 0644 -t $(DESTDIR)/usr/lib/systemd/system systemd/*.service systemd/*.socket
	install -D -m 0644 systemd/wsnic.sysusers $(DESTDIR)/usr/lib/sysusers.d/wsnic.conf
	install -D -m 0644 systemd/wsnic.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/wsnic.conf
	umask 022 && $(MANUAL) $(DESTDIR)/usr/share $$(date -u -d @$(SOURCE_DATE_EPOCH) +%F)
	@# A configuration that is there stays.
	install -d -m 0755 $(DESTDIR)/etc/wsnic
	test -e $(DESTDIR)/etc/wsnic/wsnic.conf || \
		install -m 0644 -t $(DESTDIR)/etc/wsnic $(DESTDIR)/usr/share/doc/wsnic/wsnic.conf

# Packages for Debian 12 and later below TARGET/deb, such as DEB_ARCHS="amd64 arm64".
DEB_ARCHS ?= $(shell dpkg --print-architecture)
DEB_REVISION ?= 1
deb: manual
	@for architecture in $(DEB_ARCHS); do \
		echo "== the Debian package for $$architecture"; \
		CARGO_TARGET_DIR=$(TARGET) packaging/programs.sh gnu $$architecture \
			$(TARGET)/deb/$$architecture && \
		MANUAL=$(MANUAL) SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) packaging/debian/package.sh \
			$$architecture $(TARGET)/deb/$$architecture $(TARGET)/deb $(DEB_REVISION) || exit 1; \
	done

# The whole image as packaging/docker/Dockerfile says, without Docker, and its tests with figures;
# see tests/container/build.sh. "make test" runs them on an image of a debug build.
IMAGE_ARCHS ?= amd64 arm64
image-check: setup
	@$(CARGO) build --locked --workspace --all-features --bins
	@tests/container/build.sh $(TARGET)/image $(IMAGE_ARCHS)
	@tests/container/sizes.sh $(TARGET)/image $(IMAGE_ARCHS)
	@echo "== the image as a container (root)"
	@WSNIC_IMAGE=$(TARGET)/image/wsnic-$$(dpkg --print-architecture).tar \
		WSNIC_BIN_DIR=$(TARGET)/debug $(CARGO) test --locked --package wsnic-tests \
		--test container -- --nocapture --test-threads 1

clean:
	$(CARGO) clean
