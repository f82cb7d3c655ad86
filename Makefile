# `make demo` and `make test` each do all of their own set-up: a virtual environment in .venv, from pinned versions.
# PYTHON names another interpreter (3.11 or newer); ARGS is passed on, e.g. `make demo ARGS=--once`.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
BENCHMARKS := $(filter-out __init__ report,$(basename $(notdir $(wildcard benchmarks/*.py))))

USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c '$(USABLE)' 2>/dev/null && echo $(name))))

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test check lint types contracts migrations format bench constraints clean

demo: $(VENV)/.run
	@$(BIN)/barprop demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: lint types contracts migrations

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

migrations: $(VENV)/.dev
	$(BIN)/python -m pytest --quiet tests/store/test_migrations.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench
	@set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name $(ARGS); done

# Pins the newest versions that satisfy pyproject.toml.
PINNED := import json, sys; \
	pins = {i["metadata"]["name"].lower(): i["metadata"]["version"].split("+")[0] for i in json.load(sys.stdin)["install"]}; \
	sys.stdout.writelines(f"{name}=={pins[name]}\n" for name in sorted(pins) if name != "barprop")
constraints: $(BIN)/python
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report - '.[dev,bench,ci,frameworks,otel]' \
		| $(BIN)/python -c '$(PINNED)' > constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info

# One stamp for each set of packages; a set is installed again when what it is made from has changed.
$(VENV)/.run: EXTRAS :=
$(VENV)/.dev: EXTRAS := [dev]
$(VENV)/.ci: EXTRAS := [dev,ci]
$(VENV)/.bench: EXTRAS := [bench]
$(VENV)/.run $(VENV)/.dev $(VENV)/.ci $(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing barprop$(EXTRAS) into $(VENV): a minute or two, once"
	@$(PIP_INSTALL) '.$(EXTRAS)'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Barprop needs Python 3.11 or newer with venv (Debian: apt install python3-venv); \
	name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c '$(USABLE)' || { echo "$(PYTHON) is not a Python 3.11 or newer with venv" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear $(VENV)
