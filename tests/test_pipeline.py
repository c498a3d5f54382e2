"""Whole runs of a tiny project: what runs, what does not, and that the same sources give the same bytes."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from projects import (
    NOT_COPIED,
    command,
    edit_params,
    edit_yaml,
    model_notebook,
    nbproof,
    notebook,
    results,
    stages_run,
    tiny,
)

from nbproof import run, stages
from nbproof.notebook import files
from nbproof.notebook.errors import Refused

ALL = {"data", "near", "far", "compare"}


def test_the_first_run(finished_once):
    folder, said = finished_once
    lines = said.splitlines()
    assert stages_run(said) == ALL and "near: round 3/3  error 0.75" in said and "count: counted" in lines
    assert [line for line in lines if line.startswith("count:")] == ["count: counted"]  # nothing of DVC's own hints
    assert any(line.startswith("Done in ") and line.endswith(" s. The result: reports/compare.html") for line in lines)
    assert json.loads((folder / "metrics" / "compare.json").read_text()) == {"champion": "far", "error": 0.5}
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
    assert done.stdout.startswith("Everything is up to date. The result: reports/compare.html\n")
    assert path.read_text(encoding="utf-8") == before
    assert command(finished, "git", "status", "--short").stdout == " M notebooks/tiny/play.py\n"
    repro = command(finished, "dvc", "repro")
    assert repro.returncode == 0 and "Running stage" not in repro.stdout, repro.stdout


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
    (lambda place: (place / "notebooks" / "far.ipynb").unlink(),
     "notebooks/far.ipynb is not there, and dvc.yaml names it: put it there, or take its stage out."),
]


@pytest.mark.parametrize("change, said", BEFORE_A_RUN)
def test_what_is_refused_before_anything_runs(finished, inside, change, said):
    change(inside(finished))
    with pytest.raises(Refused) as refused, stages.opened(finished) as repo:
        run.check_all(stages.read(repo))
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
    """A dvc.lock may come from anywhere: only what lies in a folder of results is a result."""
    inside(finished)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (finished / "data" / "link").symlink_to(outside)
    (finished / "data" / "old").mkdir()
    (finished / "data" / "old" / "a.txt").touch()
    paths = ["params.yaml", "notebooks/near.ipynb", ".git/config", "data/../params.yaml", "data/link/kept", "data/link",
             str(outside / "kept"), "../outside/kept", "data/table", "data/old", "data/never", "data", ""]
    outs = [{"path": path, "md5": "0" * 32} for path in paths]
    edit_yaml(finished / "dvc.lock", lambda content: content["stages"].update(gone={"cmd": "x", "outs": outs}))
    before = results(finished)
    with stages.opened(finished) as repo:
        run.forget_removed(stages.read(repo))
    assert all((finished / name).exists() for name in ("params.yaml", "notebooks/near.ipynb", ".git/config"))
    assert (outside / "kept").exists() and not (finished / "data" / "old").exists()
    del before["data/old/a.txt"]
    assert {name: content for name, content in results(finished).items() if "link" not in name} == {
        name: content for name, content in before.items() if "link" not in name}
    assert "gone" not in (finished / "dvc.lock").read_text()


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

