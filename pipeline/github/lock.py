"""What dvc.lock records, read as data: a dvc.lock can come from anywhere, and nothing of it is believed before it is checked."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline import ROOT, Refused

MOST = 2_000_000  # characters
PLACE = re.compile(r"(?:data|models|metrics|reports)/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Output:
    """One recorded output: its place in the project, its MD5 sum, its size in bytes."""

    path: str
    md5: str
    size: int

    @property
    def in_git(self) -> bool:
        """Whether git keeps it; the others are DVC's."""
        return self.path.startswith("metrics/")


def outputs(text: str, where: str) -> dict[str, Output]:
    """Every output in the dvc.lock `text`, by its place; Refused where an entry is not of the form that this pipeline writes."""
    from ruamel.yaml import YAML, YAMLError

    try:
        if len(text) > MOST:
            raise ValueError(f"it has more than {MOST} characters")
        stages = YAML(typ="safe", pure=True).load(text)["stages"]
        listed = [out for stage in stages.values() for out in stage.get("outs", [])]
        found = {out["path"]: Output(out["path"], out["md5"], out["size"]) for out in listed}
        for out in found.values():
            if not PLACE.fullmatch(out.path) or not MD5.fullmatch(out.md5) or type(out.size) is not int or out.size < 0:
                raise ValueError(f"{out.path!r} is no place, or has no MD5 sum and size, of an output")
        if len(found) != len(listed):
            raise ValueError("an output is recorded twice")
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{where} cannot be used as dvc.lock: {' '.join(str(error).split())[:200]}.") from None
    return found


def at(revision: str, root: Path = ROOT) -> dict[str, Output]:
    """The outputs that the commit `revision` records; none where it has no dvc.lock or is not there."""
    shown = subprocess.run(["git", "show", f"{revision}:dvc.lock"], cwd=root, capture_output=True, text=True, encoding="utf-8")
    return outputs(shown.stdout, f"dvc.lock of {revision[:12]}") if shown.returncode == 0 else {}


def here(root: Path = ROOT) -> dict[str, Output]:
    """The outputs that the workspace's dvc.lock records."""
    path = root / "dvc.lock"
    return outputs(path.read_text(encoding="utf-8"), "dvc.lock") if path.exists() else {}
