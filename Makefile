# Every target does all of its own set-up; a fresh machine needs make and a
# Python >= 3.11. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help venv test soak chaos fuzz coverage readme demo lint format types docs bench guard endurance transparency libraries clean

PYTHON ?=
PYTEST_ARGS ?=
BIN := .venv/bin
PIP := python -m pip install --quiet --disable-pip-version-check

# Sets $python to the newest Python >= 3.11 that can make a venv with pip in
# it. Some distributions split ensurepip off: install that part when we may,
# else use virtualenv, else say what is missing. PYTHON=path goes first.
define make_venv
	@set -eu; python=; bare=; \
	has_ensurepip() { "$$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		if has_ensurepip "$$candidate"; then python=$$candidate; break; fi; \
		bare=$${bare:-$$candidate}; \
	done; \
	if [ -z "$$python$$bare" ]; then \
		echo "spawny needs Python 3.11 or newer; none of python3.13, python3.12, python3.11, python3 is one. Point at one with: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	if [ -z "$$python" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "$$bare lacks ensurepip: installing $$(basename "$$bare")-venv"; \
		package=$$(basename "$$bare")-venv; export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get install -y -q "$$package" || { apt-get update -q && apt-get install -y -q "$$package"; }; } >/dev/null 2>&1 || true; \
		if has_ensurepip "$$bare"; then python=$$bare; fi; \
	fi; \
	rm -rf $(1); \
	if [ -n "$$python" ]; then \
		echo "making $(1) with $$($$python --version)"; "$$python" -m venv $(1); \
	elif "$$bare" -m virtualenv --version >/dev/null 2>&1; then \
		"$$bare" -m virtualenv --quiet $(1); \
	elif command -v virtualenv >/dev/null; then \
		virtualenv --quiet --python "$$bare" $(1); \
	else \
		echo "$$bare cannot make a virtual environment: it lacks ensurepip. Install it (Debian, Ubuntu: apt-get install python3-venv) or install virtualenv." >&2; exit 1; \
	fi
endef

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

# The stamps: a venv is made anew only when pyproject.toml has changed.
.venv/.installed: pyproject.toml
	$(call make_venv,.venv)
	$(BIN)/$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/.installed
	$(BIN)/$(PIP) --editable '.[dev]'
	@touch $@

.venv/.docs: .venv/.installed
	$(BIN)/$(PIP) --editable '.[docs]'
	@touch $@

.venv-bench/.installed: pyproject.toml
	$(call make_venv,.venv-bench)
	.venv-bench/bin/$(PIP) --editable '.[bench]'
	@touch $@

venv: .venv/.dev  ## make .venv with spawny and all development tools in it

# A process per core, each with tests that lie together: many have a supervisor in common.
test: .venv/.dev  ## run the tests; PYTEST_ARGS="-k name" selects, "-n 0 --pdb" debugs
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

OPERATIONS ?= 1000000

soak: .venv/.dev  ## a million random operations on arrays that travel; OPERATIONS=n
	$(BIN)/python -m tests.client.soak --operations $(OPERATIONS) $(SOAK_ARGS)

SECONDS ?= 300
SEED ?= $(shell python3 -c 'import time; print(time.time_ns() % 1000000)')

chaos: .venv/.dev  ## deaths, full disks, garbage and more under load; SECONDS=n SEED=n
	$(BIN)/python -m tests.chaos.run --seconds $(SECONDS) --seed $(SEED)

INPUTS ?= 1000000

fuzz: .venv/.dev  ## wrong input on every socket, a million times; INPUTS=n FUZZ_ARGS="--seed n"
	$(BIN)/python -m tests.fuzz.run --inputs $(INPUTS) $(FUZZ_ARGS)

# What decides, and what parses: complete by branch, by its own tests alone.
DECIDED := spawny/control.py,spawny/settings.py,spawny/kernel/link.py,spawny/kernel/wire.py,$\
	spawny/supervisor/core.py,spawny/supervisor/lifecycle.py,spawny/supervisor/policy.py,$\
	spawny/supervisor/starts.py,spawny/supervisor/endings.py,spawny/supervisor/reports.py,$\
	spawny/supervisor/requests.py,spawny/supervisor/listing.py,spawny/supervisor/fleet.py,$\
	spawny/config.py,spawny/supervisor/values.py,spawny/supervisor/configuration.py,$\
	spawny/supervisor/once.py,spawny/supervisor/upgrade.py,spawny/supervisor/explaining.py,$\
	spawny/supervisor/records.py,spawny/supervisor/events.py,spawny/supervisor/actions.py,$\
	spawny/supervisor/limits.py,spawny/supervisor/budget.py,spawny/interpreters/spec.py,spawny/supervisor/warmth.py

coverage: .venv/.dev  ## see that what is decided is tested in every branch
	$(BIN)/python -m coverage run --branch --source spawny -m pytest -q -p no:cacheprovider \
		tests/supervisor/test_core.py tests/supervisor/test_core_properties.py \
		tests/supervisor/test_limits.py tests/supervisor/test_budget.py \
		tests/supervisor/test_drift.py tests/supervisor/test_warmth.py \
		tests/supervisor/test_lifecycle.py tests/supervisor/test_policy.py \
		tests/supervisor/test_upgrade.py tests/supervisor/test_configuration.py \
		tests/test_config.py tests/discovery/test_spec.py tests/supervisor/test_values.py \
		tests/test_control.py tests/test_settings.py \
		tests/kernel/test_link_codec.py tests/kernel/test_wire.py
	$(BIN)/python -m coverage report --include '$(DECIDED)' --fail-under 100 --show-missing

readme: .venv/.dev  ## run every program of the README and the tutorial
	$(BIN)/python -m pytest tests/test_readme.py tests/test_docs.py $(PYTEST_ARGS)

demo: .venv/.installed  ## two scripts, one daemon in another Python: see it work
	$(BIN)/python examples/demo.py

lint: .venv/.dev  ## style and likely bugs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev  ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: .venv/.dev  ## mypy --strict, the kernel excepted
	$(BIN)/mypy

docs: .venv/.docs  ## build docs/_build/html; a warning or a broken internal link is an error
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/python -m sphinx -q -W --keep-going -b linkcheck docs docs/_build/linkcheck

bench: .venv-bench/.installed  ## the benchmarks, beside their peers
	.venv-bench/bin/python benchmarks/run.py

guard: .venv/.dev  ## a minute's look whether spawny has become slow
	$(BIN)/python benchmarks/run.py --quick

KILLS ?= 200
CYCLES ?= 10000
DAEMONS ?= 300

endurance: .venv/.dev  ## what shows after long, or with many; KILLS= CYCLES= DAEMONS=
	$(BIN)/python benchmarks/endurance.py --kills $(KILLS) --cycles $(CYCLES) --daemons $(DAEMONS)

transparency: .venv-bench/.installed  ## CPython's own tests on proxies, beside their peers
	.venv-bench/bin/python -m tests.transparency.scoreboard

LIBRARIES ?=

libraries: .venv/.dev  ## numpy, pandas, scikit-learn, Flask, torch in daemons; needs an index; LIBRARIES="numpy"
	$(BIN)/python -m tests.libraries.run $(LIBRARIES)

clean:  ## remove everything that the other targets made
	rm -rf .venv .venv-bench build dist htmlcov .coverage .coverage.* docs/_build
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
