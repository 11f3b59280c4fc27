# The commands of this project; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
METHOD ?= cam
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help setup extras repro predict test quick lint smoke instrument campaign knobs cards status experiments bench-walk bench-crf bench-attention complexity paper-check gpu-check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

setup: $(VENV)/.installed  ## make .venv and install requirements.txt

$(VENV)/.installed: requirements.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

repro: setup  ## run the pipeline on what params.yaml names (bundled scenes), to the report
	dvc repro
	@echo "Report: $(CURDIR)/metrics/report/index.html"

predict: setup  ## masks of any photographs by the trained network: make predict IN=holiday OUT=masks
	python -m pipeline.predict "$(IN)" --out "$(OUT)"

extras: setup  ## install requirements-extras.txt: HEIC, CVAT, ONNX
	python -m pip install --quiet --disable-pip-version-check -r requirements-extras.txt

test: setup lint  ## lint and all tests; without the extras, which it tries to install, those of them are skipped
	-$(MAKE) --no-print-directory extras
	pytest -n 2 --dist loadfile

quick: setup  ## tests that take seconds
	pytest -n 2 --dist loadfile -m "not slow"

lint: setup  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy

knobs: setup  ## every knob with value, origin, bounds and meaning: make knobs KNOBS=toco METHOD=dual_branch
	@python -m tools.knobs $(KNOBS) $(if $(filter command line environment,$(origin METHOD)),--method $(METHOD)) \
	  $(if $(PROFILE),--profile $(PROFILE))

status: setup  ## which stages would run, and which change of knob, code or data is the reason
	@python -m tools.status

experiments: setup  ## all experiments and what differs between them, in 160 columns
	@python -m tools.experiments

smoke: setup  ## the whole chain through DVC on a dozen scenes, in a copy: make smoke METHOD=cam
	python -m tools.smoke $(METHOD)

instrument: setup  ## what scenes and compact profile can tell apart: make instrument DRAWING=7 METHODS="cam supervised"
	@python -m tools.instrument $(if $(DRAWING),--drawings $(DRAWING)) $(if $(METHODS),--methods $(METHODS))

campaign: setup  ## kills, full disks, damage, bad inputs, two runs at once: half an hour; make campaign TASKS="kills-cam inputs"
	python -m tools.campaign $(TASKS)

cards: setup  ## fill the tables of docs/: knobs as declared, settings of the paper profile
	python -m tools.cards
	python -m tools.paper_settings

bench-walk: setup  ## random walk: dense squaring beside ours, in one process
	python -m tools.bench_walk

bench-crf: setup  ## CRF: two labellings in one field beside separate runs
	python -m tools.bench_crf

bench-attention: setup  ## TransCAM: peak memory by how attention is kept, beside stacking it
	python -m tools.bench_attention

paper-check: setup  ## every paper preset, whole, on a CPU: three steps of each training, as for VOC and COCO
	python -m tools.paper_check

complexity: setup  ## ToCo and the dual branch: parameters, multiply-adds, what one encoding of every view saves
	python -m tools.complexity

gpu-check: setup  ## paper presets and networks on this machine's device: seconds, memory, agreement with the CPU
	python -m tools.gpu_check

clean:  ## remove what a killed run left behind
	rm -rf .resume .smoke
	find data metrics -name '.*.unfinished*' -prune -exec rm -rf {} +
