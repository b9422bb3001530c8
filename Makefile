# The four commands of the README. Nothing here needs more than Python >= 3.11 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export DAGSTER_HOME := $(CURDIR)/.dagster
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := true
# Threads that wait without spinning: on a busy machine two threads are otherwise slower than one.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test ui bench environment format clean

demo: environment
	$(BIN)/python -m attninf_assets.demo

ui: environment
	$(BIN)/dg dev --workspace workspace.yaml --host 127.0.0.1 --port 3000

test: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy attninf_assets attninf_assets_tests benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: environment
	$(BIN)/python -m benchmarks

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
