# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
SKINLESION := $(BIN)/skinlesion

DATA ?= data
PORT ?= 8000
WEIGHTS ?= weights
FOLDS ?= $(DATA)/folds.csv

PYTHON312 ?= python3.12
GPU_ENV ?= build/gpu_machine
SECONDS ?=
PACK = -m benchmarks.offline_gpu pack --data $(DATA) --weights $(WEIGHTS) --folds $(FOLDS)
CPU := data.root=$(DATA) 'model.pretrained=$(WEIGHTS)/$${model.backbone}.safetensors'

RELEASE ?= build/release
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800) # the time that archives name
MINIMAL := $(addprefix tests/,model/test_fusion.py data/test_splits.py training/test_losses.py metrics/test_classification.py \
	deploy/test_hub.py commands/test_predict.py)

TWO := hydra/launcher=joblib hydra.launcher.n_jobs=2

MEMBERS := $(foreach backbone,mobilenetv1_100 mobilenetv2_100,$(foreach loss,a04_g21 a05_g20 a06_g19,$(backbone)-$(loss)))
ABLATIONS := full no_metadata no_gate no_attention no_funnel no_focal no_class_weights no_fact_dropout
comma := ,
space := $(subst ,, )

.PHONY: help demo serve results results-deep results-seeds results-folds ablation results-gpu bench bench-gpu gpu-pack gpu-run gpu-rehearse dist site pictures sbom test-min test test-all lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(BIN)/.installed ## train six tiny members on synthetic data, let them vote, draw the figures (minutes)
	$(SKINLESION) synthetic data.root=demo/data n=1000 min_per_class=90
	$(SKINLESION) train sweep=six experiment=demo hydra/launcher=joblib hydra.launcher.n_jobs=2
	$(SKINLESION) ensemble members=demo/runs split=test
	$(SKINLESION) evaluate ensemble=demo/runs/ensemble/ensemble.json split=test

serve: $(BIN)/.installed ## open the demo ensemble's page and API on PORT (trained and exported first if it is not there)
	test -f demo/runs/ensemble/ensemble.json || $(MAKE) demo
	test -f demo/bundle/bundle.json || $(SKINLESION) export ensemble=demo/runs/ensemble/ensemble.json out=demo/bundle
	$(SKINLESION) serve bundle=demo/bundle port=$(PORT)

results: $(BIN)/.installed ## train and judge the recipes that need no GPU (DATA=folder WEIGHTS=folder)
	$(SKINLESION) train sweep=six experiment=ham10000_cpu $(TWO) $(CPU)
	$(SKINLESION) ensemble members=runs/ham10000_cpu split=test
	$(SKINLESION) train sweep=six experiment=ham10000_cpu_brief $(CPU)
	$(SKINLESION) ensemble members=runs/ham10000_cpu_brief split=test
	$(SKINLESION) ensemble split=test out=runs/twelve smallest=12 largest=12 id_pass_rate=null \
		members=[$(subst $(space),$(comma),$(foreach run,ham10000_cpu ham10000_cpu_brief,$(MEMBERS:%=runs/$(run)/%/best.ckpt)))]

results-deep: $(BIN)/.installed ## the deeply tuned pair on three seeds of the published split (two hours on two cores)
	for seed in 666 1 2; do out=runs/deep/$$seed; \
		$(SKINLESION) train sweep=six experiment=ham10000_cpu_deep loss=a05_g20 expected_members=2 split.seed=$$seed out=$$out \
			$(TWO) $(CPU) && $(SKINLESION) ensemble members=$$out split=test id_pass_rate=null || exit 1; done

results-seeds: $(BIN)/.installed ## the frozen six on three seeds of the published split
	for seed in 666 1 2; do out=runs/seeds/$$seed; \
		$(SKINLESION) train sweep=six experiment=ham10000_cpu split.seed=$$seed out=$$out $(TWO) $(CPU) && \
		$(SKINLESION) ensemble members=$$out split=test || exit 1; done

results-folds: $(BIN)/.installed ## four tuned members on each of five folds of all images, judged together
	for fold in 0 1 2 3 4; do out=runs/folds/$$fold; \
		$(SKINLESION) train sweep=six experiment=ham10000_folds expected_members=4 split.fold=$$fold out=$$out $(TWO) $(CPU) && \
		$(SKINLESION) ensemble members=$$out split=test smallest=4 id_pass_rate=null || exit 1; done
	$(SKINLESION) compare 'tables=[runs/folds/*/ensemble/predictions_test.csv]' out=runs/folds/compare.json

ablation: $(BIN)/.installed ## what each part of the recipe is worth, on validation, with paired intervals
	$(SKINLESION) train sweep=ablation experiment=ham10000_head $(CPU)
	$(SKINLESION) compare out=runs/ablation/compare.json \
		tables=[$(subst $(space),$(comma),$(ABLATIONS:%=runs/ablation/%/predictions_val.csv))]

results-gpu: results ## and those that need one; these have never been run
	$(SKINLESION) train sweep=six experiment=ham10000_gpu data.root=$(DATA)
	$(SKINLESION) ensemble members=runs/ham10000_gpu split=test tta=flips
	$(SKINLESION) train experiment=ham10000_xception model=legacy_xception data.root=$(DATA) \
		model.pretrained=$(WEIGHTS)/legacy_xception.safetensors

bench: $(BIN)/.installed ## measure what needs no GPU; writes benchmarks/results and docs/performance.md (BENCH=toy: only try)
	$(BIN)/python -m benchmarks $(if $(filter toy,$(BENCH)),--toy)

bench-gpu: $(BIN)/.installed ## and what needs one (BENCH=toy: try it on the CPU)
	$(BIN)/python -m benchmarks --gpu $(if $(filter toy,$(BENCH)),--toy)

gpu-pack: $(BIN)/.installed ## pack what a GPU machine without a network needs, into gpu/ (DATA=folder WEIGHTS=folder FOLDS=file)
	$(BIN)/python $(PACK)

gpu-run: ## on that machine: one step in its time (STEP=six, bench, folds or seeds)
	$(PYTHON) -m benchmarks.offline_gpu run $(STEP) $(if $(SECONDS),--seconds $(SECONDS))

gpu-rehearse: $(GPU_ENV)/.installed ## pack, and try each step on the CPU with nothing but that and what the machine has
	$(GPU_ENV)/bin/python $(PACK)
	$(GPU_ENV)/bin/python -m benchmarks.offline_gpu.rehearse $(GPU_ENV)/bin/python gpu

# files in their order: the long ones of tests/commands first
test: lint ## lint, types and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: test ## and the long ones: fuzz, load, the page in Chromium, the steps of the Dockerfile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m exhaustive

lint: $(BIN)/.installed ## lint and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(RELEASE)/.installed ## build sdist and wheel into dist/, and again to see that they come out the same
	rm -rf dist build/again
	for out in dist build/again; do $(RELEASE)/bin/python -m build --outdir $$out . >/dev/null || exit 1; done
	cd dist && sha256sum * | tee ../build/sha256sums && cd ../build/again && sha256sum --check --quiet ../sha256sums

site: $(BIN)/.docs ## build the documentation into build/site, without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html; with search: $(PYTHON) -m http.server --directory build/site"

pictures: $(BIN)/.installed ## draw docs/images from the published numbers and data/bundle
	$(BIN)/python docs/pictures.py

sbom: $(BIN)/.installed $(RELEASE)/.installed ## list the environment's packages as CycloneDX, in dist/sbom.json
	mkdir -p dist
	$(RELEASE)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o dist/sbom.json

test-min: $(RELEASE)/.installed ## try the lowest versions that pyproject.toml allows, in build/min (several GB)
	$(RELEASE)/bin/uv venv --quiet --clear --python $(PYTHON) build/min
	$(RELEASE)/bin/uv pip install --quiet --python build/min/bin/python --resolution lowest-direct \
		--editable '.[export,serve]' 'pytest>=8' 'hypothesis>=6.100'
	OMP_NUM_THREADS=1 build/min/bin/python -m pytest -q -W default $(MINIMAL)

format: $(BIN)/.installed ## put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## delete what the demo made
	rm -rf demo

$(BIN)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BIN)/.docs: $(BIN)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(RELEASE)/.installed: pyproject.toml
	test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --constraint constraints.txt 'build>=1.2' 'cyclonedx-bom>=7' 'uv>=0.6'
	@touch $@

$(GPU_ENV)/.installed: benchmarks/offline_gpu/machine.txt
	test -x $(GPU_ENV)/bin/python || $(PYTHON312) -m venv $(GPU_ENV)
	$(GPU_ENV)/bin/python -m pip install --quiet --requirement $<
	@touch $@
