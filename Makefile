# `make demo` and `make test` are all a fresh machine needs; both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check setup clean

demo: setup ## compile a real Mask R-CNN for trt, npu and drpai, and draw what it sees
	$(BIN)/python examples/demo.py --out demo

test: setup ## the whole test suite
	$(BIN)/python -m pytest -n auto --dist loadfile

check: setup ## formatting, lint and types
	$(BIN)/ruff check adcompile tests examples benchmarks
	$(BIN)/ruff format --check adcompile tests examples benchmarks
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

setup: $(VENV)/.ready

# torch first and pinned, so that nothing later pulls another build of it
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet torchvision==0.28.0
	$(BIN)/python -m pip install --quiet --editable ".[dev,npu,trt,eval,simplify,surgery,faiss]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
