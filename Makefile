# Timbrel's commands. Each sets up what it needs in .venv by itself, and only once.
#   PYTHON=python3.12 make …   chooses the interpreter (3.11 or 3.12)
SHELL := bash
.DEFAULT_GOAL := help
VENV := $(or $(TIMBREL_VENV),.venv)
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: help setup-serve setup serve monitor test unit lint format proto repro smoke studies mlflow lock readme clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup-serve:
	@scripts/setup serve

setup:
	@scripts/setup serve traces pipeline scale encoders dev

serve: setup-serve ## start everything: the models in Triton, the HTTP service on 127.0.0.1:3000
	@exec $(BIN)/timbrel serve

monitor: setup-serve ## Prometheus and Alertmanager beside the service, on 127.0.0.1 (WEBHOOK=http://… for notifications)
	@exec $(BIN)/python monitoring/start.py $(if $(WEBHOOK),--webhook $(WEBHOOK))

test: lint ## set up, lint, then all tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

unit: setup ## the quick tests only
	@$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

lint: setup ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONWARNINGS=ignore $(BIN)/lint-imports --no-cache

format: setup ## put the code into ruff's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

proto: setup ## generate the Python modules of src/timbrel/v1/timbrel.proto
	@$(BIN)/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src --grpc_python_out=src timbrel/v1/timbrel.proto

repro: setup ## rebuild what params.yaml or the code changed
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/dvc repro && $(BIN)/python scripts/readme.py && $(BIN)/python scripts/reference

smoke: setup ## the whole pipeline in miniature, in a temporary clone
	@$(BIN)/python -m pytest tests/integration/test_pipeline.py $(PYTEST_ARGS)

studies: setup ## the paper's studies on data/ (STUDY=ablations for one): reports/studies
	@$(BIN)/python -m timbrel.studies $(or $(STUDY),all) $(STUDY_ARGS)

mlflow: setup ## look at the training runs on 127.0.0.1:5000 (PORT=… for another)
	@exec $(BIN)/python -m timbrel.tracking --port $(or $(PORT),5000)

readme: setup ## bring docs/reference and the generated parts of README.md up to date
	@$(BIN)/python scripts/readme.py
	@$(BIN)/python scripts/reference

lock: setup ## write requirements/*.lock from the .in files and what is installed, and the hashes of serve.lock
	@$(BIN)/python requirements/lock.py
	@$(BIN)/python requirements/hashes.py

clean: ## remove .venv, caches and build/ (not data/, bundle/ or the training runs)
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache .hypothesis src/*.egg-info
