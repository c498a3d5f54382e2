"""The command: how it ends, what it reads, what it costs to start; and what make passes to it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import typer.main
from projects import ROOT, command, nbproof, said

from nbproof import cli
from nbproof.notebook.errors import UserError

HEAVY = {"mlflow", "dvc", "IPython", "numpy", "pandas", "torch", "ray", "papermill", "nbformat"}
SHOW = '#!/bin/sh\nfor word in "$@"; do printf "<%s>" "$word"; done\n'


@pytest.mark.parametrize(("error", "code", "printed"), [
    (UserError("A sentence."), 2, "A sentence.\n"),
    (KeyboardInterrupt(), 130, "Interrupted.\n"),
    (OSError(28, "No space left on device", "x"), 1,
     "The system refused: [Errno 28] No space left on device: 'x'. Fix that, then run again.\n"),
])
def test_what_a_person_can_mend_ends_with_a_sentence(monkeypatch, capsys, error, code, printed):
    def fail(*_):
        raise error

    monkeypatch.setattr("nbproof.pipeline.verify.verify", fail)
    monkeypatch.setattr(sys, "argv", ["nbproof", "verify"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == code and capsys.readouterr().err.strip() == printed.strip()


@pytest.mark.parametrize(("words", "sentence"), [
    (("serve", "--port", "abc"), "Invalid value for '--port': "),
    (("rnu",), "No such command 'rnu'. Did you mean 'run'? "),
    (("model",), "Missing argument "), (("git", "--x"), "No such option: --x. "),
])
def test_a_wrong_option_is_one_sentence_and_where_to_look(tmp_path, words, sentence):
    printed = said(tmp_path, *words, code=2)
    assert printed.startswith(sentence) and printed.endswith("--help lists what it takes.\n")
    assert printed.count("\n") == 1


def test_no_variable_of_a_stranger_is_read():
    commands = typer.main.get_command(cli.app).commands
    read = {option.envvar for name, each in commands.items() if name != "github"
            for option in each.params}
    assert read == {None, "NBPROOF_JOBS"}


def test_help_outside_of_a_project(tmp_path):
    shown = nbproof(tmp_path, "--help")
    assert shown.returncode == 0 and "run" in shown.stdout, shown.stdout
    refused = nbproof(tmp_path, "verify")
    assert refused.returncode == 2 and refused.stdout.startswith("There is no project.yaml in ")


@pytest.mark.parametrize(("module", "spared"), [
    ("nbproof.notebook", {"typer", *HEAVY}), ("nbproof.__main__", {"typer", *HEAVY}),
    ("nbproof.cli", HEAVY), ("nbproof.pipeline.run", {"mlflow", "networkx", "torch", "IPython"}),
])
def test_what_is_imported_early_is_light(tmp_path, module, spared):
    code = f"import {module}, json, sys; print(json.dumps(list(sys.modules)))"
    loaded = json.loads(command(tmp_path, sys.executable, "-c", code).stdout)
    assert spared.isdisjoint(loaded), spared.intersection(loaded)


@pytest.mark.parametrize("folder", ["", "nbproof/workspace/template"])
def test_make_passes_its_own_variables_and_no_shell_reads_them(tmp_path, folder):
    shutil.copy(ROOT / folder / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("show", ".venv/bin/nbproof"):
        (tmp_path / name).write_text(SHOW)
        (tmp_path / name).chmod(0o755)
    stranger = dict.fromkeys(("JOBS", "FORCE", "MODEL", "DIR", "BASE", "PORT", "HOST"), "x")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def words(*given: str, code: int = 0) -> str:
        done = subprocess.run(["make", "-s", "PYTHON=true", *given], cwd=tmp_path,
                              env=kept | stranger, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert done.returncode == code, done.stdout
        return done.stdout

    assert [words(each) for each in ("run", "promote", "report", "serve")] == [
        "<run>", "<promote>", "<report>", "<serve>"]
    assert words("run", "JOBS=2", "FORCE=1") == "<run><--jobs><2><--force>"
    assert words("run", "FORCE=0") == "<run>"
    assert words("report", "BASE=a; touch x") == "<report><--base><a; touch x>"
    assert words("promote", "MODEL='`touch x`' \"b\"") == "<promote><--><'`touch x`' \"b\">"
    assert words("promote", "MODEL=-$$(touch x)") == "<promote><--><-$(touch x)>"
    for goal, taken in (("run", "JOBS FORCE PYTHON"), ("verify", "PYTHON")):
        refused = words(goal, "JOB=$$(touch x)", code=2)
        assert f"make {goal} takes {taken}, not JOB: " in refused
    assert not (tmp_path / "x").exists()
