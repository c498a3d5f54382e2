"""params.yaml as a notebook reads it: the values that DVC reads, or one sentence."""

import pytest

from nbproof.notebook import params
from nbproof.notebook.errors import UserError


def test_values_are_those_that_dvc_reads(project):
    (project / "params.yaml").write_text("a: 1e-3\nb: yes\nc: 0o17\nd: [1, null]\n")
    assert params.read() == {"a": 0.001, "b": "yes", "c": 15, "d": [1, None]}


def test_a_section(project):
    (project / "params.yaml").write_text("models: {x: {lr: 1, seed: 3}, y: }\n")
    section = params.section("models.x")
    assert params.chosen(section, {"lr": 2, "seed": 3, "other": 4}) == {"lr": 2, "seed": 3}
    assert vars(params.section("models.y")) == {}
    with pytest.raises(KeyError, match=r"params.yaml has no section models\.x\.lr"):
        params.section("models.x.lr")


@pytest.mark.parametrize("content, reason", [
    (b"models: {x: {}} # \xff\n", "is not valid YAML: 'utf-8' codec"),
    (b"a: {n: " + b"9" * 5000 + b"}\n", "is not valid YAML: Exceeds the limit"),
    (b"a: " + b"[" * 2000 + b"]" * 2000, "is not valid YAML: it is nested too deep"),
    (b"a: 1\nb: [", "is not valid YAML: .* in line 2"),
    (b"[1]", "must hold names with values, found \\[1\\]"),
    (b"a: {b: 1}\na: {}\n", "is not valid YAML: the key \"a\" is there twice, again in line 2"),
    (None, "is missing: git checkout params.yaml brings it back"),
])
def test_what_is_no_mapping_is_one_sentence(project, content, reason):
    if content is not None:
        (project / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=f"^params.yaml {reason}") as error:
        params.read()
    assert "\n" not in str(error.value)
