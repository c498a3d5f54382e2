"""JupyterLab's environment and files; tests/lab drives a real one in a browser."""

import asyncio
import json
import socket

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_events import EventLogger
from jupyter_server.serverapp import ServerApp
from projects import notebook

from nbproof.notebook.errors import UserError
from nbproof.runner.determinism import SETTINGS
from nbproof.workspace import lab
from nbproof.workspace.contents_manager import SourceOnlyContents


def test_the_users_own_jupyter_is_left_alone_unless_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    variables = lab.environment(tmp_path)
    folders = [value for name, value in variables.items() if name.startswith(("JUPYTER", "IPY"))]
    assert all(folder.startswith(str(tmp_path)) for folder in folders if folder != "1")
    assert variables.items() >= SETTINGS.items()  # as in the kernel of a stage
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", "/home/me/.jupyter")
    assert lab.environment(tmp_path)["JUPYTER_CONFIG_DIR"] == "/home/me/.jupyter"


def test_a_port_in_use_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="in use by another program.: \\d+ is free"):
            lab.check_free(other.getsockname()[1])
    with pytest.raises(UserError, match="Port 99999 cannot be taken"):
        lab.check_free(99999)


def test_source_is_saved_below_notebooks_and_opened_with_the_kernels_metadata(
        tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    files = [tmp_path / "notebooks/a.ipynb", tmp_path / "scratch/a.ipynb"]
    for path in files:
        notebook(path, "1 + 1")
    app = ServerApp()
    app.kernel_spec_manager = KernelSpecManager()
    contents = SourceOnlyContents(
        root_dir=str(tmp_path), parent=app, event_logger=EventLogger())
    for path in files:
        name, before = path.relative_to(tmp_path).as_posix(), path.read_text()
        opened = asyncio.run(contents.get(name))
        metadata = opened["content"]["metadata"]
        assert metadata["language_info"]["name"] == metadata["kernelspec"]["language"] == "python"
        opened["content"]["cells"][0]["execution_count"] = 1
        asyncio.run(contents.save(opened, name))
        count = json.loads(path.read_text())["cells"][0]["execution_count"]
        assert (count, path.read_text() == before) == ((None, True), (1, False))[path is files[1]]
