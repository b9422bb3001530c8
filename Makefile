# The commands of the README. Nothing here needs more than Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export DAGSTER_HOME := $(CURDIR)/.dagster
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := true
export NO_MKDOCS_2_WARNING := 1
# Threads that wait without spinning: on a busy machine two threads are otherwise slower than one.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test ui bench docs environment browser format clean

demo: environment
	$(BIN)/python -m attninf_assets.demo

ui: environment
	@$(BIN)/dagster instance concurrency set gpu "$$($(BIN)/python -m attninf_assets.influence.runtime.devices)" > /dev/null
	$(BIN)/dg dev --workspace workspace.yaml --host 127.0.0.1 --port 3000

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

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing the environment into $(VENV): about two minutes, about 2 GB"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/python3")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	mkdir -p $(DAGSTER_HOME)
	ln -sf $(CURDIR)/dagster.yaml $@

clean:
	rm -rf .dagster data .sample
