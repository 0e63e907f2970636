# Everything works from a fresh clone with Python 3.11 or later: each target sets up what it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check bench format clean

setup: $(STAMP)

# PyTorch goes first and pinned: unpinned, pip would take a build with several gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,digits,dp,export,mlserver,prune,reid,serve]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/sfumato demo

# One thread for each of two workers: more threads than cores make PyTorch wait for itself. Some tests take minutes: an idle worker
# takes over what waits behind one.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check src tests bench fuzz
	$(BIN)/ruff format --check src tests bench fuzz
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	OMP_NUM_THREADS=1 $(BIN)/python -m bench $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix src tests bench fuzz
	$(BIN)/ruff format src tests bench fuzz

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis
