# Every target makes the environment it needs first: on a fresh machine `make demo` and `make test` are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
SITE := docs-out
# One process of tests for each core, eight at most; PROCESSES=0 runs them one after the other in one.
PROCESSES ?= auto
PYTEST = $(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 8

# How long make chaos takes.
MINUTES ?= 5

.PHONY: demo test fast slow quick lint style types oldest docs bench chaos clean

demo: $(READY)
	$(BIN)/vlmdata demo --out demo-out

# All tests but the slow ones, which follow in .ci/run.
test: $(READY)
	$(PYTEST) -m "not slow"

slow: $(READY)
	$(PYTEST) -m slow

# The daily loop: what needs no worker process, cluster or training.
fast: style
	$(MAKE) --jobs 2 types quick

quick: $(READY)
	$(PYTEST) -m "not slow and not whole"

types: $(READY)
	$(BIN)/mypy

lint: style types

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The oldest versions that pyproject.toml allows, in an environment of their own (7 GB more): the quick tests, and packed
# attention with a training step by each backend that can step without a GPU (FlexAttention cannot).
oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 8 -m "not slow and not whole"
	$(OLDEST)/bin/python -m pytest tests/train/test_packed_attention.py

# The site of the documentation, from docs/ and the docstrings; a broken link or reference is an error.
docs: $(READY)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs auto docs $(SITE)
	@echo $(SITE)/index.html

bench: $(READY)
	$(BIN)/python -m bench

chaos: $(READY)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES)

# The environment: everything, tests and linters included. torch comes with its CUDA libraries (4 GB on disk) and runs
# without a GPU too; torchvision is taken from the same index, because their builds must match.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,docs,dev]'
	touch $@

$(OLDEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip uv
	$(OLDEST)/bin/uv pip compile --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --extra all \
		--output-file $(OLDEST)/oldest.txt pyproject.toml
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --constraint $(OLDEST)/oldest.txt --editable '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(SITE) docs/api demo-out bench-out
