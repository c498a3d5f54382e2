"""A notebook's run of a moment, tracked as notebooks do it, for tests of tracking. Its words change how it goes."""

from pathlib import Path

SCRIPT = """
import json, os, sys, time
from nbproof.notebook import output_folder, tracking
from nbproof.notebook.progress import say
if "patient" in sys.argv: tracking.PATIENCE = 120
if "hasty" in sys.argv: tracking.PATIENCE = 1
import IPython  # is there in each kernel; imported by MLflow's thread and by matplotlib at once, it breaks
import mlflow  # takes seconds on a busy machine, which are not the server's
started = time.monotonic()
run = tracking.start("x", {"lr": 0.1, "epochs": 2}, data=("table", "ab" * 32), tags={"device": "cpu"})
for epoch in (1, 2):
    run.log(epoch, {"accuracy": epoch / 10, "broken": float("nan")})
if "raise" in sys.argv: raise ValueError("in the middle")
if "hang" in sys.argv: print("ready", flush=True); time.sleep(100)
if "wait" in sys.argv: print("ready", flush=True); sys.stdin.readline()
if "short" not in sys.argv:
    from matplotlib.figure import Figure
    run.figure("line", Figure())
    (output_folder("models/x") / "MLmodel").write_text("a model")
    run.model("x")
run.finish({"accuracy": 0.2, "parameters": 7850, "data": "table"})
say(seconds=time.monotonic() - started)
if "hasty" in sys.argv: time.sleep(8)
"""


def tiny_project(folder: Path) -> Path:
    """A project without notebooks, in which code can be run that belongs to one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yaml").write_text("name: tiny\nmetric: {key: accuracy, goal: max}\n")
    (folder / "params.yaml").write_text("models:\n  x: {lr: 0.1, epochs: 2}\n")
    return folder
