# What a developer runs; `make help` lists it. The tools come from .venv where there is one, else from PATH.
BIN := $(if $(wildcard .venv/bin/python),.venv/bin/,)

# The commit that `make same-numbers` compares with.
REV ?= origin/main

CPP_SOURCES = $(shell find csrc tests/csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

.DEFAULT_GOAL := help
.PHONY: help setup test nightly faults check lint format types fast docs bench same-numbers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with nlbench, its tests' needs and the developers' tools
	python3 -m venv .venv
	.venv/bin/pip install -q -e '.[test,dev]'
	.venv/bin/pre-commit install

test: ## run the tests that every change must pass
	$(BIN)pytest -q

nightly: ## run all tests with large budgets; takes about half an hour on two cores
	NLBENCH_TEST_PROFILE=nightly $(BIN)pytest -q -m "" --unmarked-limit 5

faults: ## kill runs 200 times at random, then train one suite by 1, 2 and 8 processes; half an hour
	$(BIN)python tests/faults/kill_runs.py --faults 200 --minutes 45
	$(BIN)python tests/faults/kill_runs.py --every
	$(BIN)python tests/faults/kill_runs.py --processes 1,2,8

check: lint types fast ## run before every commit: style, types and the quick tests

lint: ## check style and spelling
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)clang-format --dry-run --Werror $(CPP_SOURCES)
	git ls-files -z | xargs -0 $(BIN)codespell

format: ## let the formatters rewrite the sources
	$(BIN)ruff check --fix .
	$(BIN)ruff format .
	$(BIN)clang-format -i $(CPP_SOURCES)

types: ## check types with mypy
	$(BIN)mypy

fast: ## run tests that take half a minute: imports, suites, tables, records, pages
	$(BIN)pytest -q tests/test_imports.py tests/plan tests/results tests/docs

docs: ## run every command and example of the documentation
	$(BIN)pytest -q -m "" tests/docs

bench: ## time the kernels against eager PyTorch and torch.compile on this machine
	$(BIN)nlbench bench

same-numbers: ## compare all numbers with those of a commit: make same-numbers REV=origin/main
	$(BIN)python .ci/same-numbers $(REV)
