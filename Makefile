# Longshore's commands. Each one sets up what it needs: system packages, a virtual environment, generated files.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV := .venv
PY := $(VENV)/bin/python
JOBS ?= 2
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadgroup

.PHONY: help demo test test-slow faults check release-contract bench setup protos format clean
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup:  ## system packages and the virtual environment
	@tools/setup.sh

demo: setup  ## build the digits example, deploy it to an agent on this machine, ask it for predictions (KEEP=1 holds it open)
	@$(PY) -m examples.demo $(if $(KEEP),--keep)

test: setup  ## unit, contract, integration and end-to-end tests
	@$(PYTEST) -m "not slow and not faults" $(ARGS)

test-slow: setup  ## the slowest tests (emulated builds, all of Podman 5 and of Podman without root)
	@$(PYTEST) -m slow $(ARGS)

faults: setup  ## long fault runs
	@$(PYTEST) -m faults $(ARGS)

check: setup  ## format, lint, strict types, protos fresh, linted and compatible, import rules
	@tools/check.sh

release-contract: setup  ## at a release: from now on the contract has to stay compatible with what it is now
	@tools/check.sh --release

bench: setup  ## measurements (NAME=deploy_latency runs one)
	@$(PY) -m bench $(NAME)

protos: setup  ## generate the Python code of the contract
	@$(PY) tools/protos.py

format: setup  ## format the code
	@$(VENV)/bin/ruff check --fix-only -q . && $(VENV)/bin/ruff format -q .

clean:  ## remove everything generated here
	rm -rf $(VENV) .tools .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
