"""After the comparison: its champion becomes the registered model. The science of it is `python -m digits.registry`."""

import hashlib
import os
import subprocess
import sys

from pipeline import ROOT, Refused
from pipeline.stage import parameters
from pipeline.stage.files import write_whole
from pipeline.tracking import SETTINGS, address

STAMP = ROOT / ".dvc" / "tmp" / "promoted"


def promote(model: str = "") -> int:
    """Register the comparison's champion, or `model`; 0 if the store did it or need not."""
    if model and model not in (known := parameters.models(parameters.read(ROOT / "params.yaml"))):
        raise Refused(f"MODEL={model!r}: params.yaml has {', '.join(known)}.")
    if not (ROOT / "metrics" / "compare.json").exists() or not (ROOT / "dvc.lock").exists():
        raise Refused("There is no comparison yet, so no champion: make run first.")
    tags = [f"git_commit={_commit()}", f"dvc_lock={_lock()}"]
    environment = SETTINGS | os.environ | {"PYTHONPATH": str(ROOT / "notebooks"), "OUTPUT_ROOT": str(ROOT)}
    code = subprocess.run([sys.executable, "-m", "digits.registry", *([model] if model else []), *tags], cwd=ROOT, env=environment).returncode
    if code == 0:
        write_whole(STAMP, _state())
    return code


def promote_once() -> None:
    """As the last step of a run: nothing where this very state was promoted before. A store that does not answer fails no run."""
    if not (ROOT / "metrics" / "compare.json").exists():  # a project without a comparison has no champion
        return
    if not STAMP.exists() or STAMP.read_text(encoding="utf-8") != _state():
        promote()


def _state() -> str:
    return hashlib.sha256(f"{_lock()} {address()}".encode()).hexdigest()


def _lock() -> str:
    return hashlib.sha256((ROOT / "dvc.lock").read_bytes()).hexdigest()


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else "unknown"
