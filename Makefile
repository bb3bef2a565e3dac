# `make demo` and `make test` need Python 3.11 or newer, pip, venv and make; they set up everything else in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# versions this was tested with; `make CONSTRAINTS= demo` takes the newest instead
CONSTRAINTS ?= constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.PHONY: demo test lint format clean help

help:
	@echo "make demo    the whole chain on handwritten digits: train, search, export, check (about 3 minutes)"
	@echo "make test    format, lint, types, layers and tests"
	@echo "make format  mend what can be mended automatically"
	@echo "make clean   remove .venv and the demo's results"

demo: $(VENV)/.installed
	@rm -rf runs/demo
	$(BIN)/nas demo -o runs/demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) runs/demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}; try make PYTHON=python3.12 …")'
	@echo "setting up $(VENV) (once, some minutes) …"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(wildcard $(CONSTRAINTS)) | $(BIN)/python
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(wildcard $(CONSTRAINTS)) | $(BIN)/python
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(VENV)/.installed $@
