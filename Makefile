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
PHOTOS ?= examples/photos
DEMO ?= .demo
export OVERLAY ?= gpu

.PHONY: help demo test test-slow test-cluster lint lock bench bench-s3 bench-accuracy bench-flames images deploy undeploy clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

$(VENV)/bin/uv:
	@echo "setting up $(VENV) (about a minute, 6 GB with torch)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(USE): $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(ACCELERATOR),demo,cluster]'
	@touch $@

$(DEV): $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(ACCELERATOR),demo,dev]'
	@touch $@ $(USE)

demo: $(USE) ## run all stages on real photos (PHOTOS=DIR for your own) and write the report
	$(BIN)/isc-jobs dataset make "$(PHOTOS)" --out "$(DEMO)/dataset-$(notdir $(abspath $(PHOTOS)))"
	$(BIN)/isc-jobs run-all --profile demo --source "$(DEMO)/dataset-$(notdir $(abspath $(PHOTOS)))" --store "$(DEMO)/store" \
	  --run "demo" $(ARGS)

test: $(DEV) ## run the tests with branch coverage
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term $(ARGS)

test-slow: $(DEV) ## the tests that take long: 100,000 hard views of odd pictures (ten minutes)
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

test-cluster: $(DEV) ## build the images and test on the cluster of KUBECONFIG, TEST_REGISTRY and AWS_ENDPOINT_URL_S3
	REGISTRY=$(TEST_REGISTRY) ACCELERATOR=cpu images/build
	$(BIN)/python -m pytest tests/cluster tests/contract/test_api.py $(ARGS)

lint: $(DEV) ## style, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: $(DEV) ## pin the newest versions that fit
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --python-version 3.11 pyproject.toml \
	  --extra cpu --extra gpu --extra search --extra cluster --extra weights --extra demo --extra onnx --extra dev --output-file constraints.txt

bench: $(DEV) ## speed beside what one would use instead (half an hour, on a machine that does nothing else)
	$(BIN)/python benchmarks/views_speed.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/loss.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/postprocess.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/startup.py

bench-s3: $(DEV) ## the same of download, checkpoints and controller (versitygw, s5cmd and aws on the PATH)
	$(BIN)/python benchmarks/download.py --work .demo/s3
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/controller.py

bench-accuracy: $(DEV) ## what each training and option adds, three seeds (PHOTOS=DIR; hours, goes on where it was)
	$(BIN)/python benchmarks/accuracy.py --photos "$(PHOTOS)" $(ARGS)

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
	rm -rf $(VENV) $(DEMO)
