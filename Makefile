# `make test` and `make reproduce` do all their own set-up; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PROFILE ?= tiny
# chapters at a time; empty: two where there are two cores
JOBS ?=
# FULL=1: ask about every clip again, also where kept predictions fit
FULL ?=
PYTHON ?= python3

# One thread a process: torch's default pool spins on shared cores.
export OMP_NUM_THREADS ?= 1
export YOLO_AUTOINSTALL ?= false
export YOLO_CONFIG_DIR ?= $(CURDIR)/runs/ultralytics
export SAM2_BUILD_CUDA ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help install test reproduce ablations weights site lab bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## virtual environment, pinned packages, notebook kernel; nothing to do when up to date

$(STAMP): settings.ini pyproject.toml constraints.txt scripts/bootstrap.sh
	@bash scripts/bootstrap.sh "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

test: install  ## the notebooks' own tests, then tests/
	@bash scripts/test.sh

reproduce: install  ## run every chapter headless, regenerate tables and figures (PROFILE=tiny JOBS=2 FULL=1)
	$(VENV)/bin/stvg reproduce --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS)) $(if $(filter-out 0,$(FULL)),--full)

ablations: install  ## train and ship the rows of the tables from the shipped base, hours; finished units are kept
	$(PY) scripts/weights.py --rows

weights: install  ## train and ship the detector and the base policy again, hours; finished units are kept
	$(PY) scripts/weights.py

site: install  ## build the documentation: Quarto where it is installed, else the checked second route
	$(PY) scripts/build_site.py

lab: install  ## open JupyterLab on the chapters
	cd nbs && $(CURDIR)/$(VENV)/bin/jupyter lab

bench: install  ## run every benchmark at full length
	@for script in bench/[a-z]*.py; do $(PY) $$script --json bench/results/$$(basename $$script .py)-cpu.json; done

clean:  ## remove the environment, runs and site builds
	rm -rf $(VENV) runs _proc _docs build dist *.egg-info
