"""Whole runs of a tiny project: what runs, what does not, and that the same sources give the same bytes."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from projects import (
    NOT_COPIED,
    command,
    commit,
    edit_params,
    edit_yaml,
    model_notebook,
    nbproof,
    notebook,
    results,
    stages_run,
    tiny,
)
from typer.testing import CliRunner

from nbproof import cli
from nbproof.pipeline import dag, run
from nbproof.notebook import files
from nbproof.notebook.errors import UserError

ALL = {"data", "near", "far", "compare"}


def test_the_first_run(finished_once):
    folder, said = finished_once
    lines = said.splitlines()
    assert stages_run(said) == ALL and "near: round 3/3  error 0.75" in said and "count: counted" in lines
    assert [line for line in lines if line.startswith("count:")] == ["count: counted"]  # nothing of DVC's own hints
    assert any(line.startswith("Done in ") and line.endswith(" s. The result: reports/index.html") for line in lines)
    assert json.loads((folder / "metrics" / "compare.json").read_text()) == {"champion": "far", "error": 0.5}
    at = lines.index("      error")  # the result stands at the end
    assert lines[at + 1 : at + 4] == ["far     0.5", "near   0.75", "The champion is far."]
    assert sorted(path.name for path in (folder / "data" / "table").iterdir()) == ["3.csv", "5.csv"]
    assert (folder / "data" / "count.txt").read_text().strip() == "10"


def test_twice_from_nothing_gives_the_same_bytes(finished_once, tmp_path):
    """Another folder, one job instead of two, nothing from a cache, other settings of the person's."""
    other = tiny(tmp_path / "elsewhere" / "copy")
    done = nbproof(other, "run", "--jobs", "1", "--force", PYTHONHASHSEED="77", MPLBACKEND="svg", TZ="Asia/Tokyo")
    assert done.returncode == 0 and stages_run(done.stdout) == ALL, done.stdout
    assert (other / "dvc.lock").read_bytes() == (finished_once[0] / "dvc.lock").read_bytes()
    ours, theirs = results(finished_once[0]), results(other)
    assert len(ours) == 21
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []


def test_no_result_tells_where_or_when_it_was_made(finished_once):
    host = socket.gethostname().encode()
    telling = [str(finished_once[0]).encode(), b"start_time", b"/site-packages/", *([host] if len(host) > 5 else [])]
    for name, content in results(finished_once[0]).items():
        assert [word for word in telling if word in content] == [], name


def test_nothing_to_do_after_what_editors_save_and_what_no_stage_needs(finished):
    path = finished / "notebooks" / "near.ipynb"
    before = path.read_text(encoding="utf-8")
    content = json.loads(before)
    content["metadata"]["language_info"] = {"name": "python", "version": "3.99"}
    content["cells"][1]["execution_count"] = 7
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["seen\n"]}]
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    (finished / "notebooks" / "tiny" / "play.py").write_text("changed = True\n")
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set(), done.stdout
    assert "Everything is up to date. The result: reports/index.html\n" in done.stdout
    assert path.read_text(encoding="utf-8") == before
    assert command(finished, "git", "status", "--short").stdout == " M notebooks/tiny/play.py\n"
    repro = command(finished, "dvc", "repro")
    assert repro.returncode == 0 and "Running stage" not in repro.stdout, repro.stdout


def test_what_a_kill_leaves_beside_results_is_no_change(finished):
    """Outputs are written as .NAME.PROCESS, then renamed."""
    for name in ("models/.near.4711/MLmodel", "models/.near.csv.4711", "data/table/.5.csv.4711"):
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).touch()
    assert command(finished, "dvc", "status").stdout == "Data and pipelines are up to date.\n"
    assert command(finished, "git", "status", "--short").stdout == ""


@pytest.mark.parametrize("value, told", [("9" * 5000, "Exceeds the limit"), ("[" * 2000 + "]" * 2000, "too deep")])
def test_parameters_that_no_parser_takes(single, inside, value, told):
    (inside(single) / "params.yaml").write_text(f"models:\n  x: {{n: {value}}}\n")
    with pytest.raises(UserError, match=f"^params.yaml is not valid YAML: .*{told}"), dag.opened(single):
        pass


def test_a_changed_parameter_and_back(finished):
    """One model and the comparison run; back to the committed value nothing runs: DVC kept the results."""
    lock, before = (finished / "dvc.lock").read_bytes(), results(finished)
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"near", "compare"}, done.stdout
    assert "models.near.step" in command(finished, "dvc", "params", "diff").stdout
    assert json.loads((finished / "metrics" / "compare.json").read_text())["champion"] == "near"
    changed, made = (finished / "dvc.lock").read_bytes(), results(finished)
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=finished, check=True)
    back = nbproof(finished, "run")
    assert back.returncode == 0 and stages_run(back.stdout) == set(), back.stdout
    assert (finished / "dvc.lock").read_bytes() == lock and results(finished) == before
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    repro = command(finished, "dvc", "repro", "--no-run-cache", "train@near", "compare")  # the same by DVC alone
    assert repro.returncode == 0 and stages_run(repro.stdout) == {"near", "compare"}, repro.stdout
    assert (finished / "dvc.lock").read_bytes() == changed and results(finished) == made


def test_a_module_a_list_and_a_text_that_looks_like_code(finished):
    """An edited module runs its notebooks again; values reach a notebook as values, whatever they look like."""
    hostile = "'\"); open('pwned', 'w') # $(touch pwned) {{ n }} \\ `touch pwned`\n\"\"\""
    edit_params(finished, lambda content: content["data"].update(sizes=[9], label=hostile))
    with (finished / "notebooks" / "tiny" / "cases.py").open("a") as file:
        file.write("# edited\n")
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == ALL and "count: counted" in done.stdout, done.stdout
    assert [path.name for path in (finished / "data" / "table").iterdir()] == ["9.csv"]
    cells = json.loads((finished / "reports" / "data.ipynb").read_text())["cells"]
    assert "".join(cells[-1]["outputs"][0]["text"]) == f"[9] {hostile}\n"
    assert not list(finished.rglob("*pwned*"))
    assert nbproof(finished, "verify").returncode == 0


def test_dvc_alone_from_nothing_records_the_same(finished, tmp_path):
    """No dvc.lock and no result, but DVC's cache: plain `dvc repro` restores everything."""
    other = shutil.copytree(finished, tmp_path / "other", ignore=NOT_COPIED)
    for name in ("data", "models", "metrics", "reports"):
        shutil.rmtree(other / name)
    (other / "dvc.lock").unlink()
    subprocess.run(["git", "checkout", "-q", "data", "models", "reports"], cwd=other, check=True)  # their .gitignore
    repro = command(other, "dvc", "repro")
    assert repro.returncode == 0 and stages_run(repro.stdout) == set(), repro.stdout
    assert "up to date" in nbproof(other, "run").stdout
    assert (other / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    assert results(other) == results(finished)


def test_running_a_notebook_by_hand_changes_no_result(finished):
    before = results(finished)
    done = command(finished, "jupyter", "nbconvert", "--to", "notebook", "--execute", "notebooks/near.ipynb",
                   "--output-dir", "scratch", "--output", "by_hand")
    assert done.returncode == 0, done.stdout[-3000:]
    assert (finished / "scratch" / "models" / "near.csv").read_bytes() == before["models/near.csv"]
    assert (finished / "scratch" / "models" / "near" / "MLmodel").is_file()
    assert results(finished) == before and command(finished, "git", "status", "--short").stdout == ""


def test_a_model_comes_and_goes(finished):
    before, lock = results(finished), (finished / "dvc.lock").read_bytes()
    model_notebook(finished, "third")
    edit_params(finished, lambda content: content["models"].update(third={"step": 3, "rounds": 1}))
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"third", "compare"}, done.stdout
    assert "far of far near third" in (finished / "reports" / "compare.html").read_text(encoding="utf-8")
    (finished / "notebooks" / "third.ipynb").unlink()
    subprocess.run(["git", "checkout", "-q", "params.yaml"], cwd=finished, check=True)
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == set(), done.stdout
    assert "third is no longer in dvc.yaml or params.yaml: its results are removed from the folder" in done.stdout
    assert (finished / "dvc.lock").read_bytes() == lock and results(finished) == before
    assert not (finished / "models" / "third").exists()


def test_experiments(finished):
    done = command(finished, "dvc", "exp", "run", "-S", "models.near.rounds=1")
    assert done.returncode == 0 and "Ran experiment" in done.stdout, done.stdout
    assert stages_run(done.stdout) == {"near", "compare"}


def test_no_name_from_params_reaches_a_shell(finished):
    name = '$(touch pwned)`touch pwned`"; touch pwned; "'
    edit_params(finished, lambda content: content["models"].update({name: {"step": 1, "rounds": 1}}))
    notebook(finished / "notebooks" / f"{name}.ipynb", "print(1)")
    done = nbproof(finished, "run", "--jobs", "1")
    assert done.returncode == 1 and f"{name}: every cell ran" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    assert not list(finished.rglob("pwned"))


def add_stage(place: Path, **stage) -> None:
    edit_yaml(place / "dvc.yaml", lambda content: content["stages"].update(extra=stage))


def import_helper(place: Path) -> None:
    (place / "notebooks" / "helper.py").touch()
    notebook(place / "notebooks" / "compare.ipynb", "import helper")


def show_picture(place: Path) -> None:
    (place / "notebooks" / "map.png").touch()
    notebook(place / "notebooks" / "compare.ipynb", "#!![a map](map.png)")


def read_a_section_that_is_not_there(place: Path) -> None:
    """Without declared parameters, as a comparison may."""
    notebook(place / "notebooks" / "compare.ipynb", "P = section('judge')\nprint(P.level)")
    edit_yaml(place / "dvc.yaml", lambda content: content["stages"]["compare"].update(params=["judge"]))


NEAR = {"cmd": "nbproof stage", "deps": ["notebooks/near.ipynb"], "outs": ["data/x"]}
BEFORE_A_RUN = [
    (lambda place: edit_params(place, lambda content: content["models"]["near"].update(step=0)),
     "params.yaml: models.near.step must be int, in [1, 9] (numbers that get one class), found 0."),
    (lambda place: edit_params(place, lambda content: content["data"].update(sizes=[3, 10])),
     "params.yaml: data.sizes must be list[int], each in [1, 9] (cases in each file), found [3, 10]."),
    (lambda place: edit_params(place, lambda content: content["models"]["far"].update(warmup=1)),
     "params.yaml: models.far.warmup is unknown; notebooks/far.ipynb knows rounds, step."),
    (import_helper, "dvc.yaml: the stage compare does not list all that notebooks/compare.ipynb needs: "
                    "add `- notebooks/helper.py` to its deps, so that an edit there runs it again."),
    (show_picture, "dvc.yaml: the stage compare does not list all that notebooks/compare.ipynb needs: "
                   "add `- notebooks/map.png` to its deps, so that an edit there runs it again."),
    (lambda place: notebook(place / "notebooks" / "compare.ipynb", "P = section('split')", "@seed: int = P.seed"),
     "dvc.yaml: the stage compare does not list the section split, which notebooks/compare.ipynb reads: "
     "add `- split` to its params."),
    (lambda place: add_stage(place, **NEAR),
     "dvc.yaml: two stages run notebooks/near.ipynb, and both would write its reports: "
     "give each a notebook of its own."),
    (lambda place: add_stage(place, **NEAR | {"deps": ["pins.txt"]}),
     "dvc.yaml: the stage extra runs a notebook, so it must list exactly one .ipynb among its deps, found none."),
    (lambda place: add_stage(place, **NEAR | {"deps": ["notebooks/near.ipynb", "notebooks/far.ipynb"]}),
     "dvc.yaml: the stage extra runs a notebook, so it must list exactly one .ipynb among its deps, found "
     "notebooks/near.ipynb, notebooks/far.ipynb."),
    (lambda place: edit_yaml(place / "project.yaml", lambda content: content.update(compare="judge")),
     "project.yaml: compare is judge, and dvc.yaml has no such stage."),
    (lambda place: edit_params(place, lambda content: content.update(sweep={"ghost": {}})),
     "params.yaml: sweep.ghost is there, but dvc.yaml has no stage ghost that runs a notebook; it has data, near, far, "
     "compare. Correct the name, or remove its section."),
    (lambda place: edit_params(place, lambda content: content.pop("data")),
     "params.yaml has no section data, which notebooks/data.ipynb reads."),
    (lambda place: notebook(place / "notebooks" / "compare.ipynb", "P = section('judge')\nprint(P.level)"),
     "dvc.yaml: the stage compare does not list the section judge, which notebooks/compare.ipynb reads: "
     "add `- judge` to its params."),
    (read_a_section_that_is_not_there, "params.yaml has no section judge, which notebooks/compare.ipynb reads."),
    (lambda place: (place / "notebooks" / "far.ipynb").unlink(),
     "notebooks/far.ipynb is not there, and dvc.yaml names it: put it there, or take its stage out. Did "
     "you mean near.ipynb?"),
]


@pytest.mark.parametrize("change, said", BEFORE_A_RUN)
def test_what_is_refused_before_anything_runs(finished, inside, change, said):
    change(inside(finished))
    with pytest.raises(UserError) as refused, dag.opened(finished) as repo:
        run.check_all(dag.read(repo))
    assert str(refused.value) == said


def test_a_refusal_is_one_sentence_and_changes_nothing(finished):
    before = results(finished)
    edit_params(finished, lambda content: content["models"]["near"].update(step=0))
    done = nbproof(finished, "run")
    assert done.returncode == 2 and done.stdout == f"{BEFORE_A_RUN[0][1]}\n"
    assert "models.near.step must be int" in command(finished, "dvc", "repro", "-s", "train@near").stdout
    assert command(finished, "dvc", "checkout").returncode == 0  # DVC takes outputs away before it starts a command
    subprocess.run(["git", "checkout", "-q", "metrics"], cwd=finished, check=True)
    assert results(finished) == before


def test_what_was_made_with_other_parameters_is_said_and_not_promoted(finished, inside, capsys):
    edit_params(inside(finished), lambda content: content["data"].update(sizes=[4]))
    files.source("data/table")
    assert capsys.readouterr().err == ("data/table was made with another value of data than params.yaml has now: make "
                                       "run brings it up to date.\n")
    files.source("models/near.csv")
    assert capsys.readouterr().err == ""
    done = nbproof(finished, "promote", "near")
    assert done.returncode == 2 and "data must run first, because" in done.stdout


def test_a_lock_that_calls_sources_outputs_deletes_none_of_them(finished, inside, tmp_path):
    """A dvc.lock may come from anywhere: only what lies in a folder of results, with the recorded bytes, is one."""
    inside(finished)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (finished / "data" / "link").symlink_to(outside)
    (finished / "data" / "mine.txt").write_text("of a person")
    (finished / "data" / "old.txt").write_text("of a stage")
    paths = ["params.yaml", "notebooks/near.ipynb", ".git/config", "data/../params.yaml", "data/link/kept", "data/link",
             str(outside / "kept"), "../outside/kept", "data/table", "data/mine.txt", "data/never", "data", ""]
    outs = [{"path": path, "md5": "0" * 32} for path in paths]
    outs += [{"path": "data/old.txt", "md5": hashlib.md5(b"of a stage").hexdigest()}, {"path": "data/link/bare"}]
    edit_yaml(finished / "dvc.lock", lambda content: content["stages"].update(gone={"cmd": "x", "outs": outs}))
    before = results(finished)
    with dag.opened(finished) as repo:
        run.forget_removed(repo, dag.read(repo))
    assert all((finished / name).exists() for name in ("params.yaml", "notebooks/near.ipynb", ".git/config"))
    assert (outside / "kept").exists() and not (finished / "data" / "old.txt").exists()
    del before["data/old.txt"]
    assert {name: content for name, content in results(finished).items() if "link" not in name} == {
        name: content for name, content in before.items() if "link" not in name}
    assert "gone" not in (finished / "dvc.lock").read_text()


def test_a_removed_stage_whose_output_is_a_folder(finished):
    """What a person put into it stays."""
    shutil.copy(finished / "data" / "table" / "5.csv", finished / "data" / "table" / "mine.csv")
    (finished / "data" / "table" / "3.csv").write_text("changed")
    edit_yaml(finished / "dvc.lock", lambda content: content["stages"].update(gone=content["stages"].pop("data")))
    edit_yaml(finished / "dvc.yaml", lambda content: content.update(stages={
        "keep": {"cmd": "true", "deps": ["pins.txt"]}, "compare": {"cmd": "true", "deps": ["pins.txt"]}}))
    done = nbproof(finished, "run")
    assert "gone is no longer in dvc.yaml" in done.stdout, done.stdout
    assert sorted(path.name for path in (finished / "data" / "table").iterdir()) == ["3.csv", "mine.csv"]
    assert not (finished / "models" / "near").exists() and not (finished / "metrics" / "near.json").exists()


def test_a_folder_of_results_that_was_deleted(finished):
    """DVC would write a list of its own of what git ignores there."""
    (finished / "reports" / ".gitignore").write_text("*\n!.gitignore\n")
    commit(finished)
    before = results(finished)
    shutil.rmtree(finished / "reports")
    assert nbproof(finished, "run").returncode == 0 and results(finished) == before
    assert command(finished, "git", "status", "--short").stdout == ""


def test_without_git_results_are_made_and_registered(finished, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "cat", "wc", "python", "nbproof"):
        (programs / name).symlink_to(shutil.which(name))
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    done = nbproof(finished, "run", PATH=str(programs))
    assert done.returncode == 0 and "Done in " in done.stdout and "system refused" not in done.stdout, done.stdout
    assert "near is the registered champion now" in done.stdout
    done = nbproof(finished, "git", PATH=str(programs))
    assert done.returncode == 2 and "in no git repository" in done.stdout


def test_a_download_without_a_repository_is_told_the_remedy(finished):
    shutil.rmtree(finished / ".git")
    done = nbproof(finished, "run")
    assert done.returncode == 2 and "git init makes one, then run again.\n" in done.stdout
    subprocess.run(["git", "init", "-q"], cwd=finished, check=True)
    assert "Everything is up to date." in nbproof(finished, "run").stdout


def test_no_command_writes_outside_of_what_git_ignores(finished, inside):
    """Called in a folder of the project; MLflow, for example, would put mlruns/ there."""
    (finished / "notebooks" / "table.csv").write_text("case\n1\n")
    commit(finished)
    inside(finished / "notebooks")
    called = (["verify"], ["report"], ["promote", "near"], ["predict", "table.csv"], ["sync"], ["remote"],
              ["adopt", "--yes"], ["secrets"], ["git"], ["git", "--remove"], ["rollback"], ["forget"], ["try", "near"],
              ["drift"], ["harvest", "--yes"], ["push"], ["pull"])
    elsewhere = {"run", "stage", "nbval", "lab", "ui", "model", "new", "serve", "sweep"}  # in tests of their own
    known = {each.name or each.callback.__name__ for each in cli.app.registered_commands}
    assert known == elsewhere | {words[0] for words in called}
    for words in called:
        done = CliRunner().invoke(cli.app, words)
        assert done.exception is None or isinstance(done.exception, SystemExit | UserError), done.exception
        assert command(finished, "git", "status", "--porcelain").stdout == "", words
    ignored = command(finished, "git", "status", "--porcelain", "--ignored").stdout.splitlines()
    known = r"!! (\.dvc/|data/|models/|reports/|mlartifacts/|mlflow\.db|.*__pycache__/)"
    assert [line for line in ignored if not re.match(known, line)] == []


@pytest.mark.parametrize("torn", ["", '{"write": {"a'])
def test_a_torn_list_of_readers_and_writers(finished, torn):
    """Of DVC's; a kill leaves it in part."""
    (finished / ".dvc" / "tmp" / "rwlock").write_text(torn)
    edit_params(finished, lambda content: content["models"]["near"].update(step=1))
    assert "JSON structure is corrupted" in command(finished, "dvc", "repro", "-s", "train@near").stdout
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"near", "compare"}, done.stdout


def test_every_cell_gives_its_output_again_and_a_changed_number_is_found(finished):
    done = nbproof(finished, "nbval", "reports/near.ipynb")
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout[-3000:]
    assert command(finished, "git", "status", "--short").stdout == ""  # what it wrote went to scratch/
    path = finished / "reports" / "near.ipynb"
    text = path.read_text(encoding="utf-8")
    path.chmod(0o644)
    path.write_text(text.replace("0.750 with", "0.751 with"), encoding="utf-8")
    done = nbproof(finished, "nbval", "reports/near.ipynb")
    assert done.returncode == 1 and "1 failed, 4 passed" in done.stdout, done.stdout[-3000:]

