# The commands of the README. Nothing here needs more than Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export DAGSTER_HOME ?= $(CURDIR)/.dagster
PORT ?= 3000
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := true
export NO_MKDOCS_2_WARNING := 1
# Threads that wait without spinning: on a busy machine two threads are otherwise slower than one.
export OMP_WAIT_POLICY ?= passive

.PHONY: help demo test ui bench docs environment browser format clean

help:
	@echo "make demo         every asset once, on the sample corpus unless ATTNINF_* say otherwise"
	@echo "make ui           the Dagster UI and daemon on http://127.0.0.1:$(PORT) (PORT=3001 make ui)"
	@echo "make test         linter, types, docs, all tests"
	@echo "make bench        the benchmarks this machine can run"
	@echo "make docs         the documentation as a site, in site/"
	@echo "make environment  dependencies into $(VENV)"
	@echo "make format       lint fixes and formatting"
	@echo "make clean        removes caches; tables and run history stay"

demo: environment
	$(BIN)/python -m attninf_assets.demo

ui: environment
	@$(BIN)/dagster instance concurrency set gpu "$$($(BIN)/python -m attninf_assets.influence.runtime.devices)" > /dev/null
	$(BIN)/python -m attninf_assets.ui --workspace workspace.yaml --host 127.0.0.1 --port $(PORT)

test: export DAGSTER_HOME := $(CURDIR)/.dagster
test: environment browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy attninf_assets attninf_assets_tests benchmarks
	$(BIN)/mkdocs build --strict
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: environment
	$(BIN)/python -m benchmarks

docs: environment
	$(BIN)/mkdocs build --strict

# The browser of the tests that click; they are skipped, and say so, where it cannot be had.
browser:
	@command -v chromium > /dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
	  && apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium > /dev/null; } \
	  || echo "chromium is not installed: the browser test will be skipped"

format: environment
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

environment: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml

$(INSTALLED): pyproject.toml requirements.lock constraints.txt
	@echo "Installing the environment into $(VENV): about two minutes, about 2 GB"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[dev]'
	touch $@

# A DAGSTER_HOME of your own keeps the dagster.yaml it has.
$(DAGSTER_HOME)/dagster.yaml:
	mkdir -p $(DAGSTER_HOME)
	ln -sf $(CURDIR)/dagster.yaml $@

clean:
	rm -rf site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@echo "kept: $(VENV), .sample (the sample model and corpus), data (tables) and $(DAGSTER_HOME) (runs); remove them by hand"
