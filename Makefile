# The commands of the course: `make` lists them. Each one prepares .venv first,
# which takes a moment when it is up to date.

PYTHON ?= python3
PY := .venv/bin/python

# Trained models and drawn images are kept inside the checkout, for every command.
export DERM_HASH_HOME ?= $(CURDIR)/build/cache
# The course runs on the environment's own kernel, whatever else the user has installed.
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup lab app walkthrough notebooks release grade test test-full mutants bench clean

help:         ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup:        ## create or refresh .venv (another Python: make setup PYTHON=python3.12)
	@$(PYTHON) .ci/venv.py $(if $(filter file,$(origin PYTHON)),,--this-python)

# Room for an upload that is too large, so that the explorer gets to say so.
lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/.ci/jupyter
lab: setup    ## open JupyterLab on a copy of the course, in course/ (more options: LAB_ARGS="--no-browser --port 9000")
	$(PY) -m derm_hash.lab $(LAB_ARGS)

app: setup    ## serve the retrieval explorer as a page without code (ARGS="--data DIR --run DIR")
	$(PY) -m derm_hash.app $(ARGS)

walkthrough: setup  ## run the whole course without a browser; pages in build/walkthrough/
	$(PY) notebooks/build.py $(ARGS)

notebooks: setup    ## run the course and save its outputs in notebooks/ (for authors)
	$(PY) notebooks/build.py --inplace $(ARGS)

release: setup  ## write the exercises for students; in build/exercises/release/
	$(PY) notebooks/exercises/grading.py release

grade: setup  ## grade the exercises, which runs their code: make grade SUBMISSIONS=folder
	$(PY) notebooks/exercises/grading.py grade \
		"$(or $(SUBMISSIONS),$(error Name the folder: make grade SUBMISSIONS=folder))" $(ARGS)

test: setup   ## run every test (some of them: make test ARGS="tests/test_losses.py -x")
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(ARGS)

test-full: setup  ## every test, and the injected faults at full length (takes long)
	$(MAKE) test ARGS="--full --cov $(ARGS)"

mutants: setup  ## change the mathematics in small ways: does a test notice? (long; docs/mutants.md)
	$(PY) -m pip install --quiet --constraint constraints.txt -e ".[mutants]"
	OMP_NUM_THREADS=1 $(PY) -m mutmut run --max-children 2 $(ARGS)
	$(PY) -m mutmut results | grep -v "not checked" || true

bench: setup  ## measure what is promised (ARGS="--only step"; ARGS=scaling: how cost grows)
	$(PY) -m benchmarks $(ARGS)

clean:        ## remove what the commands wrote in build/, and caches; .venv, course/, data/, runs/ stay
	rm -rf build mutants .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -path ./course -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
