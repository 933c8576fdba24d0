PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test zoo lint docs clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/camcli explain sample_images/ --method gradcam,layercam,cam --format table --report \
	    --output camcli-demo/last-layer --overwrite
	$(BIN)/camcli explain sample_images/ --method layercam --layers stage1..5 --format table \
	    --save overlay,heatmap,grid,boxes,array --output camcli-demo/stages --overwrite
	$(BIN)/camcli explain sample_images/ --method tscam --format table \
	    --save overlay,grid --output camcli-demo/tscam --overwrite
	$(BIN)/camcli evaluate localization sample_images/ --method gradcam,layercam --format table \
	    --output camcli-demo/boxes --overwrite
	$(BIN)/camcli compare sample_images/chelsea.jpg --format table \
	    --output camcli-demo/methods --overwrite
	$(BIN)/camcli figure sample_images/ --method layercam --columns image,stage1..5,fused \
	    --output camcli-demo/figure.png --overwrite
	@echo
	@echo 'Open these files first:'
	@echo '  camcli-demo/figure.png: four pictures by five stages of LayerCAM, as for a paper'
	@echo '  camcli-demo/last-layer/report.html: all results on one page, in a browser'
	@echo '  camcli-demo/stages/chelsea.egyptian-cat.layercam.grid.jpg: LayerCAM from edges to the whole object'
	@echo '  camcli-demo/methods/chelsea.egyptian-cat.compare.jpg: all fast methods side by side'
	@echo '  camcli-demo/tscam/motorcycle_left.moped.tscam.grid.jpg: TS-CAM, its attention and its semantic map'
	@echo '  camcli-demo/last-layer/coffee.espresso.gradcam.overlay.jpg: Grad-CAM with its box'
	@echo '  camcli-demo/last-layer/rocket.drilling-platform.gradcam.overlay.jpg: why the network was wrong'
	@echo '  camcli-demo/boxes/gallery.tf_efficientnet_lite0-gradcam-bn2.jpg: boxes beside the ground truth'

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto

zoo: $(VENV)/installed-test
	$(BIN)/pytest -n auto -m zoo tests/models/test_zoo.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python docs/tables.py

clean:
	rm -rf $(VENV) camcli-demo camcli-out* build *.egg-info
