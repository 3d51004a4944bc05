# `make demo` animates the bundled portrait; `make test` runs lint, types and tests; `make test-slow` runs the tests that take long;
# `make docs` builds the documentation site. All set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: setup demo test test-slow docs lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup
	$(BIN)/dagan demo -o out/demo.mp4 --overwrite

# One worker a core, with one thread each; those tests that take longest are listed at the end.
PYTEST = $(BIN)/pytest -n logical --dist loadfile --max-worker-restart 0 --durations 15

test test-slow: export OMP_NUM_THREADS = 1
test: setup
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

test-slow: setup
	$(PYTEST) -m slow

# The documentation site, in out/site. A link that leads nowhere is an error.
docs: export NO_MKDOCS_2_WARNING = 1  # the theme would print a notice about its own future
docs: setup
	$(BIN)/mkdocs build --strict

# Writes the installed versions down. torch without its local build tag, so that every platform finds its own build.
lock:
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/^torch==\([0-9.]*\).*/torch==\1/' > requirements.lock

clean:
	rm -rf $(VENV) out
