"""No secret of the environment stays in an executed notebook or in a result."""

import html
import json

import nbformat
import pytest

from nbproof.runner import secrets

VALUE = 'zqx"<é\\2'


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in secrets.os.environ if secrets.NAMES.search(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOME_API_TOKEN", f"{VALUE}\n")  # none that nbproof itself knows
    monkeypatch.setenv("OTHER_PASSWORD", "short")


@pytest.mark.parametrize("show", [str, repr, html.escape, json.dumps,
                                  lambda text: json.dumps(text, ensure_ascii=False)])
@pytest.mark.parametrize("kind", ["stream", "execute_result", "error"])
def test_an_output_that_shows_a_secret_is_emptied(kind, show):
    shown = f"it is {show(VALUE)}."
    more = {"stream": {"text": shown}, "execute_result": {"data": {"text/html": shown}},
            "error": {"ename": "E", "evalue": "", "traceback": [shown]}}[kind]
    cells = [nbformat.v4.new_code_cell("1", metadata={"tags": ["injected-parameters"]}),
             nbformat.v4.new_markdown_cell("# x"),
             *(nbformat.v4.new_code_cell("x", execution_count=1, outputs=[output]) for output in (
                 nbformat.v4.new_output("stream", text="short"),
                 nbformat.v4.new_output(kind, **more)))]
    executed = nbformat.v4.new_notebook(cells=cells)
    failure = secrets.take_out(executed)
    assert failure == "cell 3: its output shows the value of SOME_API_TOKEN, so it is not kept"
    assert executed.metadata.failure.cell == 3 and "zqx" not in nbformat.writes(executed)
    assert executed.cells[-1].execution_count is None and executed.cells[-2].outputs
    assert secrets.take_out(executed) == ""


def test_a_result_that_holds_a_secret_is_found(tmp_path):
    """H25: a secret in metrics/s.json was kept without a word."""
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "s.json").write_text(json.dumps({"key": VALUE}))
    (folder / "deep" / "weights").write_bytes(b"\0" * 5000 + VALUE.encode() + b"\0")
    (folder / "empty").touch()
    (folder / "clean").write_text("short")
    paths = [tmp_path / "s.json", folder, tmp_path / "missing"]
    assert secrets.in_files(paths) == [
        (tmp_path / "s.json", "SOME_API_TOKEN"), (folder / "deep" / "weights", "SOME_API_TOKEN")]
