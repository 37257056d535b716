# make demo   a real comparison, end to end, in minutes
# make test   the tests
# make lint   ruff and mypy
# make test-scatter   the tests of layers, and of what samples neighbors, with torch-scatter and
#                     torch-sparse (compiles them)
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

.PHONY: demo test test-scatter test-arm lint clean
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

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

SAMPLING := tests/nn $(addprefix tests/training/test_,batches.py checkpoint.py) \
            tests/cli/test_train_distributed.py tests/test_examples.py tests/test_sharded.py

$(VENV)/.scatter: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet setuptools wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation torch-scatter torch-sparse
	touch $@

test-scatter: $(VENV)/.scatter
	$(BIN)/python -c "import torch_scatter, torch_sparse"
	$(BIN)/python -m pytest $(SAMPLING) $(PYTEST_ARGS)

test-arm: $(VENV)/.installed
	BITGNN_EMULATE=1 $(BIN)/python -m pytest tests/csrc $(PYTEST_ARGS)

$(VENV)/.lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet "ruff==0.17.6" "mypy==2.4.1"
	touch $@

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo
