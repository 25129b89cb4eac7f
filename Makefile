# All set-up happens in .venv, by the first target that needs it. Python 3.11 or later and make are enough.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/uv pip install --quiet

.PHONY: demo page pages test unit lint check format wheel lock lowest foreign pythons torture bench clean

.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock uv
	$(PIP) --python $(BIN)/python --constraints requirements.lock --group tools --group tests --editable '.[dev,demo]'
	touch $@

demo: .venv/ready  ## the main job, on a laptop: embedded SQS, worker, real jobs, and what became of them
	PATH="$(CURDIR)/$(BIN):$$PATH" jobrunner dev -- python -m web.demo

page: .venv/ready  ## the demo's web page, with a worker and crons, until Ctrl-C
	PATH="$(CURDIR)/$(BIN):$$PATH" jobrunner dev -- flask --app web.app run --port 8000

test: .venv/ready  ## every test, six at a time: most of them wait
	$(BIN)/pytest -q -n 6 --maxschedchunk 1

unit: .venv/ready  ## the tests that need no server: seconds
	$(BIN)/pytest -q tests/unit

lint: .venv/ready  ## style, types, the order of imports
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	PYTHONPATH=consumer $(BIN)/uv tool run --quiet --python $(BIN)/python --constraints requirements.lock \
		--from import-linter lint-imports --no-logo

check: lint  ## all that a machine can check without running a worker
	$(BIN)/pytest -q -n 4 tests/unit tests/docs

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pages: .venv/ready  ## what the pages have from the code: the log's schema, tables, pictures
	$(BIN)/python docs/make.py

wheel: .venv/ready  ## dist/jobrunner_sqs-*.whl, for an app's requirements
	$(BIN)/python -m build --wheel --installer uv

lock: .venv/ready  ## newest versions of everything, written down
	$(BIN)/uv pip compile --quiet --universal --upgrade --extra dev --extra demo --group tools --group imports --group tests \
		--no-emit-index-url --no-header --no-annotate --output-file requirements.lock pyproject.toml

lowest: .venv/ready  ## unit and contract tests, on moto, with the oldest run-time dependencies that we promise
	$(PYTHON) -m venv --clear .cache/lowest
	$(PIP) --python .cache/lowest --resolution lowest-direct .
	$(PIP) --python .cache/lowest --group unit
	.cache/lowest/bin/python -m pytest -q -n 3 -p no:randomly -k "not ministack and not elasticmq" tests/unit tests/contract

foreign: .venv/ready  ## a large project that is not ours, Wagtail's start template, with its tasks run as shipped
	$(PYTHON) -m venv --clear .cache/foreign
	$(PIP) --python .cache/foreign --group tests --editable '.[demo]' 'wagtail>=8'
	.cache/foreign/bin/python -m pytest -q -s -p no:randomly tests/foreign

pythons: .venv/ready  ## the unit tests on every CPython from 3.11 to 3.14 that is found here
	$(BIN)/python tests/pythons.py $(PYTHONS)

clean:
	rm -rf .venv .cache data dist

bench: .venv/ready  ## jobrunner, bare loops and peers side by side, some minutes
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/figures.py

torture: .venv/ready  ## 5,000 jobs, 100 kills, 200 faults of each kind, on a real ElasticMQ: some minutes
	TORTURE=1 $(BIN)/pytest -q -s tests/acceptance/test_torture.py -k whatever
