# make venv    .venv with all that experiments, data_prep and tests need
# make test    lint, formatting, doctests and tests
# make test-all  the same and the slow tests
# make docs    the site, in build/site
# make demo    draws shapes of trained models, then learns chairs on the
#              embedded furniture and draws them
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= runs/demo
SHOWN = pretrained/synthesis_chair,pretrained/synthesis_toilet

.PHONY: venv test test-all docs demo lint

venv: $(VENV)/.done

$(VENV)/.done: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v}: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -e '.[experiments,data-prep,test,docs]'
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -n 2 --dist=worksteal

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist=worksteal -m 'slow or not slow' --durations=20

docs: venv
	$(BIN)/python -m mkdocs build --strict

demo: venv
	test -e $(DEMO)/fresh.png || $(BIN)/python -m experiments.gallery \
	  --models=$(SHOWN) --out=$(DEMO)/fresh.png
	$(BIN)/python -m experiments.main --mode=train --workdir=$(DEMO) \
	  --config=experiments/configs/demo.py
	$(BIN)/python -m experiments.main --mode=sample --workdir=$(DEMO)
