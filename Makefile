# Two commands do everything: `make run` (set up, fetch the starter model, serve) and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := $(shell find csrc ollamacore -name '*.[ch]' -o -name '*.def' -o -name '*.p[yx][xd]' -o -name '*.pxi' 2>/dev/null | grep -v -e _core.c -e include/)

.PHONY: help build run test bench lint fmt asan wheel clean

help:
	@echo "make run      set up, fetch the starter model once, serve on port 11434"
	@echo "make test     set up, run the whole suite"
	@echo "make build    .venv with an editable install"
	@echo "make bench    benchmarks (see bench/README.md for the comparison with llama.cpp)"
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

test: $(VENV)/test-tools
	$(BIN)/python -m pytest tests
	OLLAMACORE_CPU=generic $(BIN)/python -m pytest -q tests/kernels tests/core -m "not model"

bench: $(VENV)/test-tools
	$(BIN)/python -m pytest bench --benchmark-sort=name

lint: $(VENV)/test-tools
	$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -e '.[lint]'
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/cython-lint ollamacore

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
