"""A real JupyterLab, started by `nbproof lab` and driven by a headless Chromium."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from browser import chromium
from projects import NOT_COPIED, command, commit, dvc

sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CELLS = "jupyterapp.shell.currentWidget.content.model.toJSON().cells"
KERNEL = "jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status == 'idle'"
DONE = f"""{KERNEL} && {CELLS}.every(
    cell => cell.cell_type != 'code' || cell.execution_count || cell.source == '')"""


@pytest.fixture(scope="module")
def folder(finished_once, tmp_path_factory) -> Path:
    """A finished project with a README, committed."""
    copy = tmp_path_factory.mktemp("lab") / "project"
    shutil.copytree(finished_once[0], copy, ignore=NOT_COPIED)
    (copy / "README.md").write_text("# The project\n\n## Part\n")
    commit(copy)
    return copy


@pytest.fixture(scope="module")
def lab(folder):
    """The address of a JupyterLab on the project."""
    words = ["--no-browser", "--allow-root", "--ServerApp.token=t",
             "--LabApp.expose_app_in_browser=True"]
    log, home = folder.parent / "lab.log", folder.parent / "home"
    home.mkdir()
    with log.open("w") as printed:
        server = subprocess.Popen(
            [sys.executable, "-m", "nbproof", "lab", *words], cwd=folder, stdout=printed,
            stderr=printed, env=os.environ | {"HOME": str(home)}, start_new_session=True)
    try:
        ends = time.monotonic() + 120
        while not (address := re.search(r"http://127.0.0.1:\d+(?=/lab)", log.read_text())):
            assert server.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.2)
        yield address[0]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def page(lab):
    """A page tall enough that JupyterLab draws every cell."""
    with sync.sync_playwright() as play:
        opened = chromium(play).new_page(viewport={"width": 1400, "height": 9000})
        opened.set_default_timeout(120_000)
        yield opened


def open_notebook(page, lab: str, name: str) -> None:
    """Open a notebook and wait until its kernel is ready: before that, Run All does nothing."""
    page.goto(f"{lab}/lab/tree/notebooks/{name}.ipynb?token=t&reset")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.wait_for_function(KERNEL)


def outputs(cells: list[dict]) -> list[list[str]]:
    """What each code cell shows that is not empty, but for the values of the parameters."""
    def text(output: dict) -> str:
        shown = output.get("data", output)
        return "".join(shown.get("text/plain", shown.get("text", ""))).strip()

    return [list(filter(None, map(text, cell["outputs"]))) for cell in cells
            if cell["cell_type"] == "code" and "parameters" not in str(cell["metadata"])]


@pytest.mark.parametrize("name", ["data", "near", "compare"])
def test_run_all_and_save_gives_the_stages_outputs_and_changes_nothing(name, folder, lab, page):
    open_notebook(page, lab, name)
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    page.wait_for_function(DONE)
    executed = nbformat.read(folder / f"reports/{name}.ipynb", as_version=4).cells
    assert outputs(page.evaluate(CELLS)) == outputs(executed)
    if name != "data":
        results = (folder / f"metrics/{name}.json").read_text()
        assert (folder / f"scratch/metrics/{name}.json").read_text() == results
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")
    assert command(folder, "git", "status", "--porcelain").stdout == ""
    assert "up to date" in dvc(folder, "status").stdout


def test_it_opens_on_the_readme_with_the_environments_kernel(lab, page, folder):
    page.goto(f"{lab}/?token=t")
    page.wait_for_selector(".jp-MarkdownViewer h1")
    assert page.locator(".jp-MarkdownViewer h1").first.inner_text() == "The project"
    page.wait_for_selector('[data-id="table-of-contents"]', state="attached")
    kernels = page.request.get(f"{lab}/api/kernelspecs?token=t").json()
    assert kernels["default"] == "python3" and [*kernels["kernelspecs"]] == ["python3"]
    home = folder.parent / "home"
    assert "UserWarning" not in (folder.parent / "lab.log").read_text()
    left = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
    assert not left & {".jupyter", ".local", ".ipython"}, "the user's own Jupyter is not touched"
