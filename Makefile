# Two commands do everything on a fresh Debian or Ubuntu machine: `make demo` and `make test`.
# `make overnight` is the real thing; it needs a CUDA host and ANTHROPIC_API_KEY, and says so when they are missing.

PYTHON      ?= python3
VENV        := .venv
RUN         := $(VENV)/bin/autoresearch
EXPERIMENTS ?=
HOURS       ?=
BUDGET_USD  ?=
TAG         ?=
ARGS        ?=
WORKERS     ?= 2

STARTED     := $(shell cut -d " " -f 1 /proc/uptime)
SETUP_LOG   := .autoresearch/logs/setup.log

# With bytecode, also where the environment forbids it: tests start hundreds of Python processes.
PYTEST       = env -u PYTHONDONTWRITEBYTECODE $(VENV)/bin/pytest -n $(WORKERS) --dist worksteal
# A part of the suite may lie in one of its two halves alone: pytest calls that an error (5).
PART_IS_FINE = $(if $(ARGS),|| [ $$? = 5 ])
# Nights without containers spend their time in git and SQLite: their files are in memory where there is room.
MEMORY      := $(shell df --output=avail -B1G /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 >= 2 {print "/dev/shm"}')
SCRATCH      = scratch=$$(mktemp -d -p "$(or $(MEMORY),$${TMPDIR:-/tmp})" autoresearch-XXXXXX) && trap 'rm -rf "$$scratch"' EXIT

.PHONY: help demo overnight test test-fast test-full check gpu-proof lock engine prepare clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: engine $(VENV)/.installed ## A tour of a few minutes on the CPU, without a key: every verdict once (EXPERIMENTS=2)
	@$(RUN) demo --since $(STARTED) $(if $(TAG),--tag $(TAG)) $(if $(EXPERIMENTS),--experiments $(EXPERIMENTS)) $(ARGS)

overnight: engine $(VENV)/.installed ## A real night (HOURS=8 EXPERIMENTS=1000 BUDGET_USD=20 TAG=night)
	$(RUN) overnight $(if $(TAG),--tag $(TAG)) $(if $(HOURS),--hours $(HOURS)) $(if $(EXPERIMENTS),--experiments $(EXPERIMENTS)) $(if $(BUDGET_USD),--budget-usd $(BUDGET_USD)) $(ARGS)

prepare: engine $(VENV)/.installed ## Base image and data, as far as they are missing
	$(RUN) prepare $(ARGS)

test: test-fast engine ## The test suite, real containers included
	$(RUN) prepare --profile cpu
	$(PYTEST) -m docker $(ARGS) $(PART_IS_FINE)

test-fast: $(VENV)/.installed ## The tests that need no engine: three minutes
	@$(SCRATCH) && $(PYTEST) --basetemp "$$scratch/tests" -m "not docker" $(ARGS) $(PART_IS_FINE)

test-full: engine $(VENV)/.installed ## Every test, ten times the replicates, and every candidate on the real torch
	$(RUN) prepare --profile cpu
	$(PYTEST) --full $(ARGS)

check: $(VENV)/.installed ## Style, types, layers, sizes, locked evaluation
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python .ci/check_sizes.py
	$(VENV)/bin/python -m locked_eval.manifest

gpu-proof: ## What the GPU of this machine does, in ten minutes; needs only Python, NumPy and torch (PYTHON=python3)
	@$(PYTHON) -m bench.gpu_proof $(ARGS)

lock: $(VENV)/.installed ## Lock the evaluation as it is now (a person's decision)
	$(VENV)/bin/python -m locked_eval.manifest --write

engine: ## Make sure that a Docker engine answers
	@images/engine.sh

clean: $(VENV)/.installed ## Remove containers, volumes and candidate images; git and the ledger stay
	$(RUN) clean $(ARGS)

# A fresh Debian has python3 without venv; as root we can install it, else pip's own message says how.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    images/step.sh $(SETUP_LOG) "installing python3-venv and git (about 15 seconds)" sh -c 'apt-get update -qq && apt-get install -y -qq python3-venv git'; \
	  else echo "error: python3 has no venv module" >&2; echo "  → sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@images/step.sh $(SETUP_LOG) "installing the Python packages into $(VENV) (about 40 seconds)" sh -c \
	  '$(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install --disable-pip-version-check --progress-bar off --editable ".[dev]"'
	@touch $@
	@[ "$$(id -u)" != 0 ] || [ -z "$$SUDO_UID" ] || chown -R "$$SUDO_UID:$$SUDO_GID" $(VENV)
