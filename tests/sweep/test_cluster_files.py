"""The files of docs/cluster: right by the schemas of those who read them, with the versions that are pinned here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import ray
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "cluster"
CHECKS = {"kuberay.yaml": Path(__file__).with_name("raycluster.schema.json"),
          "ray-up.yaml": Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"}


def checked(path: Path, schema: Path) -> int:
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(path)]
    return subprocess.run(command, capture_output=True).returncode


def test_each_file_is_accepted_and_a_wrong_one_is_not(tmp_path):
    for name, schema in CHECKS.items():
        assert checked(FOLDER / name, schema) == 0, name
        content = YAML(typ="safe").load((FOLDER / name).read_text(encoding="utf-8"))
        wrong = content.get("spec", content)
        wrong["max_wrokers"] = 2
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        assert checked(tmp_path / f"{name}.json", schema) != 0, f"{name} with a misspelt key"


def test_versions_are_the_pinned_ones_and_access_needs_a_token():
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements-sweep.txt").read_text(), re.MULTILINE)[1]
    kuberay = YAML(typ="safe").load((FOLDER / "kuberay.yaml").read_text(encoding="utf-8"))["spec"]
    assert kuberay["rayVersion"] == pinned and kuberay["authOptions"]["mode"] == "token"
    up = YAML(typ="safe").load((FOLDER / "ray-up.yaml").read_text(encoding="utf-8"))
    for command in (*up["head_start_ray_commands"], *up["worker_start_ray_commands"]):
        assert "ray stop" in command or "RAY_AUTH_MODE=token" in command
