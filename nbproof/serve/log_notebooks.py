"""`nbproof drift` and `nbproof harvest`: notebooks that read the server's log and are no stages.

Their outputs and pages are below scratch/, which nothing commits or publishes: they show what
people sent.
"""

import json
import shutil
import sys

import typer

from nbproof.notebook import served
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, digest, root, write_whole
from nbproof.pipeline import config, dag
from nbproof.pipeline.stage import cell_timeout, print_event
from nbproof.runner import html, reaper, schema, secrets
from nbproof.runner.execute import execute_notebook

ALARM = 3  # the exit code of drift
COLLECTED = "data/collected"
VERSION = f"{COLLECTED}.json"  # what the stage that reads the data depends on
PAGE = "scratch/{0}/{0}.html"


def drift() -> int:
    """Run the notebook that compares the log with the data; 0 without an alarm, 3 with one."""
    if (facts := _run("drift")) is None:
        return 1
    alarms = "; ".join(map(str, facts["alarms"]))
    print(f"drift: {f'alarm: {alarms}' if alarms else 'no alarm'} -> {PAGE.format('drift')}")
    return ALARM if alarms else 0


def harvest(yes: bool) -> int:
    """Run the notebook that collects labelled inputs; after a yes, make them data/collected.

    Wherever it is killed, data/collected is whole or missing, and the next harvest goes on.
    """
    folder, made = root() / COLLECTED, root() / "scratch/harvest" / COLLECTED
    if not folder.exists() and folder.with_suffix(".dvc").exists():
        with dag.opened(root()) as repo:
            repo.checkout([f"{COLLECTED}.dvc"])
    if (facts := _run("harvest")) is None:
        return 1
    page = PAGE.format("harvest")
    print(f"harvest: {facts['new']:,} new, {facts['cases']:,} in all -> {page}")
    if facts["new"]:
        question = f"Add them to {COLLECTED}? Look through {page} first (--yes does not ask)."
        if not (yes or typer.confirm(question)):
            return 1
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            folder.rename(made.with_name("before"))
        made.rename(folder)
    elif not folder.exists():
        return 0
    version = {"cases": facts["cases"], "digest": digest(folder)}
    write_whole(root() / VERSION, json.dumps(version, indent=2) + "\n")
    with dag.opened(root()) as repo:
        repo.scm_context.quiet = True  # DVC's advice on git; ours follows
        repo.add([str(folder)])
    print(f"{COLLECTED} is kept by DVC: commit {COLLECTED}.dvc and {VERSION}; nbproof push sends "
          "the data.")
    return 0


def _run(name: str) -> dict | None:
    """Execute the notebook `name`, write its page, and return its reports/NAME.json.

    Return None, and print why, where a cell failed.
    """
    path = getattr(config.load(), name)
    if not path:
        raise UserError(f"This project has no notebook for nbproof {name}: {CONTRACT} names one as "
                        f"serve: {{{name}: notebooks/...}}; docs/contract.md describes it.")
    served.path()  # UserError where there is no log
    notebook, folder = root() / path, root() / "scratch" / name
    shutil.rmtree(folder, ignore_errors=True)
    with reaper.session() as session:
        executed, failure = execute_notebook(
            notebook, schema.values_of(notebook), cell_timeout(), folder,
            lambda event: print_event(name, event), {reaper.MARK: session.mark()}, session.folder)
    reason = secrets.take_out(executed) or str(failure or "")
    write_whole(root() / PAGE.format(name), html.render(executed, notebook.parent, name))
    if reason:
        print(f"{name}: {path} failed at {reason} -> {PAGE.format(name)}", file=sys.stderr)
        return None
    return json.loads((folder / f"reports/{name}.json").read_text(encoding="utf-8"))
