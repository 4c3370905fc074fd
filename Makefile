.DEFAULT_GOAL := help
.PHONY: help repro test lint clean

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --upgrade "pip>=25"
	python -m pip install --quiet --no-deps --requirement requirements.lock
	touch $@

repro: .venv/installed  ## set up, then run every stage that is out of date; the page is reports/index.html
	dvc repro

test: .venv/installed  ## set up, then run linters, type checker and all tests
	ruff check .
	ruff format --check .
	mypy
	python -m pytest

lint: .venv/installed  ## format and mend what can be mended
	ruff check --fix .
	ruff format .

clean:  ## remove the environment, caches and working state; data and reports stay
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis dvc_plots
