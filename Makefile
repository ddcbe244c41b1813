PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: launch test faults lint bench ci

launch: $(READY)
	$(BIN)/ris-verified launch --preset quick --out runs/quick

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist worksteal

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist worksteal -m every

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/localisation.py
	$(BIN)/python benchmarks/spectra.py
	$(BIN)/python benchmarks/covariance.py
	$(BIN)/python benchmarks/ablation.py
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/small_model.py
	$(BIN)/python benchmarks/literal_step.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/study.py

ci: test lint
	$(BIN)/ris-verified audit --profile quick

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
