# Two commands set up a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
ROOM ?= all
# Processes that run tests side by side. On two processors a third gains nothing. 0: no others.
JOBS ?= 2
# Where containers forbid bytecode files, each process of the stack and of the tests would compile the project anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast bench lint format clean
.DEFAULT_GOAL := demo

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "beamline-ml needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --no-input -c constraints.txt -e '.[beamline]'
	touch $@

$(VENV)/.dev-ready: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --no-input -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.run-ready

demo: $(VENV)/.run-ready ## run the whole chain on a simulated beamline
	$(BIN)/beamline-ml demo $(DEMO_ARGS)

# One thread in each process: OpenMP's threads burn time waiting where others have the processors.
test: $(VENV)/.dev-ready ## everything that needs no GPU and no outside service
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(TEST_ARGS)

test-fast: $(VENV)/.dev-ready ## without the tests that bring up services or train for long
	$(BIN)/python -m pytest -m 'not slow' $(TEST_ARGS)

bench: $(VENV)/.dev-ready ## measure; ROOM=correlation|dynamics|phonons|guidance|service
	$(BIN)/python -m tests.benchmarks $(ROOM)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
