# warp: one static binary.
#
#   make          warp: static-PIE, musl, stripped
#   make run      installs what the build needs, serves the demo on :8080
#   make check    installs what the tests need, runs all of them
#   make promises what the seed documents promise, and the tests that show it
#   make fuzz     every fuzz target for FUZZ_SECS seconds
#   make soak     random faults for SOAK_MINUTES, and what is left of them; and
#                 the rows of long tables that make check leaves out
#   make soak-cross  what make cross makes, at work under QEMU: sizes and results
#   make cache-suite  the public tests for HTTP caches, from GitHub and npm
#   make bench    beside nginx and HAProxy; and what choosing a route and an
#                 instance costs
#   make instructions  of a kept GET: figures that do not depend on the day
#   make size     what each switch of config.h costs
#   make man      brings the manual's table of keys up to date
#   make cross    ARCHS="arm64 ...": warp-cross.ARCH for small machines
#   make install  DESTDIR, PREFIX       make dist    a tarball of HEAD
#   make deb      a Debian package      make BINARY=warp-cross.ARCH: of that one
#
# make DEBUG=1 gives warp-debug instead: glibc, -g, address and undefined
# behaviour sanitizers. warp-tiny is the same with the smallest buffers.

CC      = gcc
CLANG   = clang
PYTHON  = /usr/bin/python3
PREFIX  = /usr/local
DESTDIR =
BINARY  = warp
FUZZ_SECS = 60
SOAK_MINUTES = 10
ARCHS   = arm64 armel armhf mipsel mips64el i386 ppc64el s390x

STD     = -std=c11
WARN    = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror
OZ     := $(shell echo | $(CC) -Oz -fsyntax-only -xc - 2>/dev/null && echo -Oz)
CFLAGS  = $(or $(OZ),-Os)
LEAN    = -fno-asynchronous-unwind-tables -fno-unwind-tables \
	  -ffunction-sections -fdata-sections
# gcc sees uninitialised variables in sanitized code that are none (its manual
# says so); the release build looks for real ones.
SANE    = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
	  -fno-sanitize-recover=undefined
QUIET   = -Wno-maybe-uninitialized
TINY    = -DRELAY_BYTES=2048 -DBLOCK_SMALL_BYTES=1600 -DBLOCKS_KEPT_SMALL=1 \
	  -DBLOCKS_KEPT_LARGE=1 -DHELD_MAX=4 -DTLS_BUFS_KEPT=1

# Where ld pads what becomes read-only to pages of 64 KB it stays writable, as musl
# leaves it in a static program in any case.
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
RELRO    = $(if $(filter aarch64-% mips% powerpc64%,$(MACHINE)),no)relro

# Sorted by alignment, the many small variables share a few pages instead of
# dirtying one beside each large array. Constants and code share theirs: pages of
# their own would be padded by 8 KB.
LINK     = -Wl,-z,$(RELRO),-z,now,--gc-sections,--sort-section=alignment,-s \
	   -Wl,-z,noseparate-code,--build-id=none,--no-eh-frame-hdr,-T,build/lean.ld

# Addresses in tables: two bytes each instead of 24, where ld and main's room know how.
ifneq (,$(filter x86_64-% i386-% i486-% i586-% i686-% powerpc64le-%,$(MACHINE)))
LINK    += -DRELR -Wl,-z,pack-relative-relocs,--wrap=__libc_start_main
endif

# Debian's musl and BearSSL, straight: musl-gcc knows no static-pie. Where the
# compiler's own libc is musl (Alpine, OpenWrt), it is simply asked.
TRIPLET := $(shell $(CC) -print-multiarch 2>/dev/null)
MUSL    := $(subst gnuabi64,musl,$(subst gnu,musl,$(TRIPLET)))
L        = $(ROOT)/usr/lib/$(MUSL)
G        = $(ROOT)/usr/lib/$(TRIPLET)
GCC_INC := $(shell $(CC) -print-file-name=include 2>/dev/null)
STATIC   = -static-pie -nostdlib -Wl,--no-dynamic-linker,--exclude-libs,ALL,-z,text $(LINK)
ifneq (,$(findstring musl,$(MACHINE)))
RELEASE  = $(CC) $(STD) $(WARN) $(CFLAGS) $(LEAN) $(CPPFLAGS) -fPIE -static-pie $(LINK) \
	   -o $@ warp.c $(LDFLAGS) -lbearssl
else
RELEASE  = $(CC) -nostdinc -isystem $(ROOT)/usr/include/$(MUSL) -isystem $(GCC_INC) \
	   -isystem $(ROOT)/usr/include/bearssl $(STD) $(WARN) $(CFLAGS) $(LEAN) $(CPPFLAGS) \
	   -fPIE $(STATIC) $(LDFLAGS) -o $@ $(L)/rcrt1.o $(L)/crti.o warp.c \
	   -L$(L) -Wl,--start-group $(G)/libbearssl.a -lc -lgcc -Wl,--end-group $(L)/crtn.o
NEEDS_MUSL = needs-musl
endif

HOUSE   = warp.c warp.h config.h
LESS   := $(shell sed -n 's/^\#define WITH_\([A-Z]*\).*/build\/less\/\1/p' config.def.h)
UNITS   = $(patsubst tests/unit/%.c,build/%,$(wildcard tests/unit/test_*.c))
FUZZERS = $(patsubst tests/fuzz/%.c,build/%,$(wildcard tests/fuzz/fuzz_*.c))

ifdef DEBUG
all: warp-debug
else
all: warp
endif

warp: $(HOUSE) | $(NEEDS_MUSL) build/lean.ld
	$(RELEASE)

# Nobody unwinds C: 18 KB of tables that the libraries bring along. Nor is it asked
# which compilers they came from.
build/lean.ld: Makefile | build
	@echo 'SECTIONS { /DISCARD/ : { *(.eh_frame .comment) } } INSERT BEFORE .rodata;' >$@

# contrib/cross calls these, with CC, MUSL, TRIPLET, and ROOT: where it unpacked them.
warp-cross.%: $(HOUSE) | build/lean.ld
	$(RELEASE)

build/cross/warp.%: $(HOUSE) | build/lean.ld
	$(RELEASE)

# Without one of what config.h switches on; without ALL of it.
build/less/%: $(HOUSE) | build/less $(NEEDS_MUSL) build/lean.ld
	@sed 's/^\(#define WITH_$(subst ALL,[A-Z]*,$*) *(*\)1/\10/' config.h >$@.h
	$(RELEASE) -include $@.h

warp-debug: $(HOUSE)
	$(CC) $(STD) $(WARN) $(SANE) $(QUIET) $(CPPFLAGS) -o $@ warp.c $(LDFLAGS) -lbearssl

warp-tiny: $(HOUSE)
	$(CC) $(STD) $(WARN) $(SANE) $(QUIET) $(TINY) $(CPPFLAGS) -o $@ warp.c $(LDFLAGS) -lbearssl

# Made once, then yours.
config.h: config.def.h
	@if [ ! -f $@ ]; then echo "cp config.def.h $@"; cp config.def.h $@; \
	elif cmp -s config.def.h $@; then touch $@; \
	else echo "note: config.def.h is newer than your config.h; compare them"; fi

needs-musl:
	@[ -f $(L)/rcrt1.o ] && [ -f $(G)/libbearssl.a ] || { \
	    echo "warp is built with musl-tools and libbearssl-dev: 'make deps' installs them"; exit 1; }

deps:
	@tests/packages/install build

run: deps
	@$(MAKE) --no-print-directory warp
	@echo "warp's demo: http://localhost:8080 (Ctrl-C ends it)"
	@exec ./warp -c contrib/demo/warp.toml

check:
	@tests/packages/install build check cross
	@$(PYTHON) tests/run

promises: warp | build
	@tests/packages/install check
	@$(PYTHON) tests/promises

# What the tests are made of; tests/run asks for it.
tests: warp warp-debug warp-tiny build/warp-plain build/toml_json $(UNITS) $(FUZZERS)

# These include warp.c, of which clang leaves out what they do not call: main is
# static there, and a build takes a second instead of ten.
INCLUDED = $(STD) $(WARN) -Wno-unused-function $(CPPFLAGS)

# What compresses is held against zlib, which warp itself has no use for.
build/test_deflate build/fuzz_deflate build/deflate_bench: LDFLAGS += -lz

# For valgrind, which does not see into musl's malloc.
build/warp-plain: $(HOUSE) | build
	$(CC) $(STD) $(WARN) -O1 -g $(CPPFLAGS) -o $@ warp.c $(LDFLAGS) -lbearssl

# Whose wall clock can be moved.
build/warp-clock: $(HOUSE) tests/soak/clock.h | $(NEEDS_MUSL) build/lean.ld
	$(RELEASE) -include tests/soak/clock.h

build/test_%: tests/unit/test_%.c tests/unit/unit.h $(HOUSE) | build
	$(CLANG) $(INCLUDED) $(SANE) -O0 -o $@ $< $(LDFLAGS) -lcmocka -lbearssl

build/toml_json: tests/toml_json.c $(HOUSE) | build
	$(CLANG) $(INCLUDED) $(SANE) -O0 -o $@ $< $(LDFLAGS) -lbearssl

# Most of warp.c is in fuzz_exchange, which takes a minute with -O1. A long run is worth
# that, since it tries half as much again: make build/fuzz_exchange FUZZ_O=-O1.
FUZZ_O = -O1
build/fuzz_exchange: FUZZ_O = -O0

build/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/fuzz.h $(HOUSE) | build
	$(CLANG) $(INCLUDED) $(FUZZ_O) -g -fsanitize=fuzzer,address,undefined \
	    -fno-sanitize-recover=undefined -o $@ $< $(LDFLAGS) -lbearssl

build/%_bench: tests/bench/%_bench.c $(HOUSE) | build
	$(CC) $(INCLUDED) $(CFLAGS) -o $@ $< $(LDFLAGS) -lbearssl

build build/less:
	@mkdir -p $@

fuzz: $(FUZZERS)
	@for f in $(FUZZERS); do tests/fuzz/run $$f $(FUZZ_SECS) || exit 1; done

soak: warp build/warp-clock
	WARP=build/warp-clock $(PYTHON) tests/soak/soak.py $(SOAK_MINUTES)
	@tests/packages/install build check
	WHOLE=1 $(PYTHON) tests/run system-debug system-tiny conformance-debug

# warp and those of make cross at work, as far as an emulator can tell.
soak-cross: warp cross
	@tests/packages/install cross check
	$(PYTHON) tests/soak/cross.py

# CACHE_TESTS=DIR: a checkout of the suite that is there. nginx and varnish run beside
# warp where they are installed.
cache-suite: warp | build
	@tests/packages/install cache-suite
	$(PYTHON) tests/conformance/cachesuite.py --get build --passed 155 --failed 0

bench: warp build/route_bench build/pick_bench
	build/route_bench
	build/pick_bench
	cd tests/bench && WARP=../../warp $(PYTHON) bench.py --quick -o ../../build/bench-result.json

# User-space instructions of a kept GET, beside nginx, HAProxy and a bare forwarder.
instructions: warp
	@tests/bench/instructions.py

size: warp
	@$(MAKE) -sj$$(nproc) $(LESS) build/less/ALL
	@size warp $(LESS) build/less/ALL | awk '{ n = $$1 + $$2 } NR == 2 { all = n; \
	    printf "%7d bytes of code and data in warp\n", n } NR > 2 { sub(".*/", "", $$6); \
	    printf "%7d less without %s\n", all - n, $$6 }'

# The manual's tables of keys and of system calls, from the program's own.
man: warp | build
	@sed '/CALLS BEGIN/q' man/warp.1 >build/man && sed -n '/CALLS BEGIN:/,/CALLS END/p' warp.c | \
	    awk '/^\t\/\* [^:]* \*\/$$/ && !/CALLS/ { gsub(/^\t.. | ..$$/, ""); print ".TP\n" $$0; next } \
	    /:" / { by = $$0; sub(/:.*/, "", by); sub(/MMAP_BY */, "wnc x2", by); gsub(/[\t"]/, "", by) } \
	    { while (match($$0, /CALL\([a-z0-9_]*/)) { print ".BR " substr($$0, RSTART + 5, RLENGTH - 5) \
	    " \" (" by ")\""; $$0 = substr($$0, RSTART + RLENGTH) } }' >>build/man && \
	    sed -n '/^.." CALLS END/,$$p' man/warp.1 >>build/man && cp build/man man/warp.1
	@sed '/KEYS BEGIN/q' man/warp.toml.5 >build/man && ./warp -D man >>build/man && \
	    sed -n '/KEYS END/,$$p' man/warp.toml.5 >>build/man && cp build/man man/warp.toml.5

# From Debian's packages alone.
cross:
	@contrib/cross $(ARCHS)

S = $(DESTDIR)$(PREFIX)/share
install: warp
	mkdir -p $(DESTDIR)$(PREFIX)/bin $S/man/man1 $S/man/man5 \
	    $S/bash-completion/completions $S/zsh/site-functions
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/warp
	install -m 644 man/warp.1 $S/man/man1/warp.1
	install -m 644 man/warp.toml.5 $S/man/man5/warp.toml.5
	install -m 644 contrib/completion/warp.bash $S/bash-completion/completions/warp
	install -m 644 contrib/completion/_warp $S/zsh/site-functions/_warp

VERSION = $(shell sed -n 's/^\#define VERSION "\(.*\)"/\1/p' config.def.h)
dist:
	git archive --prefix=warp-$(VERSION)/ -o warp-$(VERSION).tar.gz HEAD

# warp_VERSION_DEB_ARCH.deb. Of a warp for another machine:
# make deb DEB_ARCH=armhf BINARY=warp-cross.armhf
DEB_ARCH = $(shell dpkg --print-architecture)
D = build/deb
deb: warp
	rm -rf $D
	$(MAKE) install DESTDIR=$D PREFIX=/usr BINARY=$(BINARY)
	mkdir -p $D/etc $D/lib/systemd/system $D/usr/share/doc/warp $D/DEBIAN
	(cat contrib/warp.toml; printf '\n[admin]\nlisten = "unix:/run/warp/admin.sock"\n') >$D/etc/warp.toml
	chmod 640 $D/etc/warp.toml
	sed 's,/usr/local/,/usr/,; s,/etc/systemd,/lib/systemd,' contrib/init/warp.service \
	    >$D/lib/systemd/system/warp.service
	install -m 644 LICENSE $D/usr/share/doc/warp/copyright
	install -m 644 README contrib/init/warp-root.conf contrib/init/warp.socket $D/usr/share/doc/warp
	cp -r contrib/examples $D/usr/share/doc/warp/examples
	gzip -9nf $D/usr/share/man/man?/*
	install -m 755 contrib/debian/p* $D/DEBIAN
	echo /etc/warp.toml >$D/DEBIAN/conffiles
	sed 's/@VERSION@/$(VERSION)/; s/@ARCH@/$(DEB_ARCH)/; s/@SIZE@/'"$$(du -sk $D | cut -f1)"'/' \
	    contrib/debian/control >$D/DEBIAN/control
	dpkg-deb --root-owner-group -b $D warp_$(VERSION)_$(DEB_ARCH).deb

# config.h stays: it is yours.
clean:
	rm -rf build warp warp-debug warp-tiny warp-cross.* warp-*.tar.gz warp_*.deb

.PHONY: all run check promises tests deps fuzz soak soak-cross cache-suite bench instructions size man cross install dist deb clean needs-musl
