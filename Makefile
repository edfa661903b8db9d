# SPDX-License-Identifier: MIT
#
# A thin layer over Meson: everything that it builds is in $(BUILD).
# `make help` lists the targets.

BUILD	?= build
PREFIX	?= /usr/local
DESTDIR	?=
JOBS	?= $(shell nproc 2>/dev/null || echo 2)
# Seconds for each fuzzer, and minutes for the soak.
FUZZ_SECONDS ?= 60
SOAK_MINUTES ?= 60

MESON	= meson
SETUP	= $(MESON) setup --prefix=$(PREFIX)
TEST	= $(MESON) test --print-errorlogs --num-processes $(JOBS)

.PHONY: all deps demo check check-long check-soak check-asan check-tsan \
	check-clang fuzz bench lint format cover install clean help

all: $(BUILD)/build.ninja	# build everything
	@ninja -C $(BUILD) -j $(JOBS)

deps:			# install the packages of tools/packages.txt (Debian)
	@tools/deps

$(BUILD)/build.ninja:
	@command -v $(MESON) >/dev/null || { \
		echo "No meson here: run 'make deps' first." >&2; exit 1; }
	@$(SETUP) $(BUILD)

demo: deps			# a real program in half of the memory it needs
	@$(MAKE) --no-print-directory all
	@demo/run $(BUILD)

check: deps			# a sample of all tests, 4 minutes at most
	@$(MAKE) --no-print-directory all
	@$(TEST) -C $(BUILD) --no-rebuild --suite check --logbase check

check-long: deps		# the tests that `check` leaves out
	@$(MAKE) --no-print-directory all
	@$(TEST) -C $(BUILD) --no-rebuild --suite long --logbase long

check-soak: deps		# all tests over and over, for SOAK_MINUTES
	@$(MAKE) --no-print-directory all
	@tools/soak $(BUILD) $(SOAK_MINUTES)

check-asan: build-asan/build.ninja # AddressSanitizer and UBSan
	@ninja -C build-asan -j $(JOBS)
	@$(TEST) -C build-asan --no-rebuild --suite check --logbase asan

check-tsan: build-tsan/build.ninja # ThreadSanitizer, on what has threads
	@ninja -C build-tsan -j $(JOBS)
	@$(TEST) -C build-tsan --no-rebuild --suite threads --logbase tsan

check-clang: build-clang/build.ninja # clang -Wthread-safety -Werror
	@ninja -C build-clang -j $(JOBS)

build-asan/build.ninja:
	@$(SETUP) build-asan -Db_sanitize=address,undefined -Db_lundef=false \
		-Doptimization=1

build-tsan/build.ninja:
	@$(SETUP) build-tsan -Db_sanitize=thread -Db_lundef=false \
		-Doptimization=1

build-clang/build.ninja:
	@CC=clang-14 CXX=clang++-14 $(SETUP) build-clang

fuzz: deps			# each fuzzer for FUZZ_SECONDS
	@tools/fuzz build-fuzz $(FUZZ_SECONDS)

bench: deps			# what it costs, beside what others cost
	@$(MAKE) --no-print-directory all
	@bench/run $(BUILD)

lint: deps build-clang/build.ninja # format, clang-tidy, shellcheck, layers
	@$(MAKE) --no-print-directory all
	@tools/lint $(BUILD) build-clang

format:				# clang-format, in place
	@tools/sources c h | xargs clang-format-14 -i

cover: deps			# which lines the tests of `check` reach
	@[ -e build-cover/build.ninja ] || \
		$(SETUP) build-cover -Db_coverage=true
	@ninja -C build-cover -j $(JOBS)
	@$(TEST) -C build-cover --no-rebuild --suite check --logbase cover || :
	@gcovr -r . --filter src/ build-cover

install: all			# into $(DESTDIR)$(PREFIX)
	@$(MESON) configure $(BUILD) -Dprefix=$(PREFIX)
	@DESTDIR='$(DESTDIR)' $(MESON) install -C $(BUILD) --quiet

clean:				# remove every build folder
	@rm -rf $(BUILD) build-asan build-tsan build-clang build-fuzz \
		build-cover

help:				# this list
	@sed -n 's/^\([a-z-]*\):[^#]*#\(.*\)/\1\t\2/p' Makefile | \
		sort | expand -t 16
