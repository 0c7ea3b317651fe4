# Everything a user types. `make repro` and `make test` work on a fresh machine with Python 3.11, Node.js and git.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
# Bytecode is kept in .venv: without it every stage would compile torch's sources anew, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

# The small profile: 1,000 images, one view, three epochs, two seeds, a coarse landscape and curvature.
QUICK := data.images=1000 features.views=1 features.train_eval_images=200 train.epochs=3 seeds=[0,1] \
         landscape.points=15 gradients.batches=20 curvature.images=100 curvature.grid_images=50 \
         curvature.grid_points=3 curvature.eigenvalues=2 curvature.probes=4 curvature.lanczos_steps=12 curvature.pairs=2

# The reference run: the fewest seeds with which both families of contrasts can be significant over seeds, since a
# sign-flip test then reaches p = 2/2^8, which Holm's correction over the six contrasts between norms makes 0.047.
REFERENCE := seeds=[0,1,2,3,4,5,6,7]

# Half the time of pip, which is slow to unpack 5 GB one after the other.
INSTALL = .venv/bin/uv pip install --quiet --no-cache --python .venv/bin/python --require-hashes -r requirements.lock
PIP_INSTALL = .venv/bin/python -m pip install --quiet --no-compile --require-hashes -r requirements.lock

# MobileNetV2 for a GPU: every image, 200 epochs, three seeds.
FULL := epochs=200 percent=100 strides=reduce_8 precision=auto batch_size=128 lr=0.1 schedule=cosine 'seeds=[0,1,2]'

.PHONY: help setup repro quick reference neighbours full test bench plots page clean distclean
help:  ## list the commands
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: .dvc/plots/offline.html  ## install the pinned packages into .venv
	@$(follow_git)
	@test ! -x .venv/bin/python || LINE='$(OWN_PYTHON_FIRST)' .venv/bin/python -c \
	  "import os, pathlib, sysconfig as s; pathlib.Path(s.get_path('purelib'), 'own_python.pth').write_text(os.environ['LINE'])"

# What the environment's programs start, as DVC does stages, finds the environment's Python, activated or not: Python runs
# this line of a .pth file whenever it starts.
OWN_PYTHON_FIRST := import os, sys; own = os.path.dirname(sys.executable); \
path = os.environ.get("PATH", ""); own in path.split(os.pathsep) or os.environ.update(PATH=own + os.pathsep + path)

# DVC must be told where git does not track this folder, as after a ZIP download, and where it does after all.
define follow_git
if git ls-files --error-unmatch dvc.yaml > /dev/null 2>&1; \
	then ! grep -qs no_scm .dvc/config.local || dvc config --local --unset core.no_scm; \
	else grep -qs no_scm .dvc/config.local || dvc config --local core.no_scm true; fi
endef

.venv/share/vega.js: requirements.lock
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==0.13.9
	$(INSTALL) || { echo "uv could not install the packages; pip, slower, knows more about mirrors"; $(PIP_INSTALL); }
	mkdir -p .venv/share
	.venv/bin/python -c "import vl_convert; print(vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;'))" > $@.tmp
	mv $@.tmp $@

# The plots page with Vega inside: it needs no network, wherever it is written.
.dvc/plots/offline.html: .dvc/plots/page.html .venv/share/vega.js
	sed '/^\/\* Vega \*\/$$/r .venv/share/vega.js' $< > $@.tmp
	dvc config --quiet --local plots.html_template plots/offline.html
	mv $@.tmp $@

repro: setup  ## run what is stale of the study
	dvc repro

# $(call checkout,FOLDER): the working tree without results, in FOLDER, as a DVC project of its own.
define checkout
	python -m stages.tools.checkout $(1)
	cd $(1) && dvc config --quiet --local core.no_scm true
	cd $(1) && dvc config --quiet --local plots.html_template "$(CURDIR)/.dvc/plots/offline.html"
endef
override = python -c "import sys; from dvc.utils.hydra import apply_overrides; apply_overrides('params.yaml', sys.argv[1:])"

# Its stages start with torch imported, which takes longer than most of them work.
quick: setup  ## the whole study, small, in .quick; the real results stay untouched
	rm -rf .quick
	$(call checkout,.quick)
	cd .quick && $(override) $(QUICK) && python -m stages.tools.preloaded dvc repro && dvc metrics show metrics/train/*.json --md
	@echo "figures: .quick/plots/figures"

reference: setup  ## the study with eight seeds, in .reference; results to metrics/reference and plots/reference
	$(call checkout,.reference)
	rm -rf .reference/metrics .reference/plots
	cd .reference && dvc cache dir --quiet --local "$(CURDIR)/.dvc/cache" && $(override) $(REFERENCE) && dvc repro
	rm -rf metrics/.partial plots/.partial && mkdir plots/.partial
	cp -r .reference/metrics metrics/.partial && cp .reference/dvc.lock metrics/.partial
	cp -r .reference/plots/curves .reference/plots/statistics plots/.partial
	rm -rf metrics/reference plots/reference
	mv metrics/.partial metrics/reference && mv plots/.partial plots/reference
	@echo "report and slides: .reference/plots/documents"

neighbours: setup  ## the side studies and a report on them, for hours
	dvc repro stages/neighbours/dvc.yaml

full: setup  ## MobileNetV2 and its variants at full length, for a GPU: an experiment of DVC
	dvc exp run $(addprefix -S mobilenetv2.,$(FULL)) stages/mobilenetv2/dvc.yaml

test: setup  ## run the tests
	ruff check stages tests
	ruff format --check stages tests
	lint-imports --no-cache
	python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

bench: setup  ## compare the cost of the study with a plain fine-tuning loop
	dvc repro --quiet prepare backbone
	python -m stages.tools.benchmark

plots: setup  ## write dvc_plots/index.html, a page with all curves and figures
	dvc plots show

page: setup  ## write README.md and the studies' pages from their templates and the results
	python -m stages.tools.page

clean:  ## remove scratch files; results, their cache and the user's downloads stay
	rm -rf .quick .reference .scratch dvc_plots .pytest_cache .ruff_cache
	find stages tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove the installed packages too
	rm -rf .venv
