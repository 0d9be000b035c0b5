.DEFAULT_GOAL := help
.PHONY: help install lock run test test-quick test-both check format fuzz mutants generate migrate serve broadcast bench bench-realtime drill audit sbom run-postgres clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUNTIME := $(VENV)/.runtime
MEASURED := $(VENV)/.measured
AUDITED := $(VENV)/audit/.installed
LINTERS := tests/openapi/linters
TESTS := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

help: ## Say what can be made, and how long it takes on two quiet cores
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make the virtual environment with everything, development tools included (about a minute)

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON to one."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(INSTALLED): requirements-dev.lock requirements.lock | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@ $(RUNTIME)

$(MEASURED): requirements-bench.lock $(INSTALLED) | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

# In an environment of their own: what audits the dependencies is not one of them.
$(AUDITED): requirements-audit.lock
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock
	@touch $@

run: $(RUNTIME) ## Start everything on this machine, with a demo organization and its credentials
	@exec $(BIN)/python manage.py up

serve: $(RUNTIME) ## Start the API alone
	@exec $(BIN)/python manage.py serve

broadcast: $(RUNTIME) ## Start the realtime broadcaster alone
	@exec $(BIN)/python manage.py broadcast

migrate: $(RUNTIME) ## Bring the database up to date
	$(BIN)/python manage.py migrate

test: $(INSTALLED) ## Run every test, before committing (about ten minutes); what the engine should not matter for runs on SQLite; CI runs it
	$(TESTS)

test-quick: $(INSTALLED) ## Run the tests without processes, PostgreSQL and browser, while writing (about three minutes)
	$(TESTS) -m "not processes and not postgresql and not browser"

test-both: $(INSTALLED) ## Run every test, and on both engines also what the engine should not matter for (about fifteen minutes); CI does not run it
	$(TESTS) --engines sqlite,postgresql

check: $(INSTALLED) ## Style, types, arrows between the rooms, and drift from the contract (about a minute); CI runs it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python manage.py contract check
	$(BIN)/python -m tests.mutants --check
	@$(MAKE) --no-print-directory lint-documents

lint-documents: $(INSTALLED) ## Have the documents read by Redocly and the AsyncAPI parser (needs npm)
	@command -v npm >/dev/null || { echo "npm is not installed: Redocly and the AsyncAPI parser were not asked."; exit 0; }; \
	cd $(LINTERS) && npm ci --silent --no-audit --no-fund --omit=optional --ignore-scripts && cd - >/dev/null && \
	$(BIN)/python manage.py contract show | node $(LINTERS)/lint.mjs

format: $(INSTALLED) ## Put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(INSTALLED) ## Fuzz the contract for longer, with a new seed each time (about ten minutes)
	FUZZ_EXAMPLES=60 $(BIN)/python -m pytest -q tests/openapi/test_fuzz.py
	$(BIN)/python -m tests.support.fuzz --examples 60 --denied examples,coverage

mutants: $(INSTALLED) ## Plant known faults, one at a time, and see that the tests notice (about forty minutes; MUTANTS="--only REGEX")
	$(BIN)/python -m tests.mutants $(MUTANTS)

browser: $(INSTALLED) ## Install Chromium from Debian's packages if need be, and test the pages in it (about half a minute)
	@command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium
	$(BIN)/python -m pytest tests/realtime/test_browser.py tests/clients/test_browser.py tests/test_live_page.py

bench: $(MEASURED) ## Measure this server beside its peers (about ten minutes; see bench/README.md)
	$(BIN)/python -m bench.run $(BENCH)

bench-realtime: $(INSTALLED) ## Measure the broadcaster beside ws and socket.io (about eight minutes; needs cc, node, npm)
	cd bench/realtime && npm ci --no-audit --no-fund --silent
	$(BIN)/python -m bench.realtime.run $(BENCH)

generate: $(INSTALLED) ## Generate models, operations and missing stubs from the contract
	$(BIN)/python manage.py contract generate

drill: $(INSTALLED) ## Hurt the relay in every way we know, and print the results (about ten minutes)
	$(BIN)/python -m drills

audit: $(AUDITED) ## Look for known flaws in the dependencies; without the index, list their versions
	@$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock || \
	{ echo "pip-audit found something or could not ask; the locked versions:"; grep -oE '^[a-z0-9_.-]+==[^ ;]+' requirements.lock; }

sbom: $(AUDITED) ## Write var/sbom.json: what the relay consists of, as a CycloneDX list
	@mkdir -p -m 700 var
	$(VENV)/audit/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file var/sbom.json

run-postgres: $(INSTALLED) ## The demo on a throw-away PostgreSQL of its own, kept in var/postgres
	@exec $(BIN)/python -m commands.local_postgres

lock: ## Resolve the dependencies again (needs uv)
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements-dev.lock
	uv pip compile pyproject.toml --constraint requirements-dev.lock --universal --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock
	uv pip compile pyproject.toml --group dev --group bench --constraint requirements-dev.lock --universal --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements-bench.lock
	uv pip compile --group audit --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements-audit.lock

clean: ## Remove the virtual environment and all caches; data in var/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
