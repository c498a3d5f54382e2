PYTHON ?= python3
PIPELINE = $(PYTHON) -m pipeline

RUN ?= last

.PHONY: run test lab adopt model ui verify bench setup pins test-lab
run: ; @$(PIPELINE) run $(if $(JOBS),--jobs $(JOBS)) $(if $(FORCE),--force)
test: ; @$(PIPELINE) test $(ARGS)
lab: ; @$(PIPELINE) lab $(if $(ARGS),-- $(ARGS))
adopt: ; @$(PIPELINE) adopt '$(RUN)' $(if $(YES),--yes)
model: ; @$(PIPELINE) model '$(NAME)' $(if $(LIKE),--like '$(LIKE)')
ui: ; @$(PIPELINE) tool -- mlflow ui --backend-store-uri sqlite:///mlflow.db
verify: ; @$(PIPELINE) verify
bench: ; @$(PIPELINE) tool -- python benchmarks/bench.py
setup: ; @$(PIPELINE) setup
test-lab: ; @$(PIPELINE) test tests/lab
pins: ; uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate requirements.in -o requirements.txt && uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate -c requirements.txt requirements-dev.in -o requirements-dev.txt
