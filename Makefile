define HELP
make setup                 make .venv                          PYTHON=python3.12
make run                   bring every result up to date       JOBS=2 FORCE=1
make verify                hash every result again
make report                what this branch changed            BASE=main OUT=report.md
make lab                   open JupyterLab                     PORT=8899
make serve                 serve the champion                  PORT=8000 HOST=127.0.0.1 IMAGES=1
make promote               register the champion, or a model   MODEL=cnn
make new                   make a project of your own          DIR=../mine
make check, make test      lint and the fast tests, in part or all   ARGS='-k page'
make test-foreign, -github, -lab, -processors, -remote, -serve, -serve-ray, -sweep   the slow tests
make pins, bench, bench-serve, bench-sweep, pictures      UPGRADE=1 CPU=1 MERMAID=mermaid.min.js
All other commands: .venv/bin/nbproof --help
endef
export HELP

PYTHON = python3
BASE_LOCK = $(if $(NBPROOF_REVIEW),requirements/review.txt,$(if $(NBPROOF_CPU),requirements/cpu.txt,requirements.txt))
SETUP = @$(if $(NBPROOF_CPU),UV_TORCH_BACKEND=cpu) $(PYTHON) -I nbproof/workspace/bootstrap.py .venv $(BASE_LOCK)
NBPROOF = @.venv/bin/nbproof
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS

# A variable of make's own command line becomes an option; one in somebody's environment does not
# count. The shell puts "$JOBS" in its place, and does not read its value.
given = $(filter command,$(firstword $(origin $1)))
option = $(if $(call given,$1),--$2 "$$$1")
flag = $(if $(call given,$1),$(if $(filter-out 0 false no,$($1)),--$2))
argument = $(if $(call given,$1),-- "$$$1")

# What a target takes on make's command line; another name there is a slip of the pen.
run.takes = JOBS FORCE
report.takes = BASE OUT
lab.takes = PORT
serve.takes = PORT HOST IMAGES
promote.takes = MODEL
new.takes = DIR
pins.takes = UPGRADE CPU
pictures.takes = MERMAID
SLOW = foreign github lab processors remote serve serve-ray sweep
TARGETS = help setup tools run verify report lab serve promote new pins lint check test \
  $(SLOW:%=test-%) bench bench-serve bench-sweep pictures
$(foreach name,$(filter-out $(TARGETS),$(MAKECMDGOALS)),$(error make has no target $(name): \
  .venv/bin/nbproof --help lists all other commands))
goal = $(or $(MAKECMDGOALS),help)
takes = $(foreach name,$(goal),$($(name).takes) $(if $(filter check test%,$(name)),ARGS)) PYTHON
slips = $(filter-out $(takes),$(foreach name,$(.VARIABLES),$(if $(call given,$(name)),$(name))))
$(if $(slips),$(error make $(goal) takes $(strip $(takes)), not $(strip $(slips)): `make` shows what they are))

.PHONY: $(TARGETS)
help: ; @echo "$$HELP"
setup: ; $(SETUP)
tools: ; $(SETUP) requirements/dev.txt

run: setup ; $(NBPROOF) run $(call option,JOBS,jobs) $(call flag,FORCE,force)
verify: setup ; $(NBPROOF) verify
report: setup ; $(NBPROOF) report $(call option,BASE,base) $(call option,OUT,out)
lab: setup ; $(NBPROOF) lab $(call option,PORT,port)
serve: setup ; $(NBPROOF) serve $(call option,PORT,port) $(call option,HOST,host) $(call flag,IMAGES,images)
promote: setup ; $(NBPROOF) promote $(call argument,MODEL)
new: setup ; $(NBPROOF) new $(call argument,DIR)
pins: setup ; $(NBPROOF) pins $(call flag,UPGRADE,upgrade) $(call flag,CPU,cpu)

# pytest itself reads the words of ARGS, from PYTEST_ADDOPTS.
FAST = tests $(foreach room,$(SLOW),--ignore=tests/$(subst -,_,$(room)))
PYTEST = @PYTEST_ADDOPTS="$(if $(call given,ARGS),$$ARGS)" .venv/bin/pytest
lint: tools
	@.venv/bin/ruff check .
	@PYTHONPATH=notebooks .venv/bin/lint-imports
check: lint ; $(PYTEST) tests/notebook tests/runner tests/pipeline tests/tracking tests/workspace
test: lint ; $(PYTEST) $(FAST)
$(SLOW:%=test-%): test-%: tools ; $(PYTEST) tests/$(subst -,_,$*) $(if $(filter foreign lab remote,$*),,-n 0)

bench: setup ; @.venv/bin/python benchmarks/bench.py
bench-serve: tools ; @.venv/bin/python benchmarks/bench_serve.py
bench-sweep: tools ; @.venv/bin/python benchmarks/bench_sweep.py
pictures: tools ; @.venv/bin/python docs/pictures.py
