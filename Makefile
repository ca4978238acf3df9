# From a fresh clone with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test parity lint clean

demo: $(READY)
	$(BIN)/segmenter demo --out demo

test: $(READY)
	$(BIN)/python -m pytest

# SEGMENTER_GOLDENS names a folder of recorded cases; the default is tests/goldens.
parity: $(READY)
	$(BIN)/python -m pytest tests/parity

lint: $(READY)
	$(BIN)/ruff check

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "'$(PYTHON) -m venv' does not work here; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group test -e .
	@touch $@

clean:
	rm -rf $(VENV) demo
