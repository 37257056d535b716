# make demo   a real comparison, end to end, in minutes
# make test   the tests
# make lint   ruff and mypy
# make kill   kills compare, tune, train, pack and report 200 times at random moments (an hour)
# make soak   packed models on changing graphs from four threads, for SOAK_MINUTES (30)
# make test-scatter   the tests of layers, and of what samples neighbors, with torch-scatter and
#                     torch-sparse (compiles them)
# make test-oldest   the quick part of the tests with the oldest releases that pyproject.toml allows
# make test-newest   the same with the newest ones there are
# make fuzz   100,000 damaged packed files, under AddressSanitizer and UBSan (FUZZ_COUNT=N: N of them)
# make sanitize   the tests of kernels and packed models under both, for each instruction set that this
#                 processor has (ISAS="avx2 portable": for these)
# make test-arm   the kernels for Arm under qemu-aarch64 (needs aarch64-linux-gnu-g++ and cmake)
#
# Everything lives in .venv, which the first target creates. Nothing else of the machine is changed.

PYTHON ?= python3
# Installed first and pinned: another package would otherwise pull in whichever torch is newest.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

# Real data beside the checkout is used where it lies; the package itself knows only BITGNN_DATA.
ifneq ($(wildcard ../shared/data),)
export BITGNN_DATA ?= $(abspath ../shared/data)
endif

.PHONY: demo test test-scatter test-oldest test-newest test-arm fuzz sanitize soak kill lint clean
.DELETE_ON_ERROR:

$(VENV)/.installed: pyproject.toml CMakeLists.txt $(wildcard csrc/*.* csrc/isa/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

DEMO := Digits $(if $(wildcard $(BITGNN_DATA)/Planetoid/Cora/raw),Cora)

demo: $(VENV)/.installed
	$(BIN)/bitgnn compare --dataset $(DEMO) --model gcn sgc mlp --seeds 5 --store demo/results.sqlite --out demo

# In two processes: much of the time of a test is that of commands which it starts.
PYTEST := python -m pytest -n 2 --dist worksteal

test: $(VENV)/.installed
	$(BIN)/$(PYTEST) $(PYTEST_ARGS)

SAMPLING := tests/nn tests/packed/test_forms.py \
            $(addprefix tests/training/test_,batches.py checkpoint.py) \
            tests/cli/test_train_distributed.py tests/test_examples.py tests/test_sharded.py

$(VENV)/.scatter: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet setuptools wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation torch-scatter torch-sparse
	touch $@

test-scatter: $(VENV)/.scatter
	$(BIN)/python -c "import torch_scatter, torch_sparse"
	$(BIN)/$(PYTEST) $(SAMPLING) $(PYTEST_ARGS)

# What depends on the releases of others: layers, operators, packing and the command line; without
# what trains. The oldest NumPy has wheels for Python 3.10 and 3.11.
QUICK := tests/quant tests/nn tests/packed tests/test_dependencies.py \
         $(addprefix tests/kernels/test_,ops.py row_ops.py attention_ops.py) \
         $(addprefix tests/cli/test_,app.py streams.py)

# The lower bounds of pyproject.toml as constraints, so that what is declared is what is tested.
.venv-oldest/constraints.txt: pyproject.toml
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	sed -n 's/^ *"\([a-z0-9-]*\)>=\([0-9.]*\)",$$/\1==\2/p' pyproject.toml > $@

.venv-newest/constraints.txt: pyproject.toml
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	touch $@

.venv-%/.installed: .venv-%/constraints.txt CMakeLists.txt $(wildcard csrc/*.* csrc/isa/*)
	.venv-$*/bin/python -m pip install --quiet --upgrade pip
	.venv-$*/bin/python -m pip install --quiet --upgrade --constraint $< --editable ".[test]"
	touch $@

test-oldest test-newest: test-%: .venv-%/.installed
	.venv-$*/bin/python -m pip list | grep -i "^torch\|^numpy"
	.venv-$*/bin/$(PYTEST) $(QUICK) $(PYTEST_ARGS)

# A library that a sanitizer looks on takes long to compile, and lies beside the installed one. Python
# needs the sanitizer's own library first, and that of C++, whose exceptions it looks on.
SANITIZED := build/sanitized
SANITIZER := LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
             ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
             BITGNN_TEST_LIBRARY="$$(ls $(CURDIR)/$(SANITIZED)/_native*.so)"
FUZZ_COUNT ?= 100000
ISAS ?= $(shell grep -q avx512_vnni /proc/cpuinfo && echo avx512vnni) \
        $(shell grep -q avx512bw /proc/cpuinfo && echo avx512) \
        $(shell grep -q avx2 /proc/cpuinfo && echo avx2) portable

$(SANITIZED)/.built: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet nanobind cmake ninja
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake -G Ninja -S . -B $(SANITIZED) -DBITGNN_SANITIZE=ON \
	    -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	    -Dnanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cmake --build $(SANITIZED)
	touch $@

fuzz: $(SANITIZED)/.built
	$(SANITIZER) $(BIN)/python -m tests.fuzz.run --count $(FUZZ_COUNT)

sanitize: $(SANITIZED)/.built
	for isa in $(ISAS); do \
	    echo "== $$isa"; \
	    $(SANITIZER) BITGNN_ISA=$$isa $(BIN)/python -m pytest -s -p tests.library tests/kernels \
	        tests/packed $(PYTEST_ARGS) || exit 1; \
	done

test-arm: $(VENV)/.installed
	BITGNN_EMULATE=1 $(BIN)/python -m pytest tests/csrc $(PYTEST_ARGS)

SOAK_MINUTES ?= 30

soak: $(VENV)/.installed
	$(BIN)/python -m tests.soak.run --minutes $(SOAK_MINUTES)

$(VENV)/.lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet "ruff==0.17.6" "mypy==2.4.1"
	touch $@

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

KILLS ?= 200

kill: $(VENV)/.installed
	$(BIN)/python -m tests.kill --kills $(KILLS) $(KILL_ARGS)

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest demo
