# make demo           installs the bundle on a fresh machine and registers the samples
# make test           runs the linters, the type checker and the tests; make test-slow runs the long ones
# make release        builds the archive for the Model Zoo in dist/ and tests that MONAI can use it
# make label-server   serves the samples with MONAI Label; make test-label tests such a server
# make benchmark-gpu  measures speed and memory on a GPU
PYTHON ?= python3
BIN := .venv/bin
BUNDLE := $(BIN)/python -W ignore::UserWarning -m monai.bundle run --overwrite true
SAMPLES := tests/data

LABEL := .venv-label/bin
STUDIES ?= eval/label/studies
ATLASES ?= eval/label/atlases/brain,eval/label/atlases/hippocampus,eval/label/atlases/cardiac
PORT ?= 8000

.PHONY: demo test test-slow lint benchmark-gpu label-server test-label release clean

demo: .venv/installed
	$(BUNDLE) --config_file configs/inference.yaml \
		--datalist $(SAMPLES)/sunnybrook/pairs.json --output_dir eval/demo/cardiac
	$(BUNDLE) --config_file "['configs/inference.yaml','configs/hippocampus.yaml']" \
		--datalist $(SAMPLES)/hippocampus/pairs.json --output_dir eval/demo/hippocampus
	$(BUNDLE) --config_file "['configs/inference.yaml','configs/brain.yaml']" \
		--datalist $(SAMPLES)/brain_synthetic/pairs.json --output_dir eval/demo/brain
	$(BUNDLE) --config_file "['configs/inference.yaml','configs/cine.yaml']" \
		--datalist $(SAMPLES)/cine/cines.json --output_dir eval/demo/cine
	@$(BIN)/python -m scripts.report eval/demo/cardiac eval/demo/hippocampus eval/demo/brain \
		--output eval/demo/report.html
	@$(BIN)/python -m scripts.results.tables eval/demo/cardiac eval/demo/hippocampus eval/demo/brain

test: .venv/installed-test lint
	$(BIN)/python -m pytest --numprocesses 2 -m "not slow"

test-slow: .venv/installed-test
	$(BIN)/python -m pytest --numprocesses 2 -m slow

benchmark-gpu: .venv/installed
	$(BIN)/python -m scripts.tools.benchmark speed --device cuda
	$(BIN)/python -m scripts.tools.benchmark memory --device cuda
	$(BIN)/python -m scripts.tools.benchmark growth --device cuda --output_dir eval/growth_gpu

release: .venv/installed-test
	$(BIN)/python -m scripts.tools.release
	GRADIRN_ZIP=$$(ls -t dist/gradirn_v*.zip | head -n 1) $(BIN)/python -m pytest tests/tools/test_release.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

label-server: .venv-label/installed
	$(LABEL)/python -m scripts.label_app.samples eval/label
	$(LABEL)/python -m monailabel.main start_server --app scripts/label_app --studies "$(STUDIES)" \
		--host 127.0.0.1 --port $(PORT) --conf atlases "$(ATLASES)" --conf zoo_source local --conf sam2 false

test-label: .venv-label/installed
	$(LABEL)/python -m pytest tests/label_app

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" && false)
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --requirement requirements.txt --constraint constraints.txt
	touch $@

.venv/installed-test: requirements-test.txt requirements-brain.txt .venv/installed
	$(BIN)/pip install --quiet --requirement requirements-test.txt --constraint constraints.txt
	touch $@

.venv-label/installed: requirements-label.txt
	$(PYTHON) -m venv .venv-label
	$(LABEL)/pip install --quiet --requirement requirements-label.txt
	touch $@

clean:
	rm -rf .venv .venv-label eval dist
