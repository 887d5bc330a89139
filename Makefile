# Each target first creates the environment it needs: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
ENVIRONMENTS := .venv-peers
SITE := docs-out
# One test process for each core, at most eight; PROCESSES=0 runs all tests in one process.
PROCESSES ?= auto
PYTEST = $(BIN)/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 8

# Duration of `make chaos`.
MINUTES ?= 5
# Checks of `make peers`, such as PEERS="trl mds"; all by default.
PEERS ?=

.PHONY: demo test fast slow quick lint style types oldest peers docs bench chaos clean

demo: $(READY)
	$(BIN)/vlmdata demo --out demo-out

# All tests except the slow ones, which .ci/run runs next.
test: $(READY)
	$(PYTEST) -m "not slow"

slow: $(READY)
	$(PYTEST) -m slow

# For frequent use: the linters, and the tests that need no worker process, cluster or training.
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

# The quick tests on the oldest versions that pyproject.toml allows, in a separate environment (7 GB more). The second command tests
# packed attention and a training step with each backend that can train without a GPU (FlexAttention cannot).
oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest --numprocesses $(PROCESSES) --maxprocesses 8 -m "not slow and not whole"
	$(OLDEST)/bin/python -m pytest tests/train/test_packed_attention.py

# Exports are read back by the real libraries, each in an environment of its own under .venv-peers.
peers: $(READY)
	$(BIN)/python -m tests.peers $(PEERS)

# The documentation site, from docs/ and the docstrings; a broken link or reference is an error.
docs: $(READY)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --jobs auto docs $(SITE)
	@echo $(SITE)/index.html

bench: $(READY)
	$(BIN)/python -m bench

chaos: $(READY)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES)

# The environment with all extras and the tools for tests and lint. torch includes its CUDA libraries (4 GB on disk) and also runs
# without a GPU. torchvision comes from the same index, because their builds must match.
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
	rm -rf $(VENV) $(OLDEST) $(ENVIRONMENTS) $(SITE) docs/api demo-out bench-out
