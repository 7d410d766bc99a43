# `make train` and `make test` set up .venv themselves; they need only Python, 3.11 or later.
PYTHON   ?= $(or $(shell command -v python3.11 || command -v python3),python3.11)
VENV     ?= .venv
BIN      := $(VENV)/bin
EXAMPLES := $(VENV)/.examples-installed
READY    := $(VENV)/.installed
# Python compiles a module when it is first imported; pip would compile the other 15,000 too.
unexport PYTHONDONTWRITEBYTECODE
INSTALL  := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint constraints.txt

export OMP_NUM_THREADS ?= 1
# The compiled tests of all processes share one cache.
export TORCHINDUCTOR_CACHE_DIR ?= $(CURDIR)/.cache/inductor

.PHONY: help setup train chargpt test test-long compat features lint types properties defects bench bench-check bench-checkpoints \
	bench-optimizers torture site clean

help:
	@echo "make train       set up and train the digits example (run it again to continue)"
	@echo "make chargpt     the same for the character language model"
	@echo "make test        set up and run the tests, except the long sweeps"
	@echo "make test-long   run the long sweeps"
	@echo "make compat      run the core's tests on other versions of Python and torch"
	@echo "make features    run the tests that show a feature and list them in docs/features.md"
	@echo "make lint types  run ruff and mypy"
	@echo "make site        build the documentation into site/"
	@echo "make properties  run the property tests at length"
	@echo "make defects     plant mistakes in copies of the package, which the laws must detect"
	@echo "make torture     kill, limit and damage runs for MINUTES=10 (SEED=... repeats a session)"
	@echo "make bench       time a step against the plain PyTorch loop and other trainers"
	@echo "make bench-check fail if a step is over its budget"
	@echo "make bench-optimizers   time optimizers alone against torch's"
	@echo "make bench-checkpoints  time saving and loading against other checkpoint libraries"

# Every step can be repeated after an interruption.
$(EXAMPLES): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "functrain needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV) once, in about half a minute (longer where downloads are slow):"
	@echo "  1/3 a virtual environment of $(PYTHON)"
	@test -e $(VENV)/.created || $(PYTHON) -m venv $(VENV) \
		|| { echo "python3 -m venv failed (Debian: apt install python3-venv)"; exit 1; }
	@touch $(VENV)/.created
	@echo "  2/3 torch, by far the largest: 0.2 GB for the CPU, several GB if your index has CUDA builds"
	@echo "      (without a GPU: set PIP_EXTRA_INDEX_URL to the index of CPU builds on PyTorch's installation page)"
	@$(INSTALL) torch
	@echo "  3/3 functrain, scikit-learn for the digits and matplotlib for their curves"
	@$(INSTALL) --editable ".[examples,plot]"
	@touch $@

$(READY): $(EXAMPLES)
	@echo "Installing what tests compare with (transformers, optax, mlflow, ...), mkdocs, ruff and"
	@echo "mypy: 150 packages, in about a minute, once"
	@$(INSTALL) --editable ".[dev]"
	@echo "Compiling the Python that tests import, which each worker would do for itself"
	@$(BIN)/python -m pytest --collect-only --quiet > /dev/null 2>&1 || true  # make test says why
	@touch $@

setup: $(READY)

train: $(EXAMPLES)
	$(BIN)/functrain train digits

chargpt: $(EXAMPLES)
	$(BIN)/functrain train chargpt

# Twice as many as CI has processors: tests of launchers and of time limits mostly wait.
WORKERS ?= 4
TEST := $(BIN)/python -m pytest --quiet --numprocesses $(WORKERS) --dist worksteal

test: $(READY)
	$(TEST) -m "not long"

# Every option set, system call and crash state, of which `make test` has one of each kind, and laws
# with ten times its examples.
test-long: $(READY)
	$(TEST) -m long
	FUNCTRAIN_EXAMPLES=full $(TEST) property_tests -m "not long"

# The core on other versions of Python and torch: VERSIONS="3.12-2.13.0 3.13-2.14.1".
compat:
	.ci/compat $(VERSIONS)

features: $(READY)
	$(TEST) -m "row and not long" -p tests.support.features --features=docs/features.md

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# Builds without the network.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Tests outside property_tests that have a long form.
LONG := $(addprefix tests/checkpoint/test_,syscalls.py file_systems.py crash_readers.py) \
	tests/training/test_ranks_saving.py

properties: $(READY)
	FUNCTRAIN_EXAMPLES=long $(BIN)/python -m pytest --quiet --hypothesis-show-statistics \
		property_tests $(LONG)

# A law must detect each planted defect; DEFECT=word selects those with the word in their name.
defects: $(READY)
	$(BIN)/python -m property_tests.defects $(DEFECT)

torture: $(READY)
	nice -n 10 $(BIN)/python tests/support/torture.py --minutes $(or $(MINUTES),10) \
		$(if $(SEED),--seed $(SEED))

bench: $(READY)
	$(BIN)/python -m benchmarks.steps

bench-check: $(READY)
	$(BIN)/python -m benchmarks.steps --check

bench-optimizers: $(READY)
	$(BIN)/python benchmarks/optimizers.py --compiled

bench-checkpoints: $(READY)
	@mkdir -p .cache  # on the disk of the repository, since a save to memory measures nothing
	$(BIN)/python -m benchmarks.checkpoints --directory .cache

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
