# make env     environment, for the commands of the README
# make model   environment, then the whole pipeline on the defaults
# make test    environment with the development tools, then the tests
# make check   the reproducibility check on both golden recipes
# make lint    ruff and mypy
# make lock    resolve the dependencies anew (needs uv)
# make aarch64 what runs the model as AArch64 code, into the cache (Debian or Ubuntu with qemu-user)
# make cluster what --cluster needs, added to the environment
# make clean   remove the environment and the caches of the tools
# make test-slow, make test-shared   tests that take longer, and tests on real pictures (SHARED names their folder)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help env model test test-slow test-shared check lint lock cluster aarch64 clean
.DELETE_ON_ERROR:

env: $(VENV)/.runtime

# ARGS are passed on, as in make model ARGS="--checkpoint seeded --calib 50".
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

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# An older pip mishandles extras when it checks hashes, so pip itself comes first, from a lock of its own.
$(VENV)/.pip: requirements/pip.lock
	@$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13) and \
	  f'error: expected Python 3.10 to 3.13; found {v[0]}.{v[1]}; done: nothing; next: make PYTHON=python3.12 model')"
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

# No index address enters a lock: hashes say what is meant, wherever it comes from.
LOCKING = uv pip compile --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet
LOCK = $(LOCKING) --universal --python-version 3.10 --no-strip-extras

# Wheels for Python 3.8 alone, and nothing but what is listed: nothing is compiled, and no build tool is fetched.
TOOLCHAINS := 2.4.4 2.5.0 2.6.0
LOCK_2021 = $(LOCKING) --python-version 3.8 --python-platform x86_64-manylinux2014 --no-deps --only-binary :all:

# One numpy for every Python of a distribution: what the oldest of ours has.
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
