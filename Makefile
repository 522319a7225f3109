# Each target makes its own environment from a bare checkout: python3 (3.11 or newer) and pip are all it needs.
# On a machine without a GPU, plain pip may fetch CUDA builds of torch (about 3 GB). To get the small CPU builds,
# point pip's own settings (`pip config set global.extra-index-url ...`, or find-links) at PyTorch's CPU wheels first.

VENV ?= .venv
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODELS := smollm2-135m-q4 minilm-l6
# One process more than cores: many tests wait for a server or a process. Each begins with its share of the
# tests in their order and then takes from the others, so that what the tests of a file share is seldom made twice.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist worksteal -n $(WORKERS)
# More words for pytest, which take nothing of the above away: `make test PYTEST_ARGS="tests/data -x"`.
PYTEST_ARGS ?=
# `make test ROOM=decision`: the tests of that room, and those elsewhere that reach it by what they import.
OF_ROOM = $(if $(ROOM),$$($(PYTHON) tests/helpers/tests_of_room.py $(ROOM) || echo no-room))
# The rooms whose results hang on the processor and its kernels.
KERNEL_ROOMS := tests/model tests/training tests/inference

.PHONY: help demo serve test test-stress test-core test-cluster test-fast test-processors check docs tutorials package env models clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the main job on a bundled example, within minutes: verdict and report"
	@echo "make serve   the example behind an API, with a page to talk to; ARMS=all for every arm that make demo measured"
	@echo "make test    every test, the real small model included; ROOM=decision for a room and what depends on it"
	@echo "make test-stress  kills, soaks, long fuzzing and the cluster, apart"
	@echo "make test-core  the core's tests without the four rooms that can be taken away"
	@echo "make test-cluster  studies on a cluster whose processes and machines are killed; some minutes"
	@echo "make test-fast  tests without a model, quick ones: data, measurement, decision, reports, command line"
	@echo "make test-processors  tests of model, training and inference again: without a C compiler, with AVX2 alone, without AMX"
	@echo "make check   lint, format, strict types, layering, generated documentation"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make tutorials  run the notebooks of docs/tutorials; some minutes"
	@echo "make package build sdist and wheel, install the wheel into a bare environment, run its demo"
	@echo "make env     only the environment ($(VENV))"
	@echo "make models  only the two small models that the demo and the tests use"
	@echo "make clean   remove the environment and what tools left behind"

demo: env models
	@$(BIN)/trimtab demo --cut

serve: env models
	@$(BIN)/python -c 'from pathlib import Path; from trimtab.studies.demo import copy_demo; copy_demo("handbook", Path("trimtab-demo-handbook"), cut=True)'
	@$(BIN)/trimtab serve $(ARMS) --task trimtab-demo-handbook/demo.toml

test: env models
	@$(PYTEST) -m "not cluster and not stress and not other_processor" $(OF_ROOM) $(PYTEST_ARGS)

# Kills at random moments, soaks, what hypothesis draws at great length, and the cluster below.
test-stress: env models
	@TRIMTAB_FUZZ=20000 $(PYTEST) -m "(stress or fuzz or hypothesis) and not cluster" --hypothesis-profile many $(OF_ROOM) $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory test-cluster

# The core and its tests in a folder of their own, without the four rooms that stand on it.
test-core: env models
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		git ls-files | grep -vE '^(trimtab|tests)/(serving|upkeep|publishing|scale)/' | tar -cf - -T - | tar -xf - -C "$$folder" && \
		cd "$$folder" && OMP_NUM_THREADS=1 PYTHONPATH="$$folder" $(abspath $(BIN))/python -m pytest --dist worksteal -n $(WORKERS) \
		-m "not cluster and not stress and not other_processor" $(PYTEST_ARGS)

# A Ray cluster on this machine, whose processes and nodes are killed: some minutes, one test at a time.
test-cluster: env
	@$(PYTEST) -n 0 -m cluster tests/scale $(PYTEST_ARGS)

# Without those marked `slow` (tests/conftest.py): no model has to be pulled.
test-fast: env
	@$(PYTEST) -m "not slow and not cluster and not stress" $(OF_ROOM) $(PYTEST_ARGS)

# The code that other machines run: plain torch where there is no C compiler; kernels and torch for AVX2 alone; and, on a processor
# with AMX, the kernels that are built where there is none, in the room that they lie in. What is the same on every processor is left
# out; where torch stays as it is, what asks for no kernel, too.
test-processors: env models
	@CC= $(PYTEST) -m "not no_kernels and not any_processor and not stress" $(KERNEL_ROOMS) $(PYTEST_ARGS)
	@CC="cc -U__AVX512BF16__" ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
		$(PYTEST) -m "not any_processor and not stress" $(KERNEL_ROOMS) $(PYTEST_ARGS)
	@! grep -qs amx_bf16 /proc/cpuinfo || CC="cc -U__AMX_BF16__" \
		$(PYTEST) -m "not no_kernels and not any_processor and not stress" tests/model $(PYTEST_ARGS)

check: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/make_reference.py --check
	@$(BIN)/python docs/make_tables.py --check

# Strict: a broken link, a missing page or anchor fails.
docs: env
	@$(BIN)/zensical build --strict
	@$(BIN)/python docs/make_llms.py

# Fails where a cell raises, or a page is not what its notebook says; `python docs/make_tutorials.py` writes both anew.
tutorials: env models
	@$(BIN)/python docs/make_tutorials.py --check

# Only in an environment that nothing was installed into: what the wheel does not ask for must not be there by chance.
package: $(BIN)/python
	@test ! -e $(READY) || { echo "make: $(VENV) is in use; run: make package VENV=another/folder" >&2; exit 2; }
	@.ci/package $(BIN)

env: $(READY)

$(READY): pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # on all cores; pip takes one
	@touch $@

# Where Python comes without ensurepip (Debian without python3-venv), the pip outside fills the environment.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Making the environment $(VENV) with $(PYTHON); the first time takes minutes."
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@$(BIN)/python -m pip install --quiet --upgrade pip  # the one that Python 3.11 brings takes a minute longer

models: env
	@$(BIN)/trimtab pull $(MODELS) >/dev/null

clean:
	rm -rf $(VENV) .ci/venv build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
