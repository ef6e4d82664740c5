# The commands of the course: `make` lists them. Each one prepares .venv first,
# which takes a moment when it is up to date.

PYTHON ?= python3
PY := .venv/bin/python
COMMA := ,
STAMP := .venv/derm-hash.stamp

# Trained models and drawn images are kept inside the checkout, for every command.
export DERM_HASH_HOME ?= $(CURDIR)/build/cache
# The course runs on the environment's own kernel, whatever else the user has installed.
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup lab app page walkthrough notebooks release collect grade student-kit slides hub hub-test test test-full mutants audit bench bench-gpu clean

help:         ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## create or refresh .venv (another Python: make setup PYTHON=python3.12)

# A student's kit has this file, and needs neither tests nor what grades.
EXTRAS := lab$(if $(wildcard .student-kit),,$(COMMA)test)

$(STAMP): pyproject.toml constraints.txt .ci/pins.py
	@rm -f $@
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip
	@$(PY) .ci/pins.py >.venv/constraints.txt
	@echo "installing derm-hash and what it needs: minutes the first time"
	@$(PY) -m pip install --disable-pip-version-check -c .venv/constraints.txt -e ".[$(EXTRAS)]" || \
		{ echo "pip could not install everything (its message is above): check the network and the" \
		"free disk space, then run the same command again to continue" >&2; exit 1; }
	@echo "$(CURDIR) $$($(PY) $(VERSION))" >$@

# .venv is made anew when its Python does not start, or has another version than a PYTHON that was
# named. When the checkout was moved, or the system's Python replaced, all is installed again.
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
HAVE := $(shell $(PY) $(VERSION) 2>/dev/null)
WANT := $(or $(if $(filter file,$(origin PYTHON)),$(HAVE),$(shell $(PYTHON) $(VERSION))),none)
ifneq ($(HAVE),$(WANT))
$(STAMP): .venv
else ifneq ($(CURDIR) $(HAVE),$(shell cat $(STAMP) 2>/dev/null))
$(STAMP): FORCE
endif
FORCE:

TOO_OLD := derm-hash needs Python 3.11 or newer, and $(PYTHON) is %d.%d: \
	install a newer one and name it, as in `make setup PYTHON=python3.12`
.PHONY: .venv
.venv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(TOO_OLD)" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv

lab: setup    ## open JupyterLab on a copy of the course, in course/ (more options: LAB_ARGS="--no-browser --port 9000")
	$(PY) -m derm_hash.lab $(LAB_ARGS)

app: setup    ## serve the retrieval explorer as a page without code (ARGS="--data DIR --run DIR")
	$(PY) -m derm_hash.app $(ARGS)

page: setup   ## write the explorer as one file without a kernel, to pass on: build/page/index.html
	$(PY) -m derm_hash.explorers.page $(ARGS)

# For lecturers and authors: a student's kit has none of this.
walkthrough: setup build/walkthrough/explorer.html  ## run the whole course without a browser; pages in build/walkthrough/
	$(PY) notebooks/build.py $(ARGS)

build/walkthrough/explorer.html: $(wildcard derm_hash/explorers/*.py derm_hash/explorers/static/*) | setup
	$(PY) -m derm_hash.explorers.page --out $@

notebooks: setup    ## run the course and save its outputs in notebooks/ (for authors)
	$(PY) notebooks/build.py --inplace $(ARGS)

GRADING := $(PY) notebooks/exercises/grading.py
EXAMINATION = $(if $(EXAM),--exam $(EXAM))

release: setup  ## write the exercises for students, in build/exercises/release/ (EXAM=1: another set, by this seed)
	$(GRADING) release $(EXAMINATION)

collect: setup  ## sort a download of submissions: make collect ZIP=moodle.zip (or a folder)
	$(GRADING) collect "$(or $(ZIP),$(error Name the download: make collect ZIP=moodle.zip))" $(ARGS)

grade: setup  ## grade submissions in a sandbox: make grade SUBMISSIONS=folder (ARGS="--jobs 2 --due 02 03")
	$(GRADING) grade \
		"$(or $(SUBMISSIONS),$(error Name the folder: make grade SUBMISSIONS=folder))" $(EXAMINATION) $(ARGS)

student-kit: setup  ## write build/exercises/student-kit.zip: the course without solutions and tests
	$(GRADING) student-kit $(EXAMINATION)

slides: setup  ## write slides for the six sessions, one page each: build/slides/
	$(PY) docs/teaching/slides.py build/slides

hub: setup    ## write the folder that a JupyterHub shares, as its owner: make hub SHARED=/srv/derm-hash
	$(PY) docs/teaching/hub/prepare.py "$(or $(SHARED),$(error Name the folder: make hub SHARED=/srv/derm-hash))"

hub-test: setup  ## start that hub here with six students at once, and measure (installs JupyterHub; needs npm)
	$(PY) -m pip install --quiet --constraint .venv/constraints.txt -e ".[hub]"
	OMP_NUM_THREADS=1 $(PY) -m pytest -s tests/exercises/test_hub.py $(ARGS)

test: setup   ## run every test (some of them: make test ARGS="tests/test_losses.py -x")
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-full: setup  ## every test, and the injected faults at full length (takes long)
	$(MAKE) test ARGS="--full --cov $(ARGS)"

mutants: setup  ## change the mathematics in small ways: does a test notice? (long; docs/mutants.md)
	$(PY) -m pip install --quiet --constraint .venv/constraints.txt -e ".[mutants]"
	OMP_NUM_THREADS=1 $(PY) -m mutmut run --max-children 2 $(ARGS)
	$(PY) -m mutmut results | grep -v "not checked" || true

audit: setup  ## look for known weaknesses of the pinned versions (asks the package index)
	$(PY) -m pip install --quiet --constraint .venv/constraints.txt -e ".[audit]"
	$(PY) -m pip_audit --requirement constraints.txt --no-deps --disable-pip

bench-gpu: setup  ## measure on a GPU; without one, try the same in a tiny form
	$(PY) -m benchmarks $(if $(RECORD),--record) --only gpu gpu-encoding gpu-grid gpu-processes

bench: setup  ## measure what is promised; in build/bench/ (ARGS="--only step"; RECORD=1: committed)
	$(PY) -m benchmarks $(if $(RECORD),--record) $(ARGS)

# For everybody again.
clean:        ## remove what the commands wrote in build/, and caches; .venv, course/, data/, runs/ stay
	rm -rf build mutants .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -path ./course -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
