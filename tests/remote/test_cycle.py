"""Two people and one remote: one trains and pushes, the other pulls, changes, pushes; both have the same bytes."""

import shutil
import subprocess
from pathlib import Path

from small import ACCOUNT, Clone, edit, small_project


def outputs(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in ("data", "models", "metrics")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


def test_two_clones_share_everything(mlflow3, tmp_path, bucket):
    credentials = ACCOUNT | bucket.credentials
    a = small_project(tmp_path / "a", credentials)
    edit(a.root / "project.yaml", "name: small", "name: cycle")
    where = ("--tracking", mlflow3, "--data", f"s3://{bucket.name}/cycle", "--endpoint", bucket.endpoint)
    printed = a.nbproof("remote", *where)
    assert "Tracking server answers.\nDVC remote answers." in printed
    for name in ("remote.yaml", ".dvc/config"):
        text = (a.root / name).read_text(encoding="utf-8")
        assert not [secret for secret in credentials.values() if secret in text]
    a.dvc("repro")
    assert "near is the registered champion now" in a.nbproof("promote")
    a.commit("trained")
    assert "These are the results of data.source: table." in a.nbproof("push")

    subprocess.run(["git", "clone", "-q", str(a.root), str(tmp_path / "b")], check=True)
    b = Clone(tmp_path / "b", credentials)
    b.nbproof("pull")
    assert outputs(b.root) == outputs(a.root)
    assert "up to date" in b.dvc("repro"), "nothing is trained again"
    assert "near is the registered champion already" in b.nbproof("promote")

    edit(b.root / "params.yaml", "factor: 1.5", "factor: 2.01")
    said = b.dvc("repro")
    assert "train@far" in said and "Running stage 'train@near'" not in said
    assert "far is the registered champion now (version 2, data.source: table, before: version 1, " in b.nbproof(
        "promote"
    )
    b.commit("far is nearer")
    b.nbproof("push")
    a.git("pull", "-q", str(b.root), "main")
    a.nbproof("pull")
    assert (
        outputs(a.root) == outputs(b.root) and (a.root / "dvc.lock").read_bytes() == (b.root / "dvc.lock").read_bytes()
    )

    alone = Clone(tmp_path / "alone", ACCOUNT)  # the champion needs neither notebooks nor training
    alone.root.mkdir()
    for name in ("project.yaml", "remote.yaml"):
        shutil.copy(a.root / name, alone.root / name)
    (alone.root / "asked.json").write_text('[{"x": 10}, {"x": 20}]')
    said = alone.nbproof("predict", "asked.json")
    assert "row,prediction\n1,20.0" in said and "by the champion, version 2: far" in said
