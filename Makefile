.DEFAULT_GOAL := help
.PHONY: help repro test lint lock clean

PYTHON ?= python3
# Each command of the environment starts others by name: dvc starts python, for one.
repro test lint: export PATH := $(CURDIR)/.venv/bin:$(PATH)

help:  ## list these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/bin/python -m pip install --quiet --no-deps --requirement requirements.lock
	touch $@

repro: .venv/installed  ## set up the environment, run every stage that is out of date, name the page
	dvc repro
	@python -m tools.summary reports/metrics.json reports/index.html

test: .venv/installed  ## set up the environment, check style and types, run all tests
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/installed  ## set up the environment, fix style, format the code
	ruff check --fix .
	ruff format .

lock:  ## write requirements.lock anew from pyproject.toml
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.cache/lock/bin/python -m pip install --quiet --group dev .
	.cache/lock/bin/python -m pip freeze --all --exclude pip --exclude ddpm-church | \
		sed -E 's/^((nvidia|cuda)-[^=]*|triton)==.*/& ; sys_platform == "linux"/' > requirements.lock

clean:  ## remove .venv and .cache (downloads and states of training too); data and reports stay
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis dvc_plots
