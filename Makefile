# Two commands do everything: `make run` (set up, fetch the starter model, serve) and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := $(shell find csrc ollamacore -name '*.[ch]' -o -name '*.def' -o -name '*.inc' -o -name '*.p[yx][xd]' -o -name '*.pxi' 2>/dev/null | grep -v -e _core.c -e include/)

.PHONY: help build run test test-arm test-clients fuzz bench lint fmt asan wheel clean

help:
	@echo "make run      set up, fetch the starter model once, serve on port 11434"
	@echo "make test     set up, run the whole suite"
	@echo "make test-arm cross-compile the ARM64 kernels and test them under qemu-user"
	@echo "make test-clients llama-index and litellm against the server"
	@echo "make fuzz     ten thousand requests from our own OpenAPI document"
	@echo "make build    .venv with an editable install"
	@echo "make bench    benchmarks; against llama.cpp where OLLAMACORE_PEER_PYTHON has it (bench/README.md)"
	@echo "make lint     ruff, mypy, cython-lint"
	@echo "make asan     the suite under AddressSanitizer and UBSan, in build/asan"
	@echo "make wheel    one abi3 wheel in dist/"

$(VENV)/made: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -U pip 'setuptools>=77' 'cython>=3.1' wheel
	touch $@

$(VENV)/built: $(VENV)/made setup.py pyproject.toml $(SOURCES)
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e .
	touch $@

$(VENV)/test-tools: $(VENV)/built
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e '.[test]'
	touch $@

build: $(VENV)/built

run: build
	$(BIN)/python -m server starter
	$(BIN)/python -m server

# What runs on the reference kernels once more: whole models. Their rows by themselves are in tests/kernels anyway.
GENERIC_TESTS := tests/kernels/test_dispatch.py $(patsubst %,tests/core/test_%.py,engine logits architectures experts embedding)

test: $(VENV)/test-tools
	$(BIN)/python -m pytest tests
	OLLAMACORE_CPU=generic $(BIN)/python -m pytest -q -m "not model" $(GENERIC_TESTS)

# The client libraries whose own environments take long to install; `make test` has the others.
test-clients: $(VENV)/test-tools
	CLIENT_LIBRARIES="llama_index litellm" $(BIN)/python -m pytest tests/api/test_client_libraries.py

# The ARM64 kernels without ARM64: a static test program for three processors. NEON only is a Raspberry Pi 4, dotprod a
# Raspberry Pi 5. The flags are those of setup.py.
ARM_CC    ?= aarch64-linux-gnu-gcc
ARM_QEMU  ?= qemu-aarch64-static
ARM_FLAGS := -std=c11 -O3 -g1 -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror \
             -Wno-unused-parameter -D_GNU_SOURCE -Icsrc -Itests/arm
ARM_C     := csrc/base/cpu.c \
             $(wildcard csrc/quant/*.c csrc/kernels/*.c csrc/kernels/generic/*.c csrc/kernels/arm/*.c tests/arm/*.c)
ARM_O     := $(ARM_C:%.c=build/arm/%.o)

# One of the levels at a time: make test-arm ARM_LEVELS=dotprod (which also tests all NEON rows)
ARM_LEVELS      ?= neon dotprod i8mm
ARM_CPU_neon    := cortex-a72
ARM_CPU_dotprod := cortex-a76
ARM_CPU_i8mm    := max

test-arm: $(ARM_LEVELS:%=test-arm-%)

test-arm-%: build/arm/test_kernels
	@command -v $(ARM_QEMU) >/dev/null || { echo "needs $(ARM_QEMU): apt-get install qemu-user-static"; exit 1; }
	$(ARM_QEMU) -cpu $(ARM_CPU_$*) $< $*

build/arm/test_kernels: $(ARM_O)
	$(ARM_CC) -static -o $@ $^ -lm

build/arm/%.o: %.c Makefile
	@command -v $(ARM_CC) >/dev/null || \
	    { echo "needs $(ARM_CC): apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; exit 1; }
	@mkdir -p $(@D)
	$(ARM_CC) $(ARM_FLAGS) -MMD -MP -c -o $@ $<

-include $(ARM_O:.o=.d)

fuzz: $(VENV)/test-tools
	$(BIN)/python -m tests.fuzz --cases 10000

bench: $(VENV)/test-tools
	$(BIN)/python -m bench.kernels
	$(BIN)/python -m pytest bench --benchmark-sort=name
	$(BIN)/python -m bench.compare "$$($(BIN)/python -c 'from tests.fetch import SMOLLM2, fetch; print(fetch(SMOLLM2))')" \
	    $(if $(OLLAMACORE_PEER_PYTHON),,--only ours)

lint: $(VENV)/test-tools
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e '.[lint]'
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint ollamacore

fmt:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format ollamacore server tests bench

# A copy of the tree with an instrumented extension: the normal build stays as it is.
asan: $(VENV)/test-tools
	rm -rf build/asan && mkdir -p build/asan
	git ls-files -co --exclude-standard | tar -cf - -T - | tar -xf - -C build/asan
	cd build/asan && OLLAMACORE_SANITIZE=address,undefined ../../$(BIN)/python setup.py -q build_ext --inplace
	cd build/asan && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc ../../$(BIN)/python -m pytest -q -s -m "not model" tests

wheel: $(VENV)/made
	$(BIN)/pip wheel -q --no-deps -w dist .

clean:
	rm -rf build dist $(VENV) *.egg-info ollamacore/_core.c ollamacore/*.so
