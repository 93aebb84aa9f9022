# Every target says what it does: `make` lists them.

PYTHON ?= python3
PORT ?= 3000
export DAGSTER_HOME ?= $(CURDIR)/.dagster

BIN := .venv/bin
# The stamp holds the folder of the checkout: the programs in .venv do not survive a move.
ifneq ($(shell cat .venv/installed 2>/dev/null),$(shell pwd -P))
STALE := moved-or-new
endif
PRODUCED := data/raw_data.csv data/ready_data.csv data/ready_data.json data/.*.bcw-tmp \
	results/model.json results/model.pkl results/cross_validation.csv results/cross_validation.json \
	results/metrics.json results/evaluation.png results/MODEL_CARD.md results/.*.bcw-tmp

.PHONY: help install materialize checks dev test fuzz lint lock docs bench resolution coverage clean $(STALE)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

install: .venv/installed  ## make .venv with the locked packages; does nothing when it is up to date

.venv/installed: requirements.lock pyproject.toml $(STALE)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is `"$(PYTHON)" -V 2>&1`; try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv: about 130 packages of requirements.lock (200 MB) from the package index, once"
	@rm -f .venv/installed
	@test -z "$(STALE)" || "$(PYTHON)" -m venv --clear .venv
	@awk '/^uv==/, !/\\$$/' requirements.lock > .venv/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.lock
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --no-build --compile-bytecode requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q bcw_assets
	@touch .env && { grep -v '# by make install$$' .env || true; } > .venv/env && cat .venv/env > .env
	@grep -q '^DAGSTER_HOME=' .env || \
		printf 'DAGSTER_HOME="$${DAGSTER_HOME:-%s/.dagster}"  # by make install\n' "`pwd -P`" >> .env
	@pwd -P > .venv/installed

materialize: install  ## make every asset again, with every check (works without the internet)
	@$(BIN)/bcw refresh

checks: install  ## the latest result of every check; fails if a blocking one did not pass
	@$(BIN)/bcw checks

dev: install  ## the UI at http://localhost:3000, with schedule and queue; PORT=… for another port
	@# Several processes on a fresh history race for making it.
	@test -e "$(DAGSTER_HOME)/history" || $(BIN)/dagster instance migrate >/dev/null 2>&1
	@$(BIN)/dagster dev --host 127.0.0.1 --port $(PORT)

test: install  ## run the tests
	@$(BIN)/pytest

fuzz: install  ## try the reader and the rules on many more tables than make test does (some minutes)
	@FUZZ_EXAMPLES=10000 $(BIN)/pytest bcw_assets_tests/ml/test_table_properties.py bcw_assets_tests/ml/test_rows.py

lint: install  ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy

lock: install  ## choose the newest allowed versions and write requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra dev pyproject.toml --output-file requirements.lock

docs: materialize  ## write the documentation that is made from the code
	@cp results/evaluation.png docs/evaluation.png
	@$(BIN)/python -c 'from bcw_assets.ml import rules; print(rules.document(), end="")' > docs/rules.md

bench: install  ## time the refresh, on S3 too, and bcw predict against bare scripts that do the same, and the rules on a million rows
	@$(BIN)/python bench/refresh.py
	@$(BIN)/python bench/predict.py

resolution: install  ## how many wrong labels the gate sees, on copies of UCI's table (some minutes)
	@$(BIN)/python bench/resolution.py

coverage: install  ## how often the intervals hold the truth, on synthetic tables whose truth is known (some minutes)
	@$(BIN)/python bench/coverage.py

clean:  ## remove what runs produced here and their history; what git tracks and releases stay
	@git clean -fqX -- $(PRODUCED)
	@git clean -ffdqX -- .dagster
