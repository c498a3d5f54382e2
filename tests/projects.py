"""Tiny projects to run things in: stages of a second, no torch, no scikit-learn, no network."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from warm import Warm

from nbproof.runner import RESULTS, source

ROOT = Path(__file__).resolve().parents[1]
WARM = Warm()


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run one command in `folder` to its end; output and errors together, as a person sees them."""
    return subprocess.run(words, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=1800)


def nbproof(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `nbproof ...` in `folder`, in a fork of a process that has imported it: tests/warm.py."""
    return _forked(["nbproof", *words], folder, environment)


def dvc(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `dvc ...` in `folder` in the same way; so is the `nbproof stage` that DVC starts."""
    return _forked(["dvc", *words], folder, environment)


def _forked(words: list[str], folder: Path, environment: dict) -> subprocess.CompletedProcess:
    at_start = [name for name in environment if name.startswith("PYTHON")]
    assert not at_start, f"Python reads {at_start} at its start: call nbproof_process"
    return WARM.run(words, folder, os.environ | environment)


def nbproof_process(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `nbproof ...` in a Python of its own, for tests of processes and environments."""
    return command(folder, sys.executable, "-m", "nbproof", *words, **environment)


def said(folder: Path, *words: str, code: int = 0, **environment: str) -> str:
    """What `nbproof ...` prints; it must end with `code`."""
    done = nbproof(folder, *words, **environment)
    assert done.returncode == code and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def stages_run(output: str) -> set[str]:
    """The notebooks that `output` of a run says were executed."""
    return {line.split(":")[0] for line in output.splitlines() if ": every cell ran" in line}


def commit(folder: Path, *first: str) -> None:
    """Commit everything in `folder`, after `git FIRST` where given."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    last = (*who, "commit", "-qm", "state", "--allow-empty")
    for words in filter(None, (first, ("add", "-A"), last)):
        subprocess.run(["git", *words], cwd=folder, check=True)


def edit_yaml(path: Path, change: Callable[[dict], object]) -> None:
    """Let `change` work on the content of a YAML file, comments kept."""
    from ruamel.yaml import YAML

    yaml = YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    change(content)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def edit_params(folder: Path, change: Callable[[dict], object]) -> None:
    """Let `change` work on the content of params.yaml, comments kept."""
    edit_yaml(folder / "params.yaml", change)


def results(folder: Path) -> dict[str, bytes]:
    """Every result file of a project with its bytes; pages, which are made from them, are none."""
    files = (path for name in ("data", "models", "metrics", "reports")
             for path in sorted((folder / name).rglob("*")))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files
            if path.is_file() and path.name != ".gitignore" and path.suffix != ".html"
            and "download" not in path.parts}


def notebook(path: Path, *cells: str) -> None:
    """Write a notebook: a cell that begins with `#!` is Markdown, one with `@` has parameters."""
    made, name = [], re.sub(r"\W", "-", path.stem)
    for number, cell in enumerate(cells, start=1):
        kind = nbformat.v4.new_markdown_cell if cell.startswith("#!") else nbformat.v4.new_code_cell
        made.append(kind(cell.removeprefix("#!").removeprefix("@"), id=f"{name}-{number}"))
        if cell.startswith("@"):
            made[-1].metadata["tags"] = ["parameters"]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = source.text(source.strip(nbformat.v4.new_notebook(cells=made)))
    path.write_text(text, encoding="utf-8")


def project(folder: Path, **texts: str) -> Path:
    """A project with git and DVC in `folder`; each of `texts` is a file, `project_yaml` say."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"project_yaml": "name: tiny\nmetric: {key: error, goal: min}\n", "params_yaml": "{}\n"}
    for name, text in (kept | texts).items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    for ignored in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / "nbproof" / "workspace" / "template" / ignored, folder)
    commit(folder, "init", "-q")
    done = dvc(folder, "init", "-q")
    assert done.returncode == 0, done.stdout
    return folder


PROJECT_YAML = """\
name: tiny
metric: {key: error, goal: min}
compare: compare
data: data.label
pins: pins.txt
"""
PARAMS_YAML = """\
data: # every number counts
  sizes: [5, 3] # cases in each file
  label: null
split: {seed: 1}
models:
  near: {step: 2, rounds: 3}
  far: {step: 4, rounds: 2}
"""
PINS = f"# nbproof results: {RESULTS}\n"  # and no package that shapes results
DVC_YAML = """\
stages:
  data:
    cmd: nbproof stage
    deps: [notebooks/data.ipynb, notebooks/tiny, pins.txt]
    params: [data]
    outs: [data/table, reports/data.ipynb]
  train:
    foreach: ${models}
    do:
      cmd: nbproof stage
      deps: ["notebooks/${key}.ipynb", notebooks/tiny, pins.txt, data/table]
      params: ["models.${key}", split]
      outs: ["models/${key}", "models/${key}.csv", "reports/${key}.ipynb"]
      metrics: [{"metrics/${key}.json": {cache: false}}]
      plots: [{"metrics/${key}.csv": {cache: false, x: round, y: error}}]
  compare:
    cmd: nbproof stage
    deps: [notebooks/compare.ipynb, notebooks/tiny, pins.txt, models]
    params: [models]
    outs: [reports/compare.ipynb]
    metrics: [{metrics/compare.json: {cache: false}}]
    plots: [{metrics/answers.csv: {cache: false, template: confusion, x: predicted, y: actual}}]
  count:
    cmd: cat data/table/*.csv | wc -l > data/count.txt && echo counted
    deps: [data/table]
    outs: [data/count.txt]
"""
CASES = '''\
"""The science of the tiny project: a case is a number, its class the remainder by three."""

import csv


def actual(case):
    return case % 3


def error(answers):
    return sum(row["actual"] != row["predicted"] for row in answers) / len(answers)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))
'''
MLMODEL = ("flavors: {python_function: {loader_module: nothing}}\n"
           "signature: {inputs: '[{\"type\": \"long\", \"name\": \"case\"}]'}\n")
DATA = (
    "#!# Data\n\n> numbers, and their classes",
    "from nbproof.notebook import output_folder, section\nfrom tiny import cases\n\n"
    "P = section('data')",
    "@sizes: list[int] = P.sizes  # [1, 9] cases in each file\n"
    "label: str | None = P.label  # a name for the data",
    "folder = output_folder('data/table')\n"
    "for size in sizes:\n"
    "    lines = ['case,actual', *(f'{case},{cases.actual(case)}' for case in range(size))]\n"
    "    (folder / f'{size}.csv').write_text('\\n'.join(lines) + '\\n')\n"
    "print(sizes, label)",
)
MODEL = (
    "#!# NAME\n\n> a model\n\nIts error is $e < 1$.",
    "import json\n\nfrom nbproof.notebook import output_folder, progress, section, source, write\n"
    "from tiny.cases import error, rows\n\nP = section('models.NAME')\nS = section('split')",
    "@step: int = P.step  # [1, 9] numbers that get one class\n"
    "rounds: int = P.rounds  # [1, 9] rounds\n"
    "seed: int = S.seed  # of all",
    "given = [row for file in sorted(source('data/table').iterdir()) for row in rows(file)]\n"
    "answers = [{'actual': row['actual'], 'predicted': str(int(row['case']) // step % 3)}\n"
    "           for row in given]\n"
    "curve = []\n"
    "with progress.follow(steps=rounds, unit='round') as follower:\n"
    "    for round in range(1, rounds + 1):\n"
    "        curve.append(error(answers) + (rounds - round) / 10)\n"
    "        follower.step({'error': curve[-1]})\n"
    "print(f'{curve[-1]:.3f} with seed {seed}')",
    "write('metrics/NAME.json', json.dumps({'error': curve[-1]}) + '\\n')\n"
    "lines = [f'{round},{value}' for round, value in enumerate(curve, start=1)]\n"
    "write('metrics/NAME.csv', '\\n'.join(['round,error', *lines]) + '\\n')\n"
    "lines = [','.join(row.values()) for row in answers]\n"
    "write('models/NAME.csv', '\\n'.join(['actual,predicted', *lines]) + '\\n')\n"
    "folder = output_folder('models/NAME')\n"
    f"_ = (folder / 'MLmodel').write_text({MLMODEL!r} + f'step: {{step}}\\n')",
)
COMPARE = (
    "#!# Comparison\n\n> which one is better",
    "import json\n\nfrom nbproof.notebook import source, write\nfrom tiny.cases import error, rows",
    "answers = {path.stem: rows(path) for path in sorted(source('models').glob('*.csv'))}\n"
    "champion = min(answers, key=lambda name: error(answers[name]))\n"
    "facts = {'champion': champion, 'error': error(answers[champion])}\n"
    "write('metrics/compare.json', json.dumps(facts) + '\\n')\n"
    "write('metrics/answers.csv', source(f'models/{champion}.csv').read_text())\n"
    "print(champion, 'of', *answers)",
)


def model_notebook(folder: Path, name: str) -> None:
    """Write the notebook of a model called `name` into the tiny project at `folder`."""
    own = (cell.replace("NAME", name) for cell in MODEL)
    notebook(folder / "notebooks" / f"{name}.ipynb", *own)


def tiny(folder: Path) -> Path:
    """Make a project of two models, a comparison and an ordinary command; nothing is run yet."""
    science = folder / "notebooks" / "tiny"
    science.mkdir(parents=True)
    (science / "__init__.py").write_text('"""The science."""\n')
    (science / "cases.py").write_text(CASES)
    (folder / "pins.txt").write_text(PINS)
    notebook(folder / "notebooks" / "data.ipynb", *DATA)
    notebook(folder / "notebooks" / "compare.ipynb", *COMPARE)
    for name in ("near", "far"):
        model_notebook(folder, name)
    return project(folder, project_yaml=PROJECT_YAML, params_yaml=PARAMS_YAML, dvc_yaml=DVC_YAML)


NOT_COPIED = shutil.ignore_patterns("scratch", "__pycache__")


ONE_STAGE = """\
stages:
  train:
    foreach: ${models}
    do:
      cmd: nbproof stage
      deps: ["notebooks/${key}.ipynb"]
      params: ["models.${key}"]
      outs: ["models/${key}.txt", "reports/${key}.ipynb"]
"""
WRITES = "from nbproof.notebook import write\n_ = write('models/x.txt', f'result {n}')"


def cells(folder: Path, *own: str) -> None:
    """Give the notebook `x` the cells `own`, from cell 3 on, after those that read its `n`."""
    reads = "from nbproof.notebook import section\n\nP = section('models.x')"
    notebook(folder / "notebooks" / "x.ipynb", reads, "@n: int = P.n  # [0, 9] a number", *own)


def copy_of_project(folder: Path) -> Path:
    """Copy this repository without results and tests to `folder`, and commit it there."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        left_out = name == "dvc.lock" or name.startswith(("tests/", "metrics/"))
        if (ROOT / name).is_file() and not left_out:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    commit(folder, "init", "-q")
    return folder
