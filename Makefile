# The chores; the same that .ci/run and the GitHub workflow call. Each makes .venv when there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Small models are several times faster with one thread a process.
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup demo test check format tables bench clean

help:
	@echo "make demo    build the synthetic data, evaluate two tiny models, write leaderboard and tables"
	@echo "make test    run the tests"
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

# BlindTest's images join in where they are at hand: BLINDTEST=<folder with labels.csv and images/>.
BLINDTEST ?= $(if $(EVALKIT_REAL_DATA),$(EVALKIT_REAL_DATA)/blindtest_line_intersection)
DEMO_MODELS := tiny-qwen tiny-llava
DEMO_TASKS := line_intersection line_tracing grid_patch

demo: setup
	$(BIN)/evalkit data build $(DEMO_TASKS) --workers 2 --sheet
	$(if $(wildcard $(BLINDTEST)/labels.csv),$(BIN)/evalkit data import line_intersection $(BLINDTEST) --name blindtest)
	@set -e; for model in $(DEMO_MODELS); do for task in $(DEMO_TASKS); do \
	  $(BIN)/evalkit run --model $$model --task $$task; done; done
	$(if $(wildcard $(BLINDTEST)/labels.csv),@set -e; for model in $(DEMO_MODELS); do \
	  $(BIN)/evalkit run --model $$model --task line_intersection --split blindtest; done)
	$(BIN)/evalkit tables
	$(BIN)/evalkit leaderboard

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/evalkit validate

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: setup
	$(BIN)/evalkit tables
	$(BIN)/evalkit leaderboard

bench: setup
	$(BIN)/python -m benchmarks.data_build
	$(BIN)/python -m benchmarks.parser_fuzz
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.kill_resume
	$(if $(EVALKIT_REAL_DATA),$(BIN)/python -m benchmarks.parser_agreement)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo
