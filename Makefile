# make search   set everything up and run the main job on the embedded data
# make test     set everything up and pass the checks and tests
# make docs     build the pages and the API reference in docs/_build/html; a warning is an error
# make audit    look for weaknesses in the source (bandit) and in the tested packages (pip-audit)
# make faults   strike searches with every fault, with real processes and disks (an hour)
# make soak     200 trials under random faults, compared with the undisturbed search (half an hour)
# make reproduce, make bench   the published numbers, and the timings beside the peers (long)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# one thread a process: trials run side by side, and results do not depend on the thread count
export OMP_NUM_THREADS ?= 1

.PHONY: setup search test lint docs audit faults soak reproduce bench clean

setup: $(READY)

# a zip archive, an sdist, and a clone with core.symlinks=false have no links in src/metaloom; mypy and pytest read them
FOLDERS := learners search_spaces workers dashboards orchestrator

$(READY): pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Metaloom needs Python 3.11 or newer: make PYTHON=python3.11")'
	for folder in $(FOLDERS); do cd src/metaloom && { test -d $$folder || ln -sf ../../$$folder $$folder; } && cd ../.. || exit 1; done
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

search: $(READY)
	$(BIN)/metaloom search default

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python -m pip install --quiet -e '.[docs]' -c constraints.txt
	rm -rf docs/_api
	$(BIN)/sphinx-build -W --keep-going -q -j 2 -b html docs docs/_build/html

audit: $(READY)
	$(BIN)/python -m pip install --quiet -e '.[audit]' -c constraints.txt
	$(BIN)/python .ci/audit.py

reproduce: $(READY)
	$(BIN)/python -m pytest -m slow tests/reproductions -s -n 0

faults: $(READY)
	$(BIN)/python -m pytest -m faults tests -s -n 0

SEED ?= 0
soak: $(READY)
	PYTHONPATH=. $(BIN)/python -m tests.faults.soak --trials 200 --seed $(SEED)

bench: $(READY)
	$(BIN)/python -m pip install --quiet -e '.[bench]' -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps hypergrad==0.0.1 # it asks for torchvision, which it does not import
	$(BIN)/python -m pip install --quiet --no-deps easyfsl==1.5.0 # likewise
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.search_overhead
	$(BIN)/python -m benchmarks.small_costs
	$(BIN)/python -m benchmarks.transductive_heads
	$(BIN)/python -m benchmarks.shared_stages
	$(BIN)/python -m benchmarks.page_store .bench-store
	$(BIN)/python -m benchmarks.pages_speed --store .bench-store

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache docs/_build docs/_api
