# make env     create the environment, for the commands of the documents
# make model   create the environment, then run the whole pipeline with its defaults
# make test    create the environment with the development tools, then run the tests
# make check   run the reproducibility check on both golden recipes
# make lint    run ruff and mypy
# make lock    resolve the dependencies again (needs uv)
# make aarch64 create the AArch64 root that runs the model under qemu-user, in the cache (Debian or Ubuntu)
# make cluster add the packages for --cluster to the environment
# make reference write docs/cli.md from the declarations of the commands and options
# make clean   remove the environment and the caches of the tools
# make test-slow, make test-shared   run the slow tests, or the tests on real pictures (in the folder that SHARED names)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help env model test test-slow test-shared check lint lock cluster aarch64 reference clean
.DELETE_ON_ERROR:

env: $(VENV)/.runtime

# ARGS are arguments of the pipeline: make model ARGS="--checkpoint seeded --calib 50".
model: $(VENV)/.runtime
	$(BIN)/python -m pipeline all $(ARGS)

test: $(VENV)/.development
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.development
	$(BIN)/python -m pytest -m slow

test-shared: $(VENV)/.development
	$(BIN)/python -m pytest -m shared

check: $(VENV)/.runtime
	$(BIN)/python -m pipeline check --model 0.35_96
	$(BIN)/python -m pipeline check

cluster: $(VENV)/.cluster

aarch64: $(VENV)/.runtime
	$(BIN)/python -m pipeline aarch64

reference:
	$(BIN)/python -m pipeline.interface.reference > docs/cli.md

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Old versions of pip mishandle extras in hash-checking mode, so a locked pip is installed first.
$(VENV)/.pip: requirements/pip.lock
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13) and \
	  f'error: expected Python 3.10 to 3.13; found {v[0]}.{v[1]}; done: nothing was installed; next: make PYTHON=python3.12 model')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@

$(VENV)/.runtime: requirements/runtime.lock $(VENV)/.pip
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@

$(VENV)/.cluster: requirements/cluster.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@

$(VENV)/.development: requirements/development.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@

# Locks contain no index addresses: the hashes identify the packages, whatever the index.
LOCKING = uv pip compile --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
LOCK = $(LOCKING) --universal --python-version 3.10 --no-strip-extras

# Only wheels for Python 3.8, and only the listed packages: nothing is compiled, and no build tool is downloaded.
TOOLCHAINS := 2.4.4 2.5.0 2.6.0
LOCK_2021 = $(LOCKING) --python-version 3.8 --python-platform x86_64-manylinux2014 --no-deps --only-binary :all:

# One version of numpy for the Python of any distribution: the one for the oldest supported Python.
LOCK_AARCH64 = $(LOCKING) --python-version 3.10 --python-platform aarch64-manylinux_2_28 --no-deps --only-binary :all: \
  --constraint requirements/runtime.lock

lock:
	echo pip | $(LOCK) - -o requirements/pip.lock
	$(LOCK) pyproject.toml --extra tflm -o requirements/runtime.lock
	$(LOCK) pyproject.toml --extra cluster --constraint requirements/runtime.lock -o requirements/cluster.lock
	$(LOCK) pyproject.toml --extra dev --constraint requirements/runtime.lock -o requirements/development.lock
	for version in $(TOOLCHAINS); do \
	  $(LOCK_2021) recreate_model/prove/toolchains/tensorflow-$$version.in -o recreate_model/prove/toolchains/tensorflow-$$version.lock; \
	done
	$(LOCK_AARCH64) pipeline/platforms/aarch64.in -o pipeline/platforms/aarch64.lock

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
