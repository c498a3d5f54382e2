"""A small project: a table, two models of one factor each that are code and no pickle, a comparison by RMSE."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import servers
from ruamel.yaml import YAML

ACCOUNT = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}
WHO = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
OURS = ("MLFLOW_", "DVC_", "GIT_", "NBPROOF_")

PROJECT = """\
name: small
metric: {key: rmse, goal: min}
compare: compare
data: data.source
pickle: true
"""
PARAMS = """\
data:
  source: table
models:
  near: # 2 is right
    factor: 1.9
  far:
    factor: 1.5
"""
DVC = """\
stages:
  data:
    cmd: python data.py
    deps: [data.py]
    params: [data]
    outs: [data/table.csv]
  train:
    foreach: ${models}
    do:
      cmd: python train.py ${key}
      deps: [train.py, data/table.csv]
      params: ["models.${key}"]
      outs: ["models/${key}", "models/${key}.csv"]
      metrics:
        - "metrics/${key}.json": {cache: false}
  compare:
    cmd: python compare.py
    deps: [compare.py, models]
    metrics:
      - metrics/compare.json: {cache: false}
"""
DATA = """\
from pathlib import Path
from nbproof.notebook.params import section
first = {"table": 1, "other": 5}[section("data").source]
Path("data").mkdir(exist_ok=True)
Path("data/table.csv").write_text("x,y\\n" + "".join(f"{x},{2 * x}\\n" for x in range(first, first + 8)))
"""
TRAIN = """\
import sys
import small
small.train(sys.argv[1])
"""
COMPARE = """\
import small
small.compare()
"""
JUDGE = """\
def better(new, old):
    wins = sum(abs(float(a["predicted"]) - float(a["actual"])) < abs(float(b["predicted"]) - float(b["actual"]))
               for a, b in zip(new, old, strict=True))
    return {"better": wins > 6, "why": f"it is nearer in {wins} of {len(new)} cases", "p": None}


def prepare(paths, metadata):
    import pandas
    return pandas.DataFrame({"x": [float(path.read_text()) for path in paths]})


def answer(output, place):
    return f"number {place}: {output:.1f}"
"""


def train(name: str) -> None:
    """What the stage of a model writes, in the current folder: models/NAME, models/NAME.csv, metrics/NAME.json."""
    import mlflow
    import pandas
    from mlflow.models import infer_signature

    table, factor = pandas.read_csv("data/table.csv"), values()["models"][name]["factor"]
    Path("net.py").write_text(
        "import mlflow, pandas\nclass Net(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: pandas.DataFrame, params=None):\n"
        f"        return model_input['x'] * {factor}\nmlflow.models.set_model(Net())\n"
    )
    asked, answered = table[["x"]].astype(float), table["x"] * factor
    shutil.rmtree(f"models/{name}", ignore_errors=True)
    mlflow.pyfunc.save_model(
        f"models/{name}", python_model="net.py", pip_requirements=[], signature=infer_signature(asked, answered)
    )
    rows = table.assign(actual=table["y"], predicted=answered)[["actual", "predicted"]]
    rows.to_csv(f"models/{name}.csv", index=False)
    Path("metrics").mkdir(exist_ok=True)
    rmse = float(((table["y"] - answered) ** 2).mean() ** 0.5)
    Path(f"metrics/{name}.json").write_text(json.dumps({"rmse": round(rmse, 6)}))


def compare() -> None:
    """What the comparison writes, in the current folder."""
    found = {name: json.loads(Path(f"metrics/{name}.json").read_text())["rmse"] for name in ("near", "far")}
    best = min(found, key=found.get)
    Path("metrics/compare.json").write_text(json.dumps({"champion": best, "rmse": found[best], "test_rmse": 0.5}))


def values() -> dict:
    return YAML(typ="safe").load(Path("params.yaml").read_text())


def run_without_dvc() -> None:
    """All stages in this process, in the current folder, and a dvc.lock that says of them what the registry reads."""
    exec(DATA, {})
    stages = {}
    data = {"path": "data/table.csv", "md5": hashlib.md5(Path("data/table.csv").read_bytes()).hexdigest()}
    for name, section in values()["models"].items():
        train(name)
        outs = [{"path": f"models/{name}"}, {"path": f"models/{name}.csv"}, {"path": f"metrics/{name}.json"}]
        stages[f"train@{name}"] = {"cmd": "x", "deps": [data], "params": {"params.yaml": section}, "outs": outs}
    compare()
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))


class Clone:
    """A clone of a project in the folder `root`, with credentials in its environment."""

    def __init__(self, root: Path, credentials: dict[str, str]):
        self.root = root
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
            **WHO,
            **credentials,
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": os.pathsep.join(map(str, (servers.ROOT, Path(__file__).parent))),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def call(self, *command: str, code: int | None = 0, **variables: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.variables | variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=400,
        )
        assert code is None or done.returncode == code, (
            f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def nbproof(self, *arguments: str, code: int | None = 0, **variables: str) -> str:
        return self.call(
            sys.executable, "-c", "from nbproof.cli import main; main()", *arguments, code=code, **variables
        )

    def dvc(self, *arguments: str, code: int | None = 0, **variables: str) -> str:
        return self.call(sys.executable, "-m", "dvc", *arguments, code=code, **variables)

    def git(self, *arguments: str) -> str:
        return self.call("git", *arguments)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message, "--allow-empty")


def bare_project(folder: Path, credentials: dict[str, str]) -> Clone:
    """A project without stages, in a repository of its own."""
    folder.mkdir(parents=True)
    (folder / "project.yaml").write_text("name: small\nmetric: {key: rmse, goal: min}\n")
    (folder / ".gitignore").write_text("__pycache__/\n/mlflow.db*\n/mlartifacts/\n/net.py\n")
    clone = Clone(folder, credentials)
    clone.git("init", "-q", "-b", "main")
    clone.dvc("init", "-q")
    clone.dvc("config", "core.analytics", "false")
    clone.commit("as it is")
    return clone


FILES = {
    "project.yaml": PROJECT,
    "params.yaml": PARAMS,
    "dvc.yaml": DVC,
    "data.py": DATA,
    "train.py": TRAIN,
    "compare.py": COMPARE,
    "notebooks/judge.py": JUDGE,
}


def write_project(folder: Path) -> None:
    """The small project's files."""
    (folder / "notebooks").mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)


def small_project(folder: Path, credentials: dict[str, str]) -> Clone:
    """The small project in a repository of its own, not run yet."""
    clone = bare_project(folder, credentials)
    write_project(folder)
    clone.commit("a project")
    return clone


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
