"""JupyterLab's environment and files; tests/lab drives a real one in a browser."""

import socket

import pytest

from nbproof.notebook.errors import UserError
from nbproof.runner.determinism import SETTINGS
from nbproof.workspace import lab


def test_the_users_own_jupyter_is_left_alone_unless_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    variables = lab.environment(tmp_path)
    folders = [value for name, value in variables.items() if name.startswith(("JUPYTER", "IPY"))]
    assert all(folder.startswith(str(tmp_path)) for folder in folders if folder != "1")
    assert variables.items() >= SETTINGS.items()  # as in the kernel of a stage
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", "/home/me/.jupyter")
    assert lab.environment(tmp_path)["JUPYTER_CONFIG_DIR"] == "/home/me/.jupyter"


def test_for_root_jupyterlab_starts_only_where_that_is_wanted(monkeypatch):
    monkeypatch.setattr(lab, "is_root", lambda: True)
    with pytest.raises(UserError, match="in a container, nbproof lab --allow-root"):
        lab.start([])


def test_a_port_in_use_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="in use by another program.: \\d+ is free"):
            lab.check_free(other.getsockname()[1])
    with pytest.raises(UserError, match="Port 99999 cannot be taken"):
        lab.check_free(99999)
