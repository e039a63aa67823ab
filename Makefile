# The two commands: `make demo` (set up everything, train, fit a photo) and `make test` (set up everything, run the tests).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help demo test test-all lint format laptop paper-step clean

help:
	@echo "make demo    set up, make people, train, fit a photo; about 25 minutes on 2 cores after downloads"
	@echo "make test    set up, run the tests (offline, CPU)"
	@echo "make lint    set up, check style"
	@echo "make format  set up, fix style"
	@echo "make laptop  the full table of experiments/laptop"
	@echo "make clean   remove the environment (outputs/ and the cache stay)"

# Installed once, and again when the project's requirements change.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python train.py model=fitdiff
	$(BIN)/python -m experiments.laptop.demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

laptop: $(STAMP)
	$(BIN)/python train.py model=fitdiff
	$(BIN)/python -m experiments.laptop.table

paper-step: $(STAMP)
	$(BIN)/python -m experiments.paper_step

clean:
	rm -rf $(VENV)
