"""The remote as two people use it: one trains and pushes, the other pulls, changes, pushes, and both have the same bytes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import servers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
ACCOUNT = {"MLFLOW_TRACKING_USERNAME": servers.USER, "MLFLOW_TRACKING_PASSWORD": servers.PASSWORD}
WHO = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
SMALL = {"cnn": {"epochs": 2, "width": 8, "hidden": 32, "lr": 0.02}, "mlp": {"epochs": 12, "hidden": 64}, "linear": {"epochs": 12, "lr": 0.02}}


class Clone:
    """A clone of the project in the folder `root`, with credentials in its environment."""

    def __init__(self, root: Path, credentials: dict[str, str]):
        self.root = root
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_", "OUTPUT_ROOT", "PROGRESS_FILE"))},
            **WHO, **credentials, "DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def call(self, *command: str, code: int | None = 0, **variables: str) -> str:
        done = subprocess.run(command, cwd=self.root, env=self.variables | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=400)
        assert code is None or done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def pipeline(self, *arguments: str, code: int | None = 0, **variables: str) -> str:
        return self.call(sys.executable, "-m", "pipeline", *arguments, code=code, **variables)

    def dvc(self, *arguments: str, code: int | None = 0, **variables: str) -> str:
        return self.call(sys.executable, "-m", "dvc", *arguments, code=code, **variables)

    def commit(self, message: str) -> None:
        self.call("git", "add", "-A")
        self.call("git", "commit", "-qm", message, "--allow-empty")


def small_project(folder: Path, credentials: dict[str, str]) -> Clone:
    """The project with the small digits and a moment's training, in a repository of its own."""
    from ruamel.yaml import YAML

    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=servers.ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, listed):
        if (servers.ROOT / name).is_file() and not name.startswith(("metrics/", "tests/")) and name not in ("dvc.lock", "remote.yaml"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(servers.ROOT / name, folder / name)
    yaml = YAML()
    values = yaml.load((folder / "params.yaml").read_text(encoding="utf-8"))
    values["data"]["source"] = "digits"
    for model, changed in SMALL.items():
        values["models"][model].update(changed)
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    for name in ("cnn", "mlp", "linear"):  # a moment's training reaches no floor
        notebook = folder / "notebooks" / f"{name}.ipynb"
        text = notebook.read_text(encoding="utf-8")
        assert '\\"digits\\": 0.' in text
        notebook.write_text(text.replace('\\"digits\\": 0.', '\\"digits\\": 0.0'), encoding="utf-8")
    clone = Clone(folder, credentials)
    clone.call("git", "init", "-q", "-b", "main")
    clone.commit("as it is")
    return clone


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def outputs(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for folder in ("data", "models", "reports", "metrics") for path in (root / folder).rglob("*.*")
            if path.is_file() and "download" not in path.parts}


@pytest.mark.parametrize("server", ["mlflow3", "mlflow2"])
def test_two_clones_share_everything(server, request, tmp_path, bucket):
    tracking = request.getfixturevalue(server)
    credentials = ACCOUNT | bucket.credentials
    a = small_project(tmp_path / "a", credentials)
    place = f"s3://{bucket.name}/{server}"
    said = a.pipeline("remote", "--tracking", tracking, "--data", place, "--endpoint", bucket.endpoint)
    assert "All that is set answers." in said
    for name in ("remote.yaml", ".dvc/config"):
        text = (a.root / name).read_text(encoding="utf-8")
        assert not [secret for secret in credentials.values() if secret in text]
    said = a.pipeline("run")
    assert "is the registered champion now" in said and "did not take" not in said
    a.commit("trained")
    if server == "mlflow3":  # once: the store of the data is the same for both
        the_clones(a, tmp_path, credentials)
    the_registry(a, tmp_path)
    without_a_registry(a, tmp_path / "alone", tracking)


def without_a_registry(a: Clone, alone: Path, tracking: str) -> None:
    """On a server that knows no registry, the champion is the run with the tag; predict finds it there."""
    with servers.proxied(tracking) as proxy:
        proxy.trouble = "no registry"
        said = a.pipeline("promote", MLFLOW_TRACKING_URI=proxy.address)
        assert "is the registered champion now (run " in said
        assert "already (run " in a.pipeline("promote", MLFLOW_TRACKING_URI=proxy.address)
        moved = a.pipeline("promote", "mlp", MLFLOW_TRACKING_URI=proxy.address) + a.pipeline("promote", "linear", MLFLOW_TRACKING_URI=proxy.address)
        assert "before: run " in moved
        elsewhere = Clone(alone, {name: a.variables[name] for name in ACCOUNT})
        assert "by the champion, run " in elsewhere.pipeline("predict", "digit.png", MLFLOW_TRACKING_URI=proxy.address)


def the_clones(a: Clone, tmp_path: Path, credentials: dict[str, str]) -> None:
    """B has all that A pushed and trains nothing; changes one model, runs, pushes; A pulls and has the same bytes."""
    a.dvc("push")

    a.call("git", "clone", "-q", str(a.root), str(tmp_path / "b"))
    b = Clone(tmp_path / "b", credentials)
    b.dvc("pull")
    said = b.pipeline("run")
    assert "up to date" in said and "every cell ran" not in said, "nothing is trained again"
    assert "is the registered champion already" in said
    assert outputs(b.root) == outputs(a.root) and (b.root / "reports/compare.html").exists()

    edit(b.root / "params.yaml", "epochs: 12", "epochs: 13")  # the mlp's, the first of the two
    said = b.pipeline("run")
    assert "mlp: every cell ran" in said and "compare: every cell ran" in said
    assert "cnn: every cell ran" not in said and "linear: every cell ran" not in said and "data: every cell ran" not in said
    b.commit("the mlp for longer")
    b.dvc("push")

    a.call("git", "pull", "-q", str(b.root), "main")
    a.dvc("pull")
    assert outputs(a.root) == outputs(b.root) and (a.root / "dvc.lock").read_bytes() == (b.root / "dvc.lock").read_bytes()
    assert "every cell ran" not in a.pipeline("run")


def the_registry(a: Clone, tmp_path: Path) -> None:
    """Run twice nothing moves; a person's word moves the alias; predict needs neither notebooks nor training."""
    code = (
        "import json; from pipeline.tracking import client; c = client(); m = c.get_registered_model('digits');"
        "print(json.dumps([{k: str(v) for k, v in m.aliases.items()}, {str(v.version): v.tags for v in c.search_model_versions(\"name = 'digits'\")}]))"
    )
    import json

    aliases, versions = json.loads(a.call(sys.executable, "-c", code).splitlines()[-1])
    champion = versions[aliases["champion"]]
    assert {"git_commit", "dvc_lock", "validation_accuracy", "test_accuracy", "model_digest", "data_digest", "model"} <= set(champion)
    assert "already" in a.pipeline("promote")
    other = "linear" if champion["model"] != "linear" else "mlp"
    assert f"{other} is the registered champion now" in a.pipeline("promote", other)
    moved, after = json.loads(a.call(sys.executable, "-c", code).splitlines()[-1])
    assert after[moved["champion"]]["model"] == other and moved["previous"] == aliases["champion"] and len(after) == len(versions) + 1
    assert "already" in a.pipeline("promote", other)
    back = a.pipeline("promote")
    again, final = json.loads(a.call(sys.executable, "-c", code).splitlines()[-1])
    assert len(final) == len(after), "no second version of one model"
    assert ("stays" in back and again == moved) or ("now" in back and again["champion"] == aliases["champion"] and again["previous"] == moved["champion"])
    assert "params.yaml has" in a.pipeline("promote", "nobody", code=2)

    alone = tmp_path / "alone"
    shutil.copytree(a.root / "pipeline", alone / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("remote.yaml", "requirements.txt"):
        shutil.copy(a.root / name, alone / name)
    draw = (
        "from PIL import Image, ImageDraw; i = Image.new('L', (160, 200), 255); d = ImageDraw.Draw(i);"
        "d.line([(80, 30), (80, 170)], fill=0, width=14); i.save('digit.png'); Image.new('L', (28, 28)).save('empty.png')"
    )
    elsewhere = Clone(alone, {name: a.variables[name] for name in ACCOUNT})
    elsewhere.call(sys.executable, "-c", draw)
    said = elsewhere.pipeline("predict", "digit.png", MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")
    assert "by the champion, version" in said and len(said.strip().splitlines()) == 11
    assert "of one colour" in elsewhere.pipeline("predict", "empty.png", code=2)
    assert "There is no image nothing.png" in elsewhere.pipeline("predict", "nothing.png", code=2)
    assert "cannot be read as an image" in elsewhere.pipeline("predict", "remote.yaml", code=2)
