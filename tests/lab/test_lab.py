"""A real JupyterLab, started as `make lab` starts it and driven by a headless Chromium in a project of the template."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import nbformat
import pytest
from browser import chromium

sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

NOTEBOOKS, WITHIN = ["data", "logistic", "tree", "compare"], 120  # seconds
CELLS = "jupyterapp.shell.currentWidget.content.model.toJSON().cells"
DONE = f"""jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle'
  && {CELLS}.every(cell => cell.cell_type != 'code' || cell.execution_count || cell.source == '')"""


@pytest.fixture(scope="module")
def lab(project):
    """The address of a JupyterLab on the project, by `nbproof lab`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.token=t",
               "--LabApp.expose_app_in_browser=True"]
    log = project.root.parent / "lab.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "nbproof", "lab", *options], cwd=project.root, env=project.variables,
            stdout=said, stderr=said, start_new_session=True,
        )
    try:
        ends = time.monotonic() + 60
        while f"127.0.0.1:{port}/lab" not in log.read_text():
            assert server.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    with sync.sync_playwright() as play:
        started = chromium(play)
        yield started
        started.close()


@pytest.fixture
def page(browser, lab):
    """A page tall enough that JupyterLab draws every cell; its kernels are ended with it."""
    opened = browser.new_page(viewport={"width": 1400, "height": 9000})
    opened.set_default_timeout(WITHIN * 1000)
    yield opened
    for session in opened.request.get(f"{lab}/api/sessions?token=t").json():
        opened.request.delete(f"{lab}/api/sessions/{session['id']}", headers={"Authorization": "token t"})
    opened.close()


def run_all(page, lab: str, name: str) -> list[dict]:
    """Open a notebook, run all its cells by the menu, wait for the end; its cells with their outputs."""
    page.goto(f"{lab}/lab/tree/notebooks/{name}.ipynb?token=t&reset")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status == 'idle'")
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    page.wait_for_function(DONE)
    return page.evaluate(CELLS)


SAME = "These are the numbers that dvc.lock records: "


def lasting(cells: list[dict]) -> list[list[tuple[str, str]]]:
    """The outputs of each code cell: what they show, without empty ones and without what is for explorers alone."""

    def shown(output: dict) -> dict:
        return output.get("data") or {key: value for key, value in output.items() if key in ("text", "evalue")}

    def plain(value) -> str:
        return "".join(value) if isinstance(value, (list, str)) else json.dumps(value)

    def outputs(cell: dict) -> list[tuple[str, str]]:
        if "parameters" in cell["metadata"].get("tags", []):  # where a stage's report has a table
            return []
        found = [pair for each in cell["outputs"] for pair in sorted(shown(each).items())]
        texts = [(kind, plain(value).strip()) for kind, value in found]
        return [(kind, text) for kind, text in texts if not text.startswith(SAME)]

    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [outputs(cell) for cell in code if "injected-parameters" not in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_and_save_gives_the_same_and_changes_nothing(name, project, lab, page):
    cells = run_all(page, lab, name)
    executed = nbformat.read(project.root / f"reports/{name}.ipynb", as_version=4).cells
    assert lasting(cells) == lasting(executed), "what stays on the screen is what the stage's report shows"
    (parameters,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert " = " in str(parameters["outputs"]), "the values stand below the cell that declares them"
    if name != "data":
        file = f"metrics/{name}.json"
        assert f"{SAME}{file} is the same, byte for byte." in str(cells)
        results = json.loads((project.root / file).read_text())
        assert json.loads((project.root / "scratch" / file).read_text()) == results
        assert f"{results['test_accuracy' if name == 'compare' else 'accuracy']:.1%}" in str(lasting(cells))
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")
    assert project.git("status", "--porcelain") == ""


def test_a_notebook_that_is_only_looked_at_is_not_changed(project, lab, page):
    """Not by what JupyterLab notes of its kernel; so closing it asks nothing. And the server has nothing to warn of."""
    page.goto(f"{lab}/lab/tree/notebooks/compare.ipynb?token=t&reset")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status == 'idle'")
    page.wait_for_timeout(3000)
    assert page.evaluate("jupyterapp.shell.currentWidget.context.model.dirty") is False
    assert project.git("status", "--porcelain") == ""
    assert "UserWarning" not in (project.root.parent / "lab.log").read_text()


def test_nothing_is_stale_after_all_were_run_and_saved(project):
    assert "up to date" in project.dvc("status")


def test_it_opens_on_the_readme_with_the_projects_own_kernel(lab, page, project):
    page.goto(f"{lab}/?token=t")
    page.wait_for_selector(".jp-MarkdownViewer h1")
    title = page.locator(".jp-MarkdownViewer h1").first.inner_text()
    assert title in (project.root / "README.md").read_text(encoding="utf-8")
    page.wait_for_selector('[data-id="table-of-contents"]', state="attached")
    kernels = page.request.get(f"{lab}/api/kernelspecs?token=t").json()
    assert kernels["default"] == "python3"
    assert kernels["kernelspecs"]["python3"]["spec"]["display_name"].startswith(project.root.name)
    assert kernels["kernelspecs"]["python3"]["spec"]["argv"][0] == sys.executable
    home = project.root.parent / "home"
    left = {path.relative_to(home).parts[0] for path in home.rglob("*") if path.is_file()}
    assert not left & {".jupyter", ".local", ".ipython"}, "the user's own Jupyter was not touched"
