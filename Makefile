# `make help` lists what there is. Every target makes the environment first if there is none.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/multi_teacher_merge
.DEFAULT_GOAL := help

$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) here: run 'make PYTHON=python3.12 ...' (3.11 or newer)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Programs of models run under bubblewrap; who cannot install it here is told how, once.
$(VENV)/.sandbox: $(VENV)/.ready
	@command -v bwrap >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	  export DEBIAN_FRONTEND=noninteractive; apt-get install -y bubblewrap || \
	  { apt-get update && apt-get install -y bubblewrap; }; } </dev/null >/dev/null 2>&1 || true
	@command -v bwrap >/dev/null || echo "no bubblewrap, the sandbox for programs: install it (sudo apt-get install" \
	  "bubblewrap, sudo dnf install bubblewrap); without it code rewards need allow_weak_sandbox: true"
	@touch $@

setup: $(VENV)/.ready $(VENV)/.sandbox  ## make the environment .venv

run: setup  ## merge two nano experts past their teachers (under 5 minutes); again: goes on, or shows the table
	$(BIN)/gopd fit --config configs/multi_teacher_merge.yaml --ckpt_path last

experts: setup  ## make the nano base and experts again from nothing, into runs/nano
	$(BIN)/python -m gopd_lightning.nano.experts

test: setup  ## the whole CPU test suite
	$(BIN)/pytest tests

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup  ## style, spelling and docstrings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell .

types: setup  ## mypy strict on both packages
	$(BIN)/mypy

check: lint types test  ## everything that CI asks of a change

clean:  ## remove caches and runs, keep the environment
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: setup run experts test format lint types check clean help
