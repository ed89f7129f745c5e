# make demo        install, then harden a digits classifier end to end into runs/demo
# make test        install with the development tools, then all tests but the longest
# make test-all    all tests: what CI runs
# make test-quick  those that are not marked slow: the inner loop, under 2 minutes
# make crosscheck  install other libraries beside them, and compare the attacks with theirs
# make faults      injects the faults of docs/reliability.md: about 40 minutes on 2 cores
# make lint        ruff (rules and format) and pyright
# make install     only the virtual environment, for `.venv/bin/bcgan-tf`
#
# PYTHON=... chooses the interpreter, VENV=... the virtual environment, ARGS=... goes to pytest,
# JOBS=... processes run the tests (0: one, as ARGS=--pdb needs it).

VENV ?= .venv
# Most tests trace graphs, in one thread. A process of TensorFlow takes 2 to 3 GB: no more than two.
JOBS ?= $(shell test "$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)" -gt 1 && echo 2 || echo 0)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first Python 3.11 to 3.13 that really runs and can make a virtual environment: a name on the
# PATH proves neither (pyenv leaves shims that fail, Debian packages venv apart).
CANDIDATES = python3.11 python3.12 python3.13 python3 python $(wildcard $(HOME)/.pyenv/versions/3.1[123]*/bin/python3)
USABLE = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c '$(USABLE)' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

METADATA := pyproject.toml setup.cfg setup.py constraints.txt

.PHONY: demo test test-all test-quick crosscheck faults lint format install install-dev clean

demo: install
	rm -rf runs/demo
	$(BIN)/bcgan-tf run --dataset digits --preset quick --run-dir runs/demo --saved-models runs/demo/saved_models

test: install-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m 'not long' $(ARGS)

test-all: install-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

test-quick: install-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile -m 'not slow and not real_data' $(ARGS)

crosscheck: $(VENV)/.installed-crosscheck
	$(BIN)/pytest -n $(JOBS) --dist loadfile tests/crosscheck $(ARGS)

faults: install-dev
	$(BIN)/python -m benchmarks.faults $(ARGS)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: $(METADATA) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(METADATA) | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[dev,ray]'
	touch $(VENV)/.installed $@

# torchattacks asks for torchvision and an old requests, and imports neither.
$(VENV)/.installed-crosscheck: $(METADATA) $(VENV)/.installed-dev
	$(PIP) install --quiet -c constraints.txt -e '.[dev,ray,crosscheck]'
	$(PIP) install --quiet --no-deps -c constraints.txt torchattacks
	touch $(VENV)/.installed $(VENV)/.installed-dev $@

$(BIN)/python:
	@python='$(PYTHON)'; test -n "$$python" || { echo "no Python 3.11 to 3.13 with venv found; install one or set PYTHON=" >&2; exit 1; }; \
	echo "making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
