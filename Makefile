# `make demo` and `make test` set up everything they need in .venv, from nothing but Python 3.11 or 3.12.

VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit interop bench proto diagrams clean

help:  ## Show what there is.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: $(VENV)/installed  ## Two peers in separate processes share a space, edit it and restart.
	$(RUN) examples/demo/demo.py

test: $(VENV)/installed-dev lint types unit  ## Run every check and every test.

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

types: $(VENV)/installed-dev
	$(VENV)/bin/mypy

unit: $(VENV)/installed-dev
	$(VENV)/bin/pytest

interop:  ## Install the JavaScript client that the live tests talk to (needs Node 20 and npm).
	sh tests/interop/install.sh

bench: $(VENV)/installed-dev  ## Measure ours, and the JavaScript client beside it where it is installed.
	$(RUN) bench/run.py

proto: $(VENV)/installed-dev  ## Write the protobuf modules again from our .proto files.
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh src/dxos/wire/generate.sh

diagrams: $(VENV)/installed  ## Write the diagrams of docs/processes.md again from the tables of the machines.
	$(RUN) -m dxos.testing.diagrams docs/processes.md

clean:  ## Remove what the targets above made.
	rm -rf $(VENV) demo-data build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A Python of the right version may have any of these names, and a name may be a shim for none.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.12 python3.11 python3 python; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$("$$python" --version)"; exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "dxos needs Python 3.11 or 3.12 (its CRDT library has no wheels for others); install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed
