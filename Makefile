# Each target is one command; `make` lists them. Variables reach it by the environment, so that no shell reads their values.
define HELP
make TARGET VARIABLE=value ...

Results
  run          bring every result up to date, in parallel           JOBS=2 FORCE=1
  verify       hash every result again and name what is damaged
  report       what this branch changed in the results, as Markdown BASE=main OUT=report.md
  test         lint and test                                        ARGS='-k page'
  test-foreign, test-github, test-lab, test-remote, test-serve, test-serve-ray, test-sweep    the slow tests  ARGS=...
  test-processors                         the same bytes on emulated processors

Notebooks
  lab          open JupyterLab on the project                       PORT=8899 ARGS=--no-browser
  ui           open MLflow's page on the local runs                 PORT=5001
  model        make the notebook and parameters of a new model      NAME=vit LIKE=mlp
  adopt        take a run's parameters into params.yaml             RUN=last MODEL=cnn YES=1
  sweep        try many values of a model's parameters              MODEL=cnn FORCE=1 ENGINE=ray
  git          show and merge notebooks by cells, commit source only
               (nbproof git --remove undoes it)

Servers and models
  remote       set, or without variables try, servers               URL= TRACKING= DATA= ENDPOINT=
  push, pull   send or bring data, models and reports
  sync         send runs that the server did not take yet
  secrets      which secrets are set, never a value
  promote      register the champion, or a model                    MODEL=cnn CHALLENGER=1 EVIDENCE=1
  predict      ask the registered champion                          INPUT=image.png
  drift        what the server was asked, beside the data; an alarm is an error (3)
  harvest      labelled inputs of the server's log into the data    YES=1
  serve        serve the champion: a page, an interface, a log      PORT=8000 HOST= IMAGES=1
               ... with the models on a Ray cluster                 RAY_ADDRESS=HOST:PORT REPLICAS=2:4
  rollback     let the champion before this one answer again
  try          one page that asks a model in the browser            MODEL=cnn
  forget       empty the server's log

This folder
  setup        make .venv, nothing else                             PYTHON=python3.12
  new          make a project of your own                           DIR=../mine
  pins         compile requirements*.in into the locked *.txt       UPGRADE=1 CPU=1
  bench, bench-serve, bench-sweep    measure
  pictures     the README's pictures, anew                          MERMAID=mermaid.min.js
endef
export HELP

PYTHON ?= python3
NBPROOF = $(PYTHON) -I nbproof/workspace/bootstrap.py
TESTS = $(NBPROOF) tool --tests -- pytest
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --no-emit-index-url $(if $(UPGRADE),--upgrade)
COMMANDS = run verify report lab ui model adopt sweep git push pull sync secrets promote predict serve rollback try forget drift harvest setup new

.PHONY: help remote test test-foreign test-github test-lab test-remote test-serve test-serve-ray test-sweep test-processors pins locked bench bench-serve bench-sweep pictures $(COMMANDS)
help: ; @echo "$$HELP"
$(COMMANDS): ; @$(NBPROOF) $@
remote: ; @$(NBPROOF) remote $(if $(filter undefined,$(origin URL)),,$(if $(URL),,--unset))
test:
	@ARGS= $(NBPROOF) tool --tests -- ruff check .
	@$(TESTS) tests --ignore=tests/foreign --ignore=tests/lab --ignore=tests/processors --ignore=tests/remote \
	  --ignore=tests/serve --ignore=tests/serve_ray --ignore=tests/sweep --ignore=tests/github/test_mutations.py
test-foreign: ; @$(TESTS) tests/foreign -n 3 --dist loadgroup
test-github: ; @$(TESTS) tests/github -n 0
test-lab: ; @$(TESTS) tests/lab
test-remote: ; @$(TESTS) tests/remote
test-serve: ; @$(TESTS) tests/serve -n 0
test-serve-ray: ; @$(TESTS) tests/serve_ray -n 0
test-processors: ; @$(TESTS) tests/processors -n 0
test-sweep: ; @$(TESTS) tests/sweep -n 0
bench: ; @$(NBPROOF) tool -- python benchmarks/bench.py
pictures: ; @$(NBPROOF) tool --tests -- python docs/pictures.py
bench-serve: ; @$(NBPROOF) tool --tests -- python benchmarks/bench_serve.py
bench-sweep: ; @$(NBPROOF) tool --sweep -- python benchmarks/bench_sweep.py
pins: ; @$(NBPROOF) tool -- $(MAKE) --silent locked
locked: # in one go, in the environment as it was
	$(LOCK) requirements.in -o requirements.txt
	grep -v '^-e' requirements.txt > .venv/pins
	$(LOCK) --no-deps -c .venv/pins requirements-results.in -o requirements-results.txt
	$(LOCK) -c .venv/pins requirements-review.in -o requirements-review.txt
	$(LOCK) -c .venv/pins requirements-sweep.in -o requirements-sweep.txt
	$(if $(CPU),$(LOCK) --torch-backend cpu -c .venv/pins requirements.in -o requirements-cpu.txt)
	cat requirements-sweep.txt >> .venv/pins
	$(LOCK) -c .venv/pins requirements-serve.in -o requirements-serve.txt
	$(LOCK) -c .venv/pins -c requirements-serve.txt requirements-serve-ray.in -o requirements-serve-ray.txt
	$(LOCK) -c .venv/pins requirements-dev.in -o requirements-dev.txt
	$(LOCK) -c .venv/pins --extra remote pyproject.toml nbproof/workspace/template/requirements-results.in -o nbproof/workspace/template/pins.txt
	$(LOCK) --no-deps -c .venv/pins nbproof/workspace/template/requirements-results.in -o nbproof/workspace/template/pins-results.txt
