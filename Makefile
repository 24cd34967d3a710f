# `make setup`, `make demo` and `make test` need only make and Python >= 3.11 (uv is used where it is installed).
# `make check` is the whole gate; .ci/run runs exactly that.

PY := .venv/bin/python
# Folders without a Python file yet are not an error.
TYPED = $(foreach dir,streams detectors actions console sdk/unship tests benchmarks examples deploy,\
	$(if $(shell find $(dir) -name '*.py' 2>/dev/null),$(dir)))
# The steps of the gate, in order; each is a target of its own.
CHECKS := setup lock-check lint types contracts sizes structure words tools test-all wheels readme

# Where `make kafka` listens, and how many brokers it starts.
KAFKA_PORT ?= 9092
BROKERS ?= 1

# How many processes run tests: one more than there are processors, since many tests wait for brokers and processes.
TESTERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PACKAGES := sdk/unship detectors actions streams console

# The benchmarks that exist, those on Kafka (which start a broker) last, and their options.
BENCHMARKS ?= $(foreach name,start e_detector release replay fold window audit predicted live scale kafka_latency,\
	$(if $(wildcard benchmarks/$(name).py),$(name)))
BENCH_ARGS ?= --quick

.PHONY: help setup demo demo-all kafka tools test test-all soak simulate faults check lint format types contracts sizes structure ratchet words lock lock-check wheels readme bench clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || grep '##' Makefile

setup:  ## .venv with both distributions, everything the tests need, and the command .venv/bin/unship
	@PYTHON='$(PYTHON)' sh .ci/setup.sh

demo: setup  ## the main job on real data, in your terminal
	@.venv/bin/unship demo

demo-all: setup  ## every scenario of the demo on seeds 1 to 5, as processes, and whether each ended as named
	@$(PY) -m tests.demos $(DEMO_ARGS)

kafka: setup  ## a real Kafka on 127.0.0.1 until Ctrl-C; KAFKA_PORT=9092 BROKERS=1, or 3
	@PYTHONPATH=.:sdk $(PY) -m tests.kafka --port $(KAFKA_PORT) --brokers $(BROKERS)

tools: setup  ## Java, Maven and kcat for the tests that need a real Kafka (apt-get), and Kafka itself (Maven)
	@sh .ci/tools.sh

test: setup  ## the tests of every change, in a few minutes: the folders of `testpaths` in pyproject.toml
	@$(PY) -m pytest -n $(TESTERS) --dist worksteal $(PYTEST_ARGS)

test-all: setup  ## all tests: also worlds, kills, demos, simulation and a broken Kafka; UNSHIP_EFFORT=1 draws more seeds
	@UNSHIP_TESTS=all $(PY) -m pytest -n $(TESTERS) --dist worksteal tests $(PACKAGES) $(PYTEST_ARGS)

soak: setup  ## 3 million honest requests through the embedded monitor, and what they took: PREDICTIONS=N for more or fewer
	@PYTHONPATH=.:sdk $(PY) -m tests.soak.honest --predictions $(or $(PREDICTIONS),3000000)

simulate: setup  ## 20,000 seeds of readers that die, come back and overlap (SEEDS=N for more or fewer)
	@UNSHIP_SIMULATION_SEEDS=$(or $(SEEDS),20000) $(PY) -m pytest -q -n auto tests/simulation

faults: setup  ## faults on three real brokers, one after another, then a soak: MINUTES=60 SEED=N, or FAULTS_ARGS='rows 9 13'
	@PYTHONPATH=.:sdk $(PY) -m tests.faults $(or $(FAULTS_ARGS),all --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)))

check:  ## everything the gate runs: lint, types, contracts, all tests, wheels, README
	@MAKE='$(MAKE)' sh .ci/step.sh $(CHECKS)

lint: setup  ## ruff: rules and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup  ## let ruff mend and format the tree
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: setup  ## mypy, strict for the packages
	@$(PY) -m mypy $(TYPED)
	@$(PY) -m mypy $(wildcard .ci/*.py)

contracts: setup  ## who may import what
	@$(PY) .ci/contracts.py

sizes: setup  ## lines per module and function, modules per folder, attributes per class, names of folders
	@$(PY) .ci/sizes.py

structure: setup  ## no circle of imports, folders in their order, no class changed from outside its module
	@$(PY) .ci/structure.py

ratchet: setup  ## write .ci/ratchet.txt again after an exception shrank, went or moved; no kind may grow
	@$(PY) .ci/ratchet_write.py

words: setup  ## words, metaphors and addresses that do not belong in the repository
	@$(PY) .ci/words.py

lock:  ## resolve requirements.lock again (needs uv); LOCK_ARGS=--upgrade for newer versions
	@sh .ci/lock.sh requirements.lock $(LOCK_ARGS)

lock-check: setup  ## requirements.lock holds what both pyproject.toml files ask for
	@$(PY) .ci/lock_check.py

wheels: setup  ## both wheels, built and installed in clean environments
	@$(PY) .ci/wheels.py

readme: setup  ## the README's commands, in a fresh copy
	@$(PY) .ci/readme.py

bench: setup  ## benchmarks, small, into build/benchmarks; or BENCH_ARGS=--markdown BENCHMARKS="replay audit"
	@for name in $(BENCHMARKS); do echo "== $$name"; \
		$(PY) benchmarks/$$name.py $(BENCH_ARGS) --json build/benchmarks/$$name.json --plot build/benchmarks/$$name.svg \
		|| exit 1; done

clean:  ## remove the environment and the caches of the tools
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
