# The words of this project, the same at a desk and in CI. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help venv run phone test quick lint types imports check contracts lock test-compose test-interop conformance security clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MEMBERS := shared cli services/gateway services/sip-ua services/media services/asr services/tts services/webhook-dispatcher
# What `make test` runs; T names less of it: make test T=tests/e2e/test_rest.py, T=services/media/tests/test_dtmf.py::test_…
TESTS = $(wildcard shared/tests cli/tests services/*/tests tests/unit tests/contract tests/e2e)
# Most tests wait for a clock or a neighbour most of the time; with more workers those that compute get in their way.
WORKERS ?= 4
INTEROP = $(wildcard tests/interop)
SOURCES = $(wildcard shared cli services tests examples scripts)

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

venv: $(READY)  ## Make or refresh the environment in .venv (PYTHON=python3.12 chooses the interpreter)

$(READY): requirements-build.lock requirements-dev.lock pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS))
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: dialbus needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing into $(VENV) (about 850 MB on disk)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@touch $(READY)

run: $(READY)  ## Start everything on this machine (ARGS="--handler http://127.0.0.1:8090/webhook")
	@exec $(BIN)/dialbus run $(ARGS)

phone: $(READY)  ## Call it: make phone ARGS="sip:4000@127.0.0.1:13050 --say caller.wav"
	@exec $(BIN)/dialbus phone $(ARGS)

test: $(READY)  ## Unit, property, contract and end-to-end tests (T=one/file.py or one/file.py::test_name)
	$(BIN)/python -m pytest $(if $(T),"$(T)",-n $(WORKERS) -m "not interop and not compose" $(TESTS)) $(ARGS)

quick: $(READY)  ## The tests of the cores alone: no bus, no processes, no models
	$(BIN)/python -m pytest -n 2 -m "not model" $(wildcard shared/tests services/*/tests) $(ARGS)

lint: $(READY)  ## ruff
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: $(READY)  ## mypy --strict, over the tests too
	$(BIN)/mypy
	scripts/type_tests.sh $(BIN)/mypy

imports: $(READY)  ## The import rules
	$(BIN)/lint-imports

check: lint types imports  ## lint, types, imports

contracts: $(READY)  ## Write docs/schemas, docs/subjects.md, docs/machines and the AsyncAPI documents anew
	$(BIN)/python scripts/contracts.py
	$(BIN)/python scripts/machines.py

lock: $(READY)  ## Write all lock files anew (ARGS=--upgrade takes newer versions)
	scripts/lock.sh $(BIN)/uv $(ARGS)

test-compose:  ## Build and start the containers, scaled, and call them (needs a Docker Engine)
	tests/compose/smoke.sh

test-interop: $(READY)  ## Against sipp, baresip, coturn, chromium (need to be installed) and the Go SDK
	$(if $(INTEROP),$(BIN)/python -m pytest -n 2 -m interop $(INTEROP) $(ARGS),@echo "no tests/interop here" >&2; exit 1)

security: $(READY)  ## Attacks on a running ensemble, as strangers, web pages and peers would make them
	$(BIN)/python -m pytest -n 3 tests/security $(ARGS)

conformance: $(READY)  ## Every item of tests/conformance/table.tsv on the real ensemble; writes docs/conformance.md
	$(BIN)/python -m pytest -n 3 tests/conformance $(ARGS)

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
