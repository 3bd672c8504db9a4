# Everything here needs only Python 3.10+ and make: `.venv` is created when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart
THREADS := $(shell $(PYTHON) -c "import os; print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())")

LAUNCH := $(BIN)/accelerate launch --config_file configs/accelerate/one_process.yaml --num_cpu_threads_per_process $(THREADS)

.PHONY: quickstart test lint bench docs map clean

# Installing again is needed only when the dependencies change: the package itself is installed in place.
$(VENV)/installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@ $(VENV)/installed

# A finished step is not repeated: the data set is kept, and a finished run resumes at its end.
quickstart: $(VENV)/installed
	@test -d $(RUN)/data || $(BIN)/bimodal-prep write synthetic --to $(RUN)/data
	$(LAUNCH) -m bimodal_cl.train --config configs/train/quickstart.yaml --resume latest
	$(BIN)/bimodal-eval zero-shot $(RUN)/isogclr --data $(RUN)/data/zero_shot
	$(BIN)/bimodal-eval retrieval $(RUN)/isogclr --data $(RUN)/data/retrieval
	$(BIN)/bimodal-eval report $(RUN)/isogclr
	@echo "Open $(CURDIR)/$(RUN)/isogclr/report.html in a browser."

test: $(VENV)/installed-test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-test
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks $(ARGS)

# A warning ends the build (--quiet would hide warnings from --strict). Open site/index.html in a browser.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open $(CURDIR)/site/index.html in a browser."

# The page docs/file-map.md, from the modules' docstrings; needs nothing installed.
map:
	$(PYTHON) -m tests.test_docs.write_map

clean:
	rm -rf $(VENV) runs site build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
