# Everything a fresh machine needs: `make demo` and `make test` build .venv in this checkout first.
# The second run reuses it; a change of pyproject.toml updates it.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Installed before, and without, the other packages: its CPU build may live in an index of its own.
TORCH := torch==2.13.0

DEMO := signmask compare fashion-silu --steps 20 --images 8 --batch 2 --out build/demo
WORKERS ?= 2
PROGRAMS ?= 500
TESTS ?= not slow

# Two busy OpenMP pools on two cores spend their time waiting for each other.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help demo test verify fuzz bugs lint clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## set up, then run the bundled model on the simulated accelerator
	$(BIN)/$(DEMO)

test: $(VENV)/.test ## set up, then lint, type check and test; the RTL included
	@status=0; \
	$(MAKE) --no-print-directory lint || status=1; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope -m '$(TESTS)' || status=1; \
	exit $$status

verify: ## the same with every configuration of every unit, which takes hours of compilation
	$(MAKE) test TESTS=

fuzz: $(VENV)/.test ## 500 random programs: RTL against simulator against golden model
	$(BIN)/python -m tests.fuzz --programs $(PROGRAMS)

bugs: $(VENV)/.test ## plant a bug in each of a dozen RTL files; a named test catches it
	$(BIN)/python -m tests.hw.planted_bugs

lint: $(VENV)/.test ## ruff and mypy
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; \
	exit $$status

clean: ## remove what the other targets made, .venv included
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --editable '.[torch,report]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@.ci/require g++ make perl
	@.ci/require --optional dataset-fashion-mnist
	@.ci/require --optional ccache liblz4-dev zlib1g-dev
	@.ci/require --optional yosys opensta qflow-tech-osu018 qflow-tech-osu035
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --editable '.[torch,report,gpu,hw,test,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/bin/python:
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or newer on PATH; install one, or name it: make PYTHON=/path/to/python3.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/require python3-venv
	$(PYTHON) -m venv $(VENV)
