# Each target works on a machine that has only Python 3.11 or newer and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test check bench peers proto clean

setup: $(STAMP)

# Made when missing, refreshed when the dependencies change. A CPU-only machine needs no more than this.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[victim,attacks,dp,tls,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/referee demo --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m benchmarks

# About 7 GB; make bench leaves out the peers that are not there.
peers: $(STAMP)
	$(BIN)/python -m benchmarks.peers

# The stubs are committed; a test regenerates and compares them.
proto: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
		protos/mirage/v1/*.proto protos/inference/*.proto
	rm -f protos/mirage/v1/tensor_pb2_grpc.py
	$(BIN)/python -m protos.inference

clean:
	rm -rf $(VENV) .peers .cache runs build *.egg-info
