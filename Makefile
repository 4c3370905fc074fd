.DEFAULT_GOAL := help
.PHONY: help repro test lint lock clean distclean in-git

PYTHON ?= python3
# DVC starts python by name. The commands below are named with their path: make 3.81, which macOS has, looks for a
# command in the PATH that it was started with.
repro test lint: export PATH := $(CURDIR)/.venv/bin:$(PATH)

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s%s\n", $$1, $$2 }' Makefile

# Each file has to have a SHA-256 of requirements.lock. pip and setuptools come first, because a package that has to be
# built would otherwise be built with releases that nothing pins.
INSTALL = .venv/bin/python -m pip install --quiet --require-hashes --no-deps

# The tests clone the repository: who has a ZIP or a copy without .git reads so before anything is installed.
in-git:
	@said=$$(git rev-parse --git-dir 2>&1) || { echo "make: the tests need a Git repository here ($$said): clone it," \
		"or run: git init && git add . && git commit -m copy" >&2; exit 1; }

.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	sed -nE '/^(pip|setuptools)==/,/[^\\]$$/p' requirements.lock > .venv/first.txt
	$(INSTALL) --requirement .venv/first.txt
	$(INSTALL) --no-build-isolation --requirement requirements.lock
	touch $@

repro: .venv/installed  ## set up the environment, run every stage that is out of date, name the page
	@.venv/bin/python -m tools.prepare
	.venv/bin/python -m dvc repro
	@.venv/bin/python -m tools.summary reports/metrics.json reports/index.html

test: in-git .venv/installed  ## set up the environment, check style and types, run all tests
	@.venv/bin/python -m tools.prepare
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/installed  ## set up the environment, fix style, format the code
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

lock:  ## write requirements.lock anew from pyproject.toml, for every system and Python from 3.11 on
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet uv
	.cache/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --group dev pyproject.toml --output-file requirements.lock

clean:  ## remove .venv and what tests and linters leave; downloads, states of training, data and reports stay
	rm -rf .venv .cache/lock .pytest_cache .mypy_cache .ruff_cache .hypothesis dvc_plots docs/dvc_plots

# .cache may be a link to another disk.
distclean: clean  ## remove .cache as well: downloads, states of training, images drawn so far
	rm -rf .cache/* .cache
