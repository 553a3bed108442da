# make demo    needs Python, make and git; brings the rest into .venv and .tools
#
# .tools/bin/nextflow is there after `make nextflow`, `make demo`, `make setup` and `make test`. It is the one way in
# which the project runs Nextflow: it starts the PATH's (24.10 or later) or the one that was brought, with .venv/bin
# first on the PATH.

SHELL := /bin/bash
PYTHON_FILES := $(wildcard bin containers tests setup benchmarks)
# One run of pytest, so that one closing line counts every test. Two at a time, the slowest files first; a file's tests
# share what they set up, so they stay together.
TESTS := $(wildcard tests/pipeline tests/unit tests/cli)
# A thread each: libraries that wait for each other's cores take several times as long.
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo setup nextflow schema-env census-env test test-interop lint format model-archive verify-output images push audit sbom clean

# make model-archive MODEL=results/models/mine
MODEL ?= assets/models/pbmc
# make verify-output DIR=results/mine
DIR ?= results
# make images REGISTRY=registry.example/team TARGETS=cuda TORCH_INDEX=... ENGINE=podman BUILD_FLAGS=...
TARGETS ?= run cpu
export REGISTRY TORCH_INDEX ENGINE BUILD_FLAGS

help: ## List what make can do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-16s %s\n", $$1, $$2 }'

demo: ## Name the cells of the demo sample, and say where the report is
	@setup/make-venv base
	@setup/get-nextflow >/dev/null
	@setup/demo

setup: ## Make the whole .venv: annotation, training, tests
	@setup/make-venv all
	@setup/get-nextflow >/dev/null

nextflow: ## Print the path of the Nextflow to use, bringing it where there is none
	@setup/get-nextflow

schema-env: ## Make the environment of the CELLxGENE schema's validator, for --cellxgene_schema
	@setup/make-environment schema

census-env: ## Make the environment of CELLxGENE Census, for --mode reference
	@setup/make-environment census

test: setup lint ## Check style and types, and run every test
	@echo "· Running the tests"
	@$(PYTEST) $(TESTS)

test-interop: setup ## Run the tests with other people's programs, each in an environment of its own
	@$(PYTEST) tests/interop

lint: setup ## Check style and types
	@echo "· Checking style and types"
	@.venv/bin/python -m ruff check $(PYTHON_FILES)
	@.venv/bin/python -m ruff format --check $(PYTHON_FILES)
	@.venv/bin/python -m mypy

format: setup ## Bring the code into the project's style
	@.venv/bin/python -m ruff check --fix $(PYTHON_FILES)
	@.venv/bin/python -m ruff format $(PYTHON_FILES)

model-archive: ## Write a model as one zip in dist/: MODEL=folder, else the embedded one
	@setup/make-venv base
	@.venv/bin/python bin/pack_model.py --model "$(MODEL)" --output-folder dist

verify-output: ## Hold results against their checksums and the output contract: DIR=results/mine
	@setup/make-venv base
	@.venv/bin/python bin/verify_output.py "$(DIR)"

images: ## Build the images: TARGETS="run cpu" (or cuda, schema, census), REGISTRY=, TORCH_INDEX=
	@setup/images build $(TARGETS)

push: ## Push them to REGISTRY=
	@setup/images push $(TARGETS)

audit: ## Ask which locked versions are known to be vulnerable (needs the network)
	@setup/audit

sbom: ## Write the software that uv.lock names as CycloneDX in dist/
	@setup/sbom

clean: ## Take away what make brought and made: .venv, .tools, the demo's results, caches
	@rm -rf .venv .tools results/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find bin tests setup -name __pycache__ -prune -exec rm -rf {} +
