# layerbox. `make help` says what there is.

TOOLCHAIN ?= auto
SETUP     ?= yes
PREFIX    ?= /usr/local
DESTDIR   ?=
UNITS     ?= $(PREFIX)/lib/systemd/system
CASES     ?=
TIME      ?= 60
RUNS      ?= 7
BENCH     ?=
EVERY     ?= 4
export TOOLCHAIN SETUP TIME RUNS

CARGO  ?= cargo
# In CI the lock file is the truth; at a desk a change of a manifest updates it.
LOCKED := $(if $(filter true,$(CI)),--locked)

OUT       := target/component
COMPONENT := $(OUT)/driver.wasm
COMPILED  := $(OUT)/driver.cwasm
SOCKETS   := $(OUT)/sockets.wasm
PLAIN     := $(OUT)/plain.wasm
MINIMAL   := $(OUT)/minimal.wasm
C_GUEST   := $(OUT)/c.wasm
WRONG     := $(OUT)/wrong.wasm
HOSTILE   := $(OUT)/hostile.wasm
ATTACK    := $(OUT)/attack.wasm
# Where `.cargo/config.toml` has every cargo put the host's output, unless somebody says otherwise.
BUILD     := $(or $(CARGO_TARGET_DIR),target)
BINARY    := $(BUILD)/release/layerbox
AOT       := $(BUILD)/release/layerbox-aot

BUILD_BINARY := $(CARGO) build $(LOCKED) --release -p layerbox

# Each step needs the one before it, and cargo keeps the processors busy by itself.
.NOTPARALLEL:
.PHONY: all help toolchain setup component guests guest-c test bench bench-calls fuzz hostile crash lint doc demo tcb reproducible install clean

all: component ## the component, and the binary target/release/layerbox that embeds it (default)
	$(BUILD_BINARY)

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  TOOLCHAIN=auto|rustup|debian   where the compiler for wasm32-wasip2 comes from (.ci/toolchain)'
	@echo '  SETUP=no                       install nothing: no Debian packages, nothing into rustup'
	@echo '  TIME=60                        make fuzz: seconds for each target'
	@echo '  BENCH="WORD… --json" RUNS=7     make bench: works (apply synced diff changes calls scale), inputs (base many links whiteouts big deep), rounds'
	@echo '  EVERY=4                        make crash: every Nth of the calls that are made to fail; 1 takes them all'
	@echo '  CASES=WORD                     make test: only the cases of the suite whose name holds WORD, and no unit tests'
	@echo '  PREFIX=/usr/local DESTDIR=     make install; UNITS=PREFIX/lib/systemd/system'

toolchain: ## finds the compiler for the component and says which
	@.ci/toolchain

setup: ## installs the Debian packages that the tests want (as root)
	@.ci/setup

# Cargo decides whether anything is to be done; its output is copied only when it changed, so the rest stays as it is.
# The compiler of components is built with the features that the binary needs as well (both packages are named, one program is built): else the engine,
# minutes of work, would be built for each.
component: ## the component: target/component/driver.wasm, and compiled ahead of time driver.cwasm
	@.ci/component layerbox-guest $(COMPONENT)
	$(CARGO) build $(LOCKED) --release -p layerbox-aot -p layerbox --bin layerbox-aot
	@if [ ! $(COMPILED) -nt $(COMPONENT) ] || [ ! $(COMPILED) -nt $(AOT) ]; then \
		echo '$(AOT) $(COMPONENT) $(COMPILED)'; \
		$(AOT) $(COMPONENT) $(COMPILED).new && mv $(COMPILED).new $(COMPILED); \
	fi

# Each keeps one processor busy while it is linked, so they are built together; not the one that has another decompressor than all others. The one in C mostly
# waits for its compiler to come.
guests: ## components that only tests run
	@$(MAKE) -s guest-c & c=$$!; \
	.ci/component layerbox-guest-sockets $(SOCKETS) layerbox-guest-minimal $(MINIMAL) layerbox-guest-wrong $(WRONG) \
		layerbox-guest-hostile $(HOSTILE) layerbox-guest-attack $(ATTACK) && \
	.ci/component layerbox-guest-plain $(PLAIN); built=$$?; \
	wait $$c && exit $$built

guest-c: ## the one of them that is written in C, with clang and wasi-libc of Debian, unpacked below target/
	@.ci/guest-c $(C_GUEST)

# The components that only tests run are built beside the binary: each of the two leaves a processor idle at times.
test: setup component ## the unit tests of all crates, then the suite on real mounts
	@$(MAKE) -s guests & guests=$$!; $(BUILD_BINARY); built=$$?; wait $$guests && exit $$built
	@LAYERBOX_BIN="$${LAYERBOX_BIN:-$(BINARY)}" .ci/test $(CASES)

bench: setup all ## figures beside GNU tar, bsdtar and a native floor, and whether they are as they should be (as root)
	$(CARGO) build $(LOCKED) --release -p layerbox-bench
	@LAYERBOX_BIN="$${LAYERBOX_BIN:-$(BINARY)}" $(BUILD)/release/bench $(BENCH)

bench-calls: setup component ## what single calls cost in one process (as root)
	$(CARGO) bench $(LOCKED) -p layerbox-bench --bench calls

fuzz: ## each fuzzer for TIME seconds (60), guided by coverage; needs a C++ compiler
	@.ci/fuzz

hostile: setup all ## every hostile archive of the catalogue, and what came of it in each run: a table
	@LAYERBOX_BIN="$${LAYERBOX_BIN:-$(BINARY)}" $(CARGO) test $(LOCKED) --release -q -p layerbox-tests --test suite -- --table $(CASES)

crash: setup all ## every operation cut off at every system call, damaged stores, full disks, many clients: a table
	@CRASH_EVERY=$(EVERY) LAYERBOX_BIN="$${LAYERBOX_BIN:-$(BINARY)}" $(CARGO) test $(LOCKED) --release -q -p layerbox-tests --test crash -- $(CASES)

lint: component ## formatting, clippy and rustdoc with warnings denied, and cargo-deny where it is installed
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	@.ci/lint-component
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then \
		$(CARGO) deny check licenses bans sources; \
	else \
		echo 'lint: NOT CHECKED: licences, duplicates and sources of the dependencies (deny.toml); for that: cargo install cargo-deny' >&2; \
	fi

doc: component ## the documentation of the crates: target/doc/
	$(CARGO) doc $(LOCKED) --workspace --no-deps

demo: setup all ## layers, mounts, changes and archives of a real root file system, step by step
	$(BINARY) demo

tcb: ## the lines of native code that decide what is done to the machine, file by file
	@.ci/tcb

reproducible: ## builds the component in two other directories and compares the digests
	@.ci/reproducible

install: ## PREFIX/bin/layerbox, its manual page, the shells' completions, and units for systemd
	@test -x $(BINARY) || { echo 'install: run make first' >&2; exit 1; }
	install -D -m 0755 $(BINARY) '$(DESTDIR)$(PREFIX)/bin/layerbox'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1' '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' \
		'$(DESTDIR)$(PREFIX)/share/zsh/site-functions' '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	$(BINARY) man > '$(DESTDIR)$(PREFIX)/share/man/man1/layerbox.1'
	$(BINARY) completions bash > '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/layerbox'
	$(BINARY) completions zsh > '$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_layerbox'
	$(BINARY) completions fish > '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/layerbox.fish'
	install -d '$(DESTDIR)$(UNITS)'
	install -m 0644 packaging/systemd/*.socket '$(DESTDIR)$(UNITS)/'
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' packaging/systemd/layerbox.service > '$(DESTDIR)$(UNITS)/layerbox.service'
	chmod 0644 '$(DESTDIR)$(UNITS)/layerbox.service'

clean: ## removes target/, the toolchain and the fixtures in it included
	rm -rf target
