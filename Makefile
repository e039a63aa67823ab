# The two commands: `make demo` (set up everything, train, fit a photo) and `make test` (set up everything, run the tests).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: help demo test lint format laptop people paper-step bench-render bench-train bench-fit bench-realy bench-now sweep report dashboard docs clean

help:
	@echo "make demo    set up, make people, train, fit a photo; about 25 minutes on 2 cores after downloads"
	@echo "make test    set up, run the tests (offline, CPU)"
	@echo "make lint    set up, check style"
	@echo "make format  set up, fix style"
	@echo "make laptop  the full table of experiments/laptop"
	@echo "make people  measure the synthetic people (experiments/people)"
	@echo "make bench-render  time all renderers that are installed, side by side"
	@echo "make bench-train  time training beside other projects' networks"
	@echo "make bench-fit   time a fit and its parts, beside what their arithmetic demands"
	@echo "make bench-realy, bench-now  seconds of the two scan benchmarks, by step"
	@echo "make sweep FILE=sweeps/lambda.yaml  run a W&B sweep file here, without a server; the same command resumes"
	@echo "make report RUNS='outputs/*'  one HTML page about any runs"
	@echo "make dashboard  trackio's page of the runs that tracker=trackio has shown"
	@echo "make docs    build the documentation into site/"
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

people: $(STAMP)
	$(BIN)/python -m experiments.people.measure
	$(BIN)/python -m fitdiff.data.people n=50 views=1 bench=true

# One optimisation step of each network of scale=paper at batch 1, all loss terms, recognition network with random
# weights (the real ones need a download). About 9 minutes on 2 cores (autoencoder 218 s, diffusion 162 s, measured).
paper-step: $(STAMP)
	$(BIN)/python train.py scale=paper name=paper-step tracker=none identity.weights=random \
	  perceptual=efficientnet_lite0 renderer=torch data.n=2 data.held_out=1 data.shard_size=1 \
	  autoencoder.checkpoint_activations=true trainer.mixed_precision=no trainer.loader_workers=0 \
	  stage.autoencoder.batch_size=1 stage.autoencoder.epochs=null stage.autoencoder.steps=1 \
	  stage.autoencoder.discriminator_start=0 stage.autoencoder.preview_samples=1 \
	  stage.diffusion.batch_size=1 stage.diffusion.epochs=null stage.diffusion.steps=1 stage.diffusion.preview_samples=1

bench-render: $(STAMP)
	$(BIN)/python -m fitdiff.renderer.bench

bench-train: $(STAMP)
	$(BIN)/python -m fitdiff.training.bench

bench-fit: $(STAMP)
	$(BIN)/python -m fitdiff.fitting.bench

bench-realy: $(STAMP)
	$(BIN)/python -m fitdiff.evaluation.realy.bench

bench-now: $(STAMP)
	$(BIN)/python -m fitdiff.evaluation.now.bench

# OPTIONS are those of `python -m fitdiff.sweep --help`, such as jobs=2.
sweep: $(STAMP)
	$(BIN)/python -m fitdiff.sweep file=$(FILE) $(OPTIONS)

RUNS ?= outputs/*
report: $(STAMP)
	$(BIN)/python -m fitdiff.report runs='$(RUNS)'

dashboard: $(STAMP)
	TRACKIO_DIR=outputs/dashboards/trackio $(BIN)/trackio show --project fitdiff

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV)
