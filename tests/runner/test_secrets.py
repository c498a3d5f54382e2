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


@pytest.mark.parametrize("show", [str, repr, html.escape, json.dumps])
def test_an_output_that_shows_a_secret_is_emptied(show):
    shown = f"it is {show(VALUE)}."
    outputs = [nbformat.v4.new_output("stream", text=shown),
               nbformat.v4.new_output("execute_result", data={"text/html": shown}),
               nbformat.v4.new_output("error", ename="E", evalue="", traceback=[shown]),
               nbformat.v4.new_output("stream", text="short")]
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# x"), *(
        nbformat.v4.new_code_cell("x", execution_count=1, outputs=[output]) for output in outputs)])
    failure = secrets.take_out(executed)
    assert failure == "cell 2: its output shows the value of SOME_API_TOKEN, so it is not kept"
    assert executed.metadata.failure.cell == 2 and "zqx" not in nbformat.writes(executed)
    assert [len(cell.outputs) for cell in executed.cells[1:]] == [0, 0, 0, 1]


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
