"""What a sweep knows, kept whole: Tune writes its own state file by file and in place, so a full disk or a kill may leave a part of it."""

import json
import os
import time
import zipfile
from pathlib import Path

from ray.tune import Callback

STATE = "state.zip"
PARTS = ("experiment_state-*", "searcher-state-*", "search_gen_state-*")


class Snapshots(Callback):
    """Tune's state of the driver as one file in `folder`, replaced at once; at most a twentieth of the time goes into it."""

    def __init__(self, folder: Path):
        self.folder, self.after = folder, 0.0

    def on_step_end(self, iteration, trials, **info) -> None:
        """The only moment at which nothing else writes there. Raises OSError where it cannot be kept."""
        began = time.monotonic()
        if not trials or began < self.after:
            return
        staging = Path(trials[0].storage.experiment_driver_staging_path)
        if not (files := found(staging)):
            return
        part = self.folder / f"{STATE}.part"
        try:
            with zipfile.ZipFile(part, "w") as archive:
                for path in files:
                    archive.write(path, path.name)
            os.replace(part, self.folder / STATE)
        finally:
            part.unlink(missing_ok=True)
        now = time.monotonic()
        self.after = now + max(1.0, 19 * (now - began))


def found(place: Path) -> list[Path]:
    """The files of Tune's state in `place`."""
    return sorted(path for pattern in PARTS for path in place.glob(pattern))


def known(folder: Path) -> set[str]:
    """The ids of the trials in the state that was kept last; none where there is no such state."""
    if not (folder / STATE).exists():
        return set()
    with zipfile.ZipFile(folder / STATE) as archive:
        newest = max(name for name in archive.namelist() if name.startswith("experiment_state-"))
        return {json.loads(trial)["trial_id"] for trial, _ in json.loads(archive.read(newest))["trial_data"]}


def restored(folder: Path) -> bool:
    """Whether there is a state to go on with; Tune's folder has then that one and no other."""
    place = folder / "tune"
    if not (folder / STATE).exists():
        return False
    for path in found(place):
        path.unlink()
    with zipfile.ZipFile(folder / STATE) as archive:
        archive.extractall(place)
    return True
