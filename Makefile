# Two commands do everything on a fresh machine: `make sweep` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: sweep test test-cluster lint types imports tests env clean

sweep: env
	$(BIN)/orchestrate sweep ablations.yaml

test: env lint types imports tests

env: $(VENV)/.made

# Made anew when the pins or the package's needs change.
$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

# Two at a time; those of the command line two files at a time, for each file makes its sweeps once; and one after the other those
# that start a cluster. Each runs whatever came of the others.
tests:
	$(BIN)/pytest -n 2 --ignore tests/integration --ignore tests/cluster; units=$$?; \
	$(BIN)/pytest -n 2 --dist loadfile tests/integration; whole=$$?; \
	$(BIN)/pytest tests/cluster && exit $$((units | whole))

# On hosts that are made on this machine: as root, with Debian's packages (what is missing is said), and half an hour long.
# ONLY='-m lane': the short part that continuous integration runs.
test-cluster: env
	$(BIN)/pytest tests/cloud -rs $(ONLY)

clean:
	rm -rf $(VENV) runs
