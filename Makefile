# `make demo` and `make test` need Python 3.11 or newer, pip, venv and make; they set up everything else in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# versions this was tested with; `make CONSTRAINTS= demo` takes the newest instead
CONSTRAINTS ?= constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

# Debian's headless browser, which the tests of the pages drive; another one by make CHROMIUM=/path/to/chromium
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: browser demo test lint format clean help

help:
	@echo "make demo    the whole chain on handwritten digits: train, search, export, check (about 3 minutes)"
	@echo "make test    format, lint, types, layers and tests"
	@echo "make format  mend what can be mended automatically"
	@echo "make clean   remove .venv and the demo's results"

demo: $(VENV)/.installed
	@rm -rf runs/demo
	$(BIN)/nas demo -o runs/demo

test: lint browser
	$(BIN)/python -m pytest

# A missing browser is installed where that needs no password; else the tests of the pages skip, and fail under CI.
browser:
	@[ -n "$(CHROMIUM)" ] || { echo "installing chromium, for the tests of the pages"; \
	  if [ "$$(id -u)" = 0 ]; then sudo=; else sudo="sudo -n"; fi; \
	  $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || { \
	  echo "no chromium was found or installed: sudo apt-get install chromium, or make CHROMIUM=PATH test" >&2; \
	  [ -z "$$CI" ]; }

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
