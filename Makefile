PYTHON ?= python3
PIPELINE = $(PYTHON) -m pipeline

RUN ?= last

.PHONY: run test test-lab test-remote test-sweep lab adopt model ui sync sweep remote push pull secrets promote predict verify report bench bench-sweep setup pins
run: ; @$(PIPELINE) run $(if $(JOBS),--jobs $(JOBS)) $(if $(FORCE),--force)
test: ; @$(PIPELINE) test -- $(ARGS)
test-lab: ; @$(PIPELINE) test tests/lab
test-remote: ; @$(PIPELINE) test tests/remote
test-sweep: ; @$(PIPELINE) test -- tests/sweep -n 0 $(ARGS)
lab: ; @$(PIPELINE) lab $(if $(ARGS),-- $(ARGS))
adopt: ; @$(PIPELINE) adopt '$(RUN)' $(if $(YES),--yes) $(if $(MODEL),--model '$(MODEL)')
model: ; @$(PIPELINE) model '$(NAME)' $(if $(LIKE),--like '$(LIKE)')
ui: ; @$(PIPELINE) ui
sync: ; @$(PIPELINE) sync
sweep: ; @$(PIPELINE) sweep '$(MODEL)' $(if $(FORCE),--force)
remote: ; @$(PIPELINE) remote $(if $(filter undefined,$(origin URL)),,--url '$(URL)') $(if $(TRACKING),--tracking '$(TRACKING)') $(if $(DATA),--data '$(DATA)') $(if $(ENDPOINT),--endpoint '$(ENDPOINT)')
push: ; @$(PIPELINE) push
pull: ; @$(PIPELINE) pull
secrets: ; @$(PIPELINE) secrets
promote: ; @$(PIPELINE) promote $(if $(MODEL),'$(MODEL)')
predict: ; @$(PIPELINE) predict '$(IMAGE)'
verify: ; @$(PIPELINE) verify
report: ; @$(PIPELINE) report $(if $(BASE),--base $(BASE)) $(if $(OUT),--out $(OUT))
bench: ; @$(PIPELINE) tool -- python benchmarks/bench.py
bench-sweep: ; @$(PIPELINE) tool --sweep -- python benchmarks/bench_sweep.py
setup: ; @$(PIPELINE) setup
pins: ; uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate requirements.in -o requirements.txt && uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate -c requirements.txt requirements-sweep.in -o requirements-sweep.txt && uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate -c requirements.txt -c requirements-sweep.txt requirements-dev.in -o requirements-dev.txt
