# Every target sets up what it needs. `make` alone lists them; ARGS passes arguments on: make run ARGS="--quick --no-open"
BIN := .venv/bin
READY := .venv/ready
MODELS := .venv/models
WORK := build/polyglot
WORKERS := 2

.DEFAULT_GOAL := help
.PHONY: help setup run gemma test check notebooks figures atlas screens docs bench gate mutants fuzz rebuild

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

setup: $(READY) ## make .venv with the exact versions of constraints.txt

run: $(READY) ## the main job: from model to report page
	$(BIN)/steerlab run $(ARGS)

gemma: $(MODELS) ## the main job on Gemma 3 270M: fetches 240 MB, which come under the Gemma Terms of Use
	$(BIN)/steerlab run --model gemma-3-270m --dtype auto --prompt auto --race --limit 24 $(ARGS)

test: $(READY) ## the tests, README included, in two processes (WORKERS=)
	$(BIN)/pytest -n $(WORKERS) --durations 20 $(ARGS)

check: $(READY) ## style, types, floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: $(READY) ## execute every notebook, into build/notebooks
	rm -rf build/notebooks && mkdir -p build/notebooks
	cp notebooks/*.ipynb build/notebooks
	cd build/notebooks && ../../$(BIN)/jupyter-execute --inplace *.ipynb

figures: $(READY) ## draw every picture of the documentation anew, from what was recorded
	$(BIN)/python experiments/figures/redraw.py $(ARGS)

atlas: $(READY) ## how languages lie in two 8B models and polyglot, into build/atlas (ARGS=FOLDER)
	$(BIN)/python experiments/atlas.py $(ARGS)

docs: $(READY) ## the documentation, into site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

screens: $(READY) ## screenshots of report, explorer, tour and gallery, into build/screens (after make docs)
	$(BIN)/python experiments/screens.py $(ARGS)

bench: $(READY) ## measure speed and memory
	$(BIN)/python experiments/bench $(ARGS)

gate: $(READY) ## hash the results of small jobs: ARGS="--out before.json", and after a change ARGS="--against before.json"
	$(BIN)/python experiments/bench/gate.py $(ARGS)

mutants: $(READY) ## make small faults in a copy of the code and see whether a test fails: ARGS="--sample 30 --seed 0"
	$(BIN)/python experiments/mutants.py $(ARGS)

fuzz: $(READY) ## damage 10,000 files and command lines at random, in at most 30 minutes: ARGS="--short", ARGS="--seed 1 --only 417"
	$(BIN)/python experiments/fuzz.py $(ARGS)

rebuild: $(READY) ## after the packaged model has changed: its card, SAEs, their card, every page of results (TEXT=, WORK=)
	test -n "$(TEXT)" || { echo "make rebuild TEXT=folder with mono/, pairs/ and parallel/ [WORK=folder]" >&2; exit 1; }
	test -f $(WORK)/lines.json || $(BIN)/python experiments/polyglot/data.py $(TEXT) $(WORK)
	$(BIN)/python experiments/polyglot/evaluate.py $(WORK)
	$(BIN)/python experiments/polyglot/train_polyglot_saes.py $(WORK) --compare
	$(BIN)/python experiments/polyglot/train_polyglot_saes.py $(WORK)
	$(BIN)/python experiments/polyglot/evaluate_polyglot_saes.py $(WORK)
	$(BIN)/steerlab run --no-open
	$(BIN)/python experiments/headline.py runs/polyglot-parallel
	rm -rf build/estimators build/units
	$(BIN)/python experiments/estimators.py
	$(BIN)/python experiments/units/page.py

# The first of these that is 3.11 or 3.12 is taken; PYTHON=... names another.
PYTHON := python3 python3.12 python3.11
SUITABLE := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))

$(READY): pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip; $(SUITABLE)' 2>/dev/null || { \
		python=$$(for p in $(PYTHON); do $$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done); \
		test -n "$$python" || { echo "steerlab needs Python 3.11 or 3.12 and found neither as: $(PYTHON)." \
			"Install one, or name it: make setup PYTHON=python3.12" >&2; exit 1; }; \
		$$python -m venv --clear .venv; }
	$(BIN)/python -m pip install --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,docs,notebooks]'
	@touch $@

$(MODELS): $(READY)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[models]'
	@touch $@
