# `make` alone lists the targets.  Each makes .venv first if it is missing or older than the pins.

PYTHON ?=
VENV   ?= .venv
SOCKET ?= /tmp/q.sock
ARGS   ?=

BIN   := $(VENV)/bin
READY := $(VENV)/.ready
PY    := $(BIN)/python

export PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test check bench fuzz iotests docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

$(READY): constraints.txt pyproject.toml tools/bootstrap.sh
	@sh tools/bootstrap.sh $(VENV)
	@touch $@

run: $(READY) ## start the daemon on SOCKET (/tmp/q.sock) over a demo qcow2 disk
	@sh tools/run-demo.sh $(BIN) $(SOCKET)

test: $(READY) ## run all tests; ARGS="-k bitmap tests/unit" to choose
	@sh tools/install-programs.sh
	$(PY) -m pytest -q -rs -n 2 --dist worksteal $(ARGS)

check: $(READY) ## ruff, ruff format --check, mypy --strict, import-linter, our own rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(PY) tools/check_tree.py

bench: $(READY) ## measure against the real programs; ARGS="startup" to choose
	@sh tools/install-programs.sh bench
	$(PY) bench/run.py $(ARGS)

fuzz: $(READY) ## long random run of tests/fuzz and tests/property (a short one is in make test)
	$(PY) -m pytest -q -n 2 --hypothesis-profile=fuzz tests/fuzz tests/property $(ARGS)

iotests: $(READY) ## run QEMU's own tests on our programs; ARGS="-f raw -d 001" or "--check"
	@sh tools/install-programs.sh iotests
	$(PY) tools/iotests/run.py $(ARGS)

docs: $(READY) ## write docs/reference and docs/versions.md from the declarations of commands, events and drivers
	$(PY) tools/write_reference.py docs/reference
	$(PY) tools/write_versions.py

clean: ## remove .venv, caches, the demo disk and what was built
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
