"""JupyterLab on the project: the files it needs in the environment, and its start. Needs nothing but Python's standard library."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from pipeline import ROOT, git
from pipeline.environment import PYTHON, VENV, with_tools

SERVER = """\
# Written by `python -m pipeline setup`: notebooks are saved as source, so that looking at one changes nothing.
import sys
sys.path.insert(0, {root!r})
from pipeline.stage.source import save_source_only
c.ContentsManager.pre_save_hook = save_source_only
c.LanguageServerManager.autodetect = False  # none is installed; the search for them starts npm
"""
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
}


def files(prefix: Path, python: Path) -> dict[Path, str]:
    """What Jupyter finds below `prefix`: the save hook, the settings, and the kernel `python3` under the project's name.

    The kernel keeps Jupyter's own id, so that a notebook opens with it here and in any other place that has a Python.
    """
    kernel = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"{ROOT.name} (.venv)", "language": "python", "kernel_protocol_version": "5.5",
        "metadata": {"debugger": True, "supported_encryption": ["curve"]},  # what ipykernel says of itself
    }
    return {
        prefix / "etc" / "jupyter" / "jupyter_server_config.py": SERVER.format(root=str(ROOT)),
        prefix / "share" / "jupyter" / "kernels" / "python3" / "kernel.json": json.dumps(kernel, indent=1) + "\n",
        prefix / "share" / "jupyter" / "lab" / "settings" / "overrides.json": json.dumps(SETTINGS, indent=1) + "\n",
    }


def install(prefix: Path = VENV, python: Path = PYTHON) -> bool:
    """Write `files` where they, or how git is set up, are not yet as they should be; whether anything was written."""
    wanted = files(prefix, python)
    content = "".join(f"{path}\n{text}" for path, text in [*wanted.items(), ("git", Path(git.__file__).read_text(encoding="utf-8"))])
    stamp, digest = prefix / "lab.sha256", hashlib.sha256(content.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return False
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    stamp.write_text(digest)
    return True


def variables(prefix: Path = VENV) -> dict[str, str]:
    """The environment variables of a JupyterLab that neither reads nor writes the user's own Jupyter and IPython.

    One that is set already stays: JUPYTER_CONFIG_DIR=~/.jupyter brings a user's own settings in.
    """
    own = prefix / "jupyter"
    mine = {
        "JUPYTER_CONFIG_DIR": own / "config", "JUPYTER_DATA_DIR": own / "data", "JUPYTER_RUNTIME_DIR": own / "runtime", "IPYTHONDIR": own / "ipython",
        "JUPYTER_CONFIG_PATH": prefix / "etc" / "jupyter", "JUPYTER_PATH": prefix / "share" / "jupyter",
    }
    return {"JUPYTER_PREFER_ENV_PATH": "1"} | {name: str(path) for name, path in mine.items()} | with_tools()


def start(arguments: list[str]) -> int:
    """Open JupyterLab on the project, the README first; its exit code."""
    install(python=PYTHON if PYTHON.exists() else Path(sys.executable))
    settings = VENV / "share" / "jupyter" / "lab" / "settings"
    command = [
        sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/README.md",
        f"--LabApp.app_settings_dir={settings}", *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables()).returncode
