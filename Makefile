# From a fresh clone with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TEST_READY := $(VENV)/ready-to-test
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test parity lint clean

demo: $(READY)
	$(BIN)/segmenter demo --out demo

test: $(TEST_READY)
	$(BIN)/python -m pytest

# SEGMENTER_GOLDENS names a folder of recorded cases; the default is tests/goldens.
parity: $(TEST_READY)
	$(BIN)/python -m pytest tests/parity

lint: $(TEST_READY)
	$(BIN)/ruff check

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "'$(PYTHON) -m venv' does not work here; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) -c constraints.txt -e .
	@touch $@

$(TEST_READY): $(READY)
	$(PIP) --upgrade 'pip>=25.1' # the first that knows dependency groups
	$(PIP) -c constraints.txt --group test
	@touch $@

clean:
	rm -rf $(VENV) demo
