# make demo: set up and run the whole pipeline on real photos. make test: set up and run the tests.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ACCELERATOR ?= $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)
LOCK := $(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-12)
USE := $(VENV)/.use-$(ACCELERATOR)-$(LOCK)
DEV := $(VENV)/.dev-$(ACCELERATOR)-$(LOCK)
# Bytecode is made at installation: where none may be written, every start of a stage would compile torch anew.
export UV_COMPILE_BYTECODE := 1
# What may hold any name reaches the recipes as the environment, not as text of a shell.
export PHOTOS ?= examples/photos
export DEMO ?= .demo
export OVERLAY ?= gpu

.PHONY: help demo test test-slow test-cluster chaos fuzz lint docs hooks dist lock audit bench bench-s3 bench-accuracy bench-flames images deploy undeploy clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

$(VENV)/bin/uv:
	@echo "setting up $(VENV) (about a minute, 6 GB with torch)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(USE): $(VENV)/bin/uv
	@echo "installing torch and what else runs need (a minute or two)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(ACCELERATOR),demo,cluster]'
	@touch $@

$(DEV): $(VENV)/bin/uv
	@echo "installing torch and what else runs and tests need (a minute or two)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(ACCELERATOR),demo,dev]'
	@touch $@ $(USE)

demo: $(USE) ## run all stages on real photos (PHOTOS=DIR for your own) and write the report
	data="$$DEMO/dataset-$$(basename "$$(realpath -m -- "$$PHOTOS")")" && \
	$(BIN)/isc-jobs dataset make --out "$$data" -- "$$PHOTOS" && \
	$(BIN)/isc-jobs run-all --profile demo --source "$$data" --store "$$DEMO/store" --run demo $(ARGS)

test: $(DEV) ## run the tests with branch coverage
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term $(ARGS)

test-slow: $(DEV) ## the tests that take long: 100,000 hard views of odd pictures (ten minutes)
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

test-cluster: $(DEV) ## build the images and test on the cluster of KUBECONFIG, TEST_REGISTRY and AWS_ENDPOINT_URL_S3
	REGISTRY="$(TEST_REGISTRY)" ACCELERATOR=cpu images/build
	$(BIN)/python -m pytest tests/cluster tests/contract/test_api.py tests/chaos/test_api_faults.py tests/chaos/test_crash_cluster.py $(ARGS)

chaos: $(DEV) ## kill and spoil everything, everywhere: the table of docs/reliability.md (hours; ARGS='-k stage' for a part)
	mkdir -p .demo && rm -f .demo/chaos.jsonl
	CHAOS=all CHAOS_TALLY=.demo/chaos.jsonl $(BIN)/python -m pytest tests/chaos tests/cluster/test_cluster_disruptions.py $(ARGS)
	$(BIN)/python tests/chaos/tally.py .demo/chaos.jsonl docs/reliability.md

fuzz: $(DEV) ## damaged inputs for every parser, by coverage (SECONDS=3600; what breaks one is left in .demo/fuzz)
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(or $(SECONDS),3600) $(ARGS)

lint: $(DEV) ## style, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(DEV) ## make the reference pages and the documentation site in .site
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

hooks: $(DEV) ## have git check style, types and import rules before each commit
	$(BIN)/pre-commit install

dist: $(DEV) ## build the sdist and the wheel in dist/, and try the wheel in an environment of its own
	rm -rf dist .dist && $(BIN)/uv build --quiet --out-dir dist
	$(BIN)/uv venv --quiet --python $(BIN)/python .dist
	$(BIN)/uv pip install --quiet --python .dist/bin/python --constraint constraints.txt dist/*.whl
	cd dist && ../.dist/bin/isc-jobs --version && ../.dist/bin/isc-jobs estimate --json > /dev/null
	rm -rf .dist

lock: $(DEV) ## pin the newest versions that fit
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --python-version 3.11 pyproject.toml \
	  --extra cpu --extra gpu --extra search --extra cluster --extra weights --extra demo --extra onnx --extra dev --output-file constraints.txt

audit: $(DEV) ## look for published vulnerabilities of all pinned packages (needs pypi.org; fails where it cannot ask)
	$(BIN)/uv tool run --quiet --from pip-audit==2.10.1 pip-audit --strict --progress-spinner off --disable-pip --no-deps \
	  --requirement constraints.txt || { echo "audit: NOT PASSED: a vulnerability is named above, or a package that \
	could not be looked up at pypi.org" >&2; exit 1; }

bench: $(DEV) ## speed beside what one would use instead (ten minutes, on a machine that does nothing else)
	$(BIN)/python benchmarks/machine.py
	$(BIN)/python benchmarks/views_speed.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/postprocess.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/startup.py

bench-s3: $(DEV) ## the same of download, checkpoints and controller (versitygw, s5cmd and aws on the PATH)
	$(BIN)/python benchmarks/download.py --work .demo/s3
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/controller.py

bench-accuracy: $(DEV) ## what each training and option adds, three seeds (PHOTOS=DIR; hours, goes on where it was)
	$(BIN)/python benchmarks/accuracy.py --photos "$$PHOTOS" $(ARGS)

bench-flames: $(DEV) ## where training and extraction spend their time: docs/flames-*.svg
	$(BIN)/python benchmarks/flames.py

images: ## build and push the images (REGISTRY=…, IMAGE_BUILDER=docker|podman|buildah, ACCELERATOR=gpu|cpu)
	images/build

deploy: $(USE) ## set up a namespace for runs (OVERLAY=dev|gpu|kueue, STORE=s3://…, SOURCE=s3://…, SETTINGS=FILE.yaml)
	k8s/deploy
	$(BIN)/isc-jobs check $(CHECK)

undeploy: ## remove the namespace with all its runs; the store stays
	k8s/deploy --delete

clean: ## remove the environment and the demo
	rm -rf -- $(VENV) "$$DEMO"
