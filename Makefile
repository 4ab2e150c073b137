# Works where there is only python3 (3.11 or newer) and make. `make demo`, `make test`; ARGS="..." goes to the tool.
# On Linux without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares the download of CUDA.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RESTORED := output/sample_restored.png
TYPED := core nodes training headless
ARGS ?=
CELL ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test lint typecheck quality bench ablation gpu-check clean

help:
	@echo "make demo       restore the sample photo, and say what was gained"
	@echo "make test       the whole test suite"
	@echo "make lint       ruff and mypy; make typecheck: mypy alone"
	@echo "make quality    what the embedded weights gain on real photos, against their gates"
	@echo "make bench      times and memory"
	@echo "make ablation   train and measure what papers leave out, into docs/ablations.md; CELL=tsd-sr/full for one"
	@echo "make gpu-check  speed, memory and rounding on a GPU, into docs/gpu.md"
	@echo "make clean      remove the virtual environment and caches; pictures in output/ stay"

install: $(INSTALLED)

# torch comes first and by its pin, so that the CPU build is taken where one is offered.
$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kintsugi needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "Installing into $(VENV): once, a minute or more."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/kintsugi restore docs/sample/sample.jpg -o $(RESTORED) --overwrite
	@$(BIN)/python tools/demo.py $(RESTORED)

test: $(INSTALLED)
	$(BIN)/python -m pytest tests $(ARGS)

lint: $(INSTALLED) typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy must see this folder as the package `kintsugi`, whatever it is called.
typecheck: $(INSTALLED)
	@mkdir -p $(VENV)/typecheck
	@ln -sfn "$(CURDIR)" $(VENV)/typecheck/kintsugi
	cd $(VENV)/typecheck && ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" \
		$(patsubst %,-p kintsugi.%,$(TYPED))

quality: $(INSTALLED)
	$(BIN)/python tools/quality.py $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python tools/bench.py $(ARGS)

ablation: $(INSTALLED)
	$(BIN)/python tools/ablation.py $(CELL) $(ARGS)

gpu-check: $(INSTALLED)
	$(BIN)/python tools/gpu_check.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
