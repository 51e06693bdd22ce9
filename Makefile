# `make test` and `make reproduce` do all their own set-up; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The folder of the environment, which `make clean` removes: never taken from the caller's own VENV, only from the
# command line, `make VENV=somewhere`.
ifneq ($(origin VENV),command line)
override VENV := .venv
endif
PROFILE ?= tiny
# chapters at a time; empty: two where there are two cores
JOBS ?=
# FULL=1: ask about every clip again, also where kept predictions fit
FULL ?=
PYTHON ?= python3

# A value as one word of the shell, whatever stands in it; `$(value NAME)` is what the caller wrote, unexpanded
quote = '$(subst ','\'',$(1))'
WHOLE := $(if $(filter /%,$(firstword $(value VENV))),,$(CURDIR)/)$(value VENV)
BIN := $(WHOLE)/bin
PY := $(call quote,$(BIN)/python)

# One thread a process: torch's default pool spins on shared cores.
export OMP_NUM_THREADS ?= 1
export YOLO_AUTOINSTALL ?= false
export YOLO_CONFIG_DIR ?= $(CURDIR)/runs/ultralytics
export SAM2_BUILD_CUDA ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(BIN):$(PATH)

.PHONY: help install test reproduce ablations weights site lab bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install:  ## virtual environment, pinned packages, notebook kernel; nothing to do when up to date
	@bash scripts/bootstrap.sh $(call quote,$(value PYTHON)) $(call quote,$(WHOLE))

test: install  ## the notebooks' own tests, then tests/
	@bash scripts/test.sh

reproduce: install  ## run the chapters of the tables and figures headless, regenerate them (PROFILE=tiny JOBS=2 FULL=1)
	$(PY) -m stvg_nb.cli reproduce --profile $(call quote,$(value PROFILE)) \
	  $(if $(JOBS),--jobs $(call quote,$(value JOBS))) $(if $(filter-out 0,$(FULL)),--full)

ablations: install  ## train and ship the rows of the tables from the shipped base, hours; finished units are kept
	$(PY) scripts/weights.py --rows

weights: install  ## train and ship the detector and the base policy again, hours; finished units are kept
	$(PY) scripts/weights.py

site: install  ## build the documentation: Quarto where it is installed, else the checked second route
	$(PY) scripts/build_site.py

# what JupyterLab is told: root is allowed; in a container it listens to the outside (its token still guards it)
LAB := $(if $(filter 0,$(shell id -u)),--allow-root) \
  $(if $(wildcard /.dockerenv /run/.containerenv),--no-browser --ip=0.0.0.0)

lab: install  ## open JupyterLab on the chapters
	cd nbs && $(PY) -m jupyterlab $(LAB) index.ipynb

bench: install  ## run every benchmark at full length
	@for script in bench/[a-z]*.py; do \
	  [ "$$script" = bench/common.py ] || $(PY) "$$script" --json "bench/results/$$(basename "$$script" .py)-cpu.json"; \
	done

clean:  ## remove the environment that `make install` made, runs and site builds
	@bash scripts/clean.sh $(call quote,$(WHOLE))
