"""What varies from run to run is told, or made the same."""

import datetime

import nbformat
import pandas as pd
import pytest
from IPython.lib.pretty import pretty

from nbproof.runner import varying


def notebook(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook whose second cell has these outputs."""
    cell = nbformat.v4.new_code_cell("x", outputs=list(outputs))
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# x"), cell])


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", text=text, name=name)


def display(**data) -> nbformat.NotebookNode:
    data = {kind.replace("_", "/", 1): value for kind, value in data.items()}
    return nbformat.v4.new_output("display_data", data=data)


def test_widgets_and_styled_tables_lose_their_random_ids():
    texts = []
    for _ in range(2):
        style = pd.DataFrame({"a": [1]}).style.set_properties(color="red")
        given = notebook(stream("x"), display(text_plain=pretty(style), text_html=style.to_html()))
        varying.number_ids(given)
        texts.append(given.cells[1].outputs[1].data)
        assert varying.found(given) == []
    assert texts[0] == texts[1] and "#T_2_row0_col0" in texts[0]["text/html"]
    given = notebook(display(**{varying.WIDGET: {"model_id": "f0"}}), stream("x"))
    varying.number_ids(given)
    assert given.cells[1].outputs[0].data[varying.WIDGET] == {"model_id": ""}


NOW = str(datetime.datetime.now())


@pytest.mark.parametrize("output, what", [
    (display(text_plain="<object at 0x7f03f0a1>"), "<object at 0x7f03f0a1"),
    (stream(f"at {NOW}"), NOW[:19]),
    (stream("CPU times: user 3 ms\nWall time: 24 ms\n"), "CPU times: "),
    (stream("95.4 ns ± 1 ns per loop\n"), "4 ns ± "),
    (stream("3/3 [00:00<00:00, 11407.90it/s]", "stderr"), "[00:00<"),
    (display(**{"image_svg+xml": f"<dc:date>{NOW}</dc:date>"}), NOW[:19]),
    (stream("0x12345678 [00:00<?, ?it/s] 2013-01-01 10:00:00"), ""),
    (display(application_json={"a": 1}, image_png="AA=="), ""),
], ids=["address", "clock", "times", "timeit", "bar", "date", "nothing", "data"])
def test_what_differs_from_run_to_run_is_named(tmp_path, inside, output, what):
    """F11: of %time, %timeit and a clock nobody was told."""
    (tmp_path / "project.yaml").touch()
    inside(tmp_path)
    found = varying.found(notebook(output))
    assert len(found) == bool(what) and all(f"cell 2 shows '{what}" in text for text in found)
    assert str(tmp_path)[:60] in varying.found(notebook(stream(f"{tmp_path}/x")))[0]
