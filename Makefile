# Every target makes the environment it needs first: on a fresh machine `make demo` and `make test` are all there is to type.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench chaos clean

demo: $(READY)
	$(BIN)/vlmdata demo --out demo-out

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m bench

chaos: $(READY)
	$(BIN)/python -m bench.chaos

# The environment: everything, tests and linters included. torch comes with its CUDA libraries (4 GB on disk) and runs
# without a GPU too; torchvision is taken from the same index, for the two must be builds of one kind.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out bench-out
