# `make demo` shows what it does; `make test` proves it. Both install what they need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Generated stubs run with the generator's protobuf and the next major one, never with an
# older: this is the oldest that works, so that the SDK lives beside tritonclient.
GENERATOR := .venv-generate

.DEFAULT_GOAL := help

.PHONY: help
help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: install
install: $(VENV)/.installed  ## Install the product into .venv

$(VENV)/.installed: pyproject.toml clients/python/pyproject.toml .ci/constraints.txt
	@echo "installing into $(VENV): PyTorch takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt \
		-e clients/python -e '.[export]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt \
		-e clients/python -e '.[export,openvino,dev]'
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed  ## Export models, serve them, compare a picture, show the answers
	@$(BIN)/visavis demo

.PHONY: test
test: $(VENV)/.installed-dev  ## Run the tests
	@$(BIN)/python -m pytest

.PHONY: bench
bench: $(VENV)/.installed-dev  ## Measure every target for speed, and write BENCHMARKS.md
	@$(BIN)/python -m tests.benchmark

.PHONY: soak
soak: $(VENV)/.installed-dev  ## Try for long what the tests try in short, and write SOAK.md
	@$(BIN)/python -m tests.soak

.PHONY: lint
lint: $(VENV)/.installed-dev  ## Check style, types, import rules and the contract
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/buf lint protos
	@$(BIN)/buf breaking protos --against protos/landed.binpb

.PHONY: generate
generate: $(VENV)/.installed-dev $(GENERATOR)/.installed  ## Regenerate the stubs and the schema
	@$(GENERATOR)/bin/python -m grpc_tools.protoc -Iprotos --python_out=clients/python \
		--pyi_out=clients/python --grpc_python_out=clients/python protos/visavis/v1/vision.proto
	@$(BIN)/python -m server.card > protos/visavis/v1/model.schema.json

$(GENERATOR)/.installed: Makefile
	@test -x $(GENERATOR)/bin/python || $(PYTHON) -m venv $(GENERATOR)
	@$(GENERATOR)/bin/python -m pip install -q --disable-pip-version-check grpcio-tools==1.72.2
	@touch $@

.PHONY: stale
stale: generate  ## Fail if what is generated is not what is committed
	@git diff --exit-code -- clients/python/visavis/v1 protos/visavis/v1/model.schema.json || \
		{ echo "generated files are stale: run 'make generate' and commit the result"; exit 1; }

.PHONY: lock
lock: $(VENV)/.installed-lock  ## Pin what a deployed server needs, by version and hash
	@$(BIN)/python deploy/lock.py

.PHONY: audit
audit: $(VENV)/.installed-lock  ## Ask which known weaknesses the pinned packages have
	@$(BIN)/pip-audit --require-hashes --disable-pip -r deploy/requirements.txt
	@$(BIN)/pip-audit --require-hashes --disable-pip -r deploy/requirements-cpu.txt

$(VENV)/.installed-lock: $(VENV)/.installed
	@$(BIN)/python -m pip install -q --disable-pip-version-check pip-tools pip-audit
	@touch $@

.PHONY: landed
landed:  ## Make the contract as it is now the one that later changes must not break
	@$(BIN)/buf build protos -o protos/landed.binpb
