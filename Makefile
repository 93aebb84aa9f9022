# Every target says what it does: `make` lists them.

PYTHON ?= python3
PORT ?= 3000
export DAGSTER_HOME ?= $(CURDIR)/.dagster

BIN := .venv/bin
# The stamp holds the folder of the checkout: the programs in .venv do not survive a move.
ifneq ($(shell cat .venv/installed 2>/dev/null),$(shell pwd -P))
STALE := moved-or-new
endif
PRODUCED := data/raw_data.csv data/ready_data.csv data/ready_data.json data/*_data.parquet data/.*.bcw-tmp \
	results/model.json results/model.pkl results/cross_validation.csv results/cross_validation.json \
	results/cross_validation.parquet \
	results/metrics.json results/evaluation.png results/MODEL_CARD.md results/.*.bcw-tmp

# Plain `docker compose` needs the same: export COMPOSE_ENV_FILES=deploy/stack.env
STACK := COMPOSE_ENV_FILES=deploy/stack.env docker compose
ASK := "$(PYTHON)" deploy/stack.py
BACKUP ?= backups/$(shell date -u +%Y-%m-%dT%H-%M-%SZ)

.PHONY: help install materialize checks notify-test dev test test-all test-stack test-k8s e2e show fuzz lint lock docs screenshots bench resolution coverage clean $(STALE) \
	docker up down run pause unpause reload bash python logs ps image backup restore upgrade

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

install: .venv/installed  ## make .venv with the locked packages; does nothing when it is up to date

.venv/installed: requirements.lock pyproject.toml $(STALE)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is `"$(PYTHON)" -V 2>&1`; try make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv: about 180 packages of requirements.lock from the package index, once (2 GB on the disk)"
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

notify-test:  ## send a test message to everybody in BCW_NOTIFY_URLS: the stack's, if there is one, or those of .env
	@if test -e deploy/stack.env; then $(MAKE) --no-print-directory docker && $(STACK) exec -T code bcw notify-test; \
		else $(MAKE) --no-print-directory install && $(BIN)/bcw notify-test; fi

dev: install  ## the UI at http://localhost:3000, with schedule and queue; PORT=… for another port
	@$(BIN)/bcw dev --port $(PORT)

test: install  ## run the tests, one of each class of kill, fault and attack
	@$(BIN)/pytest

test-all: install  ## run the sweeps over every kill, fault and attack, too
	@$(BIN)/pytest -m 'not stack and not k8s and not e2e'

test-stack: install  ## start the whole stack and attack it, with whatever DOCKER_HOST names (twenty minutes)
	@$(BIN)/pytest -n 0 -m stack -s bcw_assets_tests/stack

test-k8s: install  ## install deploy/kubernetes/example in the cluster that KUBECONFIG names, and break it (a quarter of an hour)
	@$(BIN)/pytest -n 0 -m k8s -s bcw_assets_tests/k8s

e2e: install  ## try the page of a release in chromium, which must be installed (a minute)
	@! command -v npm > /dev/null || npm install --silent --no-save --prefix .venv/axe axe-core@4.14.1
	@$(BIN)/pytest -n 0 -m e2e bcw_assets_tests/e2e

show: install  ## open the page of the release that is the champion in the browser
	@report=`$(BIN)/bcw releases show --json` && printf %s "$$report" | $(BIN)/python -c 'import json, pathlib, sys, webbrowser; \
		page = json.load(sys.stdin)["page"]; print(page or "This release has no page; the next one that is made has"); \
		page and "://" not in page and webbrowser.open(pathlib.Path(page).as_uri())'

fuzz: install  ## try the reader and the rules on many more tables than make test does (some minutes)
	@FUZZ_EXAMPLES=10000 $(BIN)/pytest bcw_assets_tests/ml/table/test_properties.py bcw_assets_tests/ml/table/test_reading.py

lint: install  ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@! test -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

lock: install  ## choose the newest allowed versions and write requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--extra dev pyproject.toml --output-file requirements.lock

docs: materialize  ## write the documentation that is made from the code
	@cp results/evaluation.png docs/evaluation.png
	@$(BIN)/python -c 'import jinja2, sys; from bcw_assets.ml.table import rules; \
		print(jinja2.Template(sys.stdin.read(), trim_blocks=True).render(rules=rules), end="")' < docs/rules.md.j2 > docs/rules.md

screenshots: install  ## take the pictures of docs/pictures anew, with chromium, which must be installed (a minute)
	@$(BIN)/python docs/screenshots.py

bench: install  ## time the refresh, on S3 too, bcw predict, a folder of files, model.sql, and the refresh of more and more rows, beside bare scripts
	@$(BIN)/python bench/refresh.py
	@$(BIN)/python bench/predict.py
	@$(BIN)/python bench/folder.py
	@$(BIN)/python bench/sql.py
	@$(BIN)/python bench/rows.py

resolution: install  ## how many wrong labels the gate sees, on copies of UCI's table (some minutes)
	@$(BIN)/python bench/resolution.py

coverage: install  ## how often the intervals hold the truth, on synthetic tables whose truth is known (ten minutes)
	@$(BIN)/python bench/coverage.py

clean:  ## remove what runs produced here and their history, and the stack with its data; asks first, or FORCE=1
	@echo "This removes what runs produced in data/ and results/, and the history in .dagster/"
	@! test -e deploy/stack.env || echo "and the stack of docker-compose.yml: its containers, its history, and its bucket with all releases in it"
	@echo "What git tracks, releases/ and backups/ stay"
	@test -n "$(FORCE)" || { test -t 0 && printf 'Go on? [y/N] ' && read answer && test "$$answer" = y; } || \
		{ echo "Nothing was removed. Without a terminal: make clean FORCE=1"; exit 1; }
	@! test -e deploy/stack.env || { $(MAKE) --no-print-directory docker && $(STACK) --profile '*' down --volumes && rm deploy/stack.env; }
	@git clean -fqX -- $(PRODUCED)
	@git clean -ffdqX -- .dagster

docker:
	@command -v docker > /dev/null || { echo "There is no program docker here; install Docker Engine with Compose v2: https://docs.docker.com/engine/install"; exit 1; }
	@docker compose version > /dev/null 2>&1 || { echo "This docker has no Compose v2 (docker compose); install it: https://docs.docker.com/compose/install"; exit 1; }
	@why=`docker version 2>&1 > /dev/null` || { echo "Docker's daemon cannot be used; start it (sudo systemctl start docker), or get into its group. It says:" $$why; exit 1; }

deploy/stack.env:
	@echo "No stack was started here, for $@ is missing; start one: make up"; exit 1

down run pause unpause reload bash python logs ps backup restore upgrade: | deploy/stack.env
up down run pause unpause reload bash python logs ps image backup restore upgrade test-stack: | docker

up:  ## start the stack of docker-compose.yml, or apply what was changed in deploy/stack.env
	@$(ASK) settings
	@$(STACK) up --detach --wait --wait-timeout 300 --remove-orphans
	@$(ASK) address

down:  ## stop the stack; its data stays
	@$(STACK) --profile '*' down

run:  ## start the refresh in the stack, and follow it to its end
	@$(ASK) run

pause:  ## stop the stack's schedules and sensors
	@$(ASK) pause

unpause:  ## start them
	@$(ASK) unpause

reload:  ## load the code of the stack again
	@$(ASK) reload

bash:  ## a shell in the container of the code
	@$(STACK) exec code bash

python:  ## Python in the container of the code
	@$(STACK) exec code python

logs:  ## what the containers say, and go on saying
	@$(STACK) logs --follow --tail 100

ps:  ## which containers are up, and healthy
	@$(STACK) ps --all

image:  ## build the image of the stack
	@$(ASK) settings
	@$(STACK) build

backup:  ## save the stack's history and bucket in the new folder BACKUP=backups/TIME
	@mkdir -p "`dirname "$(BACKUP)"`" && mkdir -m 700 "$(BACKUP)"
	@$(STACK) exec -T postgres sh -c 'PGPASSWORD=$$POSTGRES_PASSWORD pg_dump --username dagster --format custom dagster' > "$(BACKUP)/history.dump"
	@$(STACK) exec -T code python bucket.py save > "$(BACKUP)/unfinished.tar"
	@mv "$(BACKUP)/unfinished.tar" "$(BACKUP)/bucket.tar"
	@echo "Saved history and bucket in $(BACKUP); to get them back: make restore BACKUP=$(BACKUP)"

# The history is replaced as a whole or not at all. What writes to it is stopped meanwhile, and starts again in any case.
restore:  ## replace the stack's history and bucket by those of the folder BACKUP
	@test -s "$(BACKUP)/history.dump" && tar -tf "$(BACKUP)/bucket.tar" > /dev/null || \
		{ echo "$(BACKUP) holds no whole history.dump and bucket.tar; name the folder of a backup: make restore BACKUP=backups/TIME"; exit 1; }
	@$(STACK) stop code webserver daemon exporter
	@$(STACK) exec -T postgres sh -c 'PGPASSWORD=$$POSTGRES_PASSWORD pg_restore --username dagster --dbname dagster --clean --if-exists --single-transaction' < "$(BACKUP)/history.dump" && \
		$(STACK) run --rm --no-deps -T code python bucket.py load < "$(BACKUP)/bucket.tar"; done=$$?; \
		$(STACK) up --detach --wait --wait-timeout 300 --force-recreate migrate code webserver daemon exporter proxy && exit $$done

upgrade: backup image  ## save all, build the image anew, bring the history up to date, and start the stack again
	@$(MAKE) --no-print-directory up
