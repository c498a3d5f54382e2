"""The files of docs/cluster: right by Ray's own schema, with the versions that are pinned here."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import ray
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "cluster"


def test_ray_accepts_its_file_and_no_wrong_one():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    content = YAML(typ="safe").load((FOLDER / "ray-up.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        jsonschema.validate(content | {"max_wrokers": 2}, schema)


def test_versions_are_the_pinned_ones_and_access_needs_a_token():
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements" / "sweep.txt").read_text(), re.MULTILINE)[1]
    kuberay = YAML(typ="safe").load((FOLDER / "kuberay.yaml").read_text(encoding="utf-8"))["spec"]
    assert kuberay["rayVersion"] == pinned and kuberay["authOptions"]["mode"] == "token"
    up = YAML(typ="safe").load((FOLDER / "ray-up.yaml").read_text(encoding="utf-8"))
    for command in (*up["head_start_ray_commands"], *up["worker_start_ray_commands"]):
        assert "ray stop" in command or "RAY_AUTH_MODE=token" in command
