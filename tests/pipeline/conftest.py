"""A project of two ordinary stages whose results DVC has recorded; nothing was run for it."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from projects import commit

DVC_YAML = """\
stages:
  data:
    cmd: make data
    deps: [raw.txt]
    outs: [data/table]
  m:
    cmd: make model
    deps: [data/table]
    params: [models.m]
    outs: [models/m.csv]
    metrics: [{metrics/m.json: {cache: false}}]
"""
FILES = {
    "project.yaml": "name: small\nmetric: {key: error, goal: min}\ntolerance: {absolute: 0.01}\n",
    "params.yaml": "models: {m: {n: 1}}\n",
    "dvc.yaml": DVC_YAML,
    ".gitignore": "/data/table\n/models/m.csv\n",
    "raw.txt": "raw\n",
    "data/table/1.csv": "one\n",
    "data/table/2.csv": "two\n",
    "models/m.csv": "model\n",
    "metrics/m.json": '{"error": 0.5}\n',
}


@pytest.fixture(scope="session")
def small_once(made_once) -> Path:
    def make(folder: Path) -> None:
        (folder / ".dvc").mkdir(parents=True)
        for name, text in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        (folder / ".dvc" / ".gitignore").write_text("/cache\n/tmp\n", encoding="utf-8")
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        with contextlib.chdir(folder), Repo() as repo:
            repo.commit(force=True)
        commit(folder)

    return made_once("small", make)


@pytest.fixture
def small(small_once, tmp_path, inside) -> Path:
    """A copy of the project, with its cache and its commit; this process works in it."""
    return inside(shutil.copytree(small_once, tmp_path / "small"))
