"""`nbproof drift` and `nbproof harvest`: notebooks that read the server's log and are no stages.

Their outputs and pages are below scratch/, which nothing commits or publishes: they show what
people sent.
"""

import json
import shutil
import sys

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
READY = "scratch/harvest-ready"  # the version that a person said yes to, until DVC keeps it


def drift() -> int:
    """Run the notebook that compares the log with the data; 0 without an alarm, 3 with one."""
    form = '{"alarms": [text, ...]}'
    if (facts := _run("drift", form)) is None:
        return 1
    alarms = facts.get("alarms")
    if not isinstance(alarms, list) or not all(isinstance(alarm, str) for alarm in alarms):
        raise _wrong("drift", form)
    verdict = f"alarm: {'; '.join(alarms)}" if alarms else "no alarm"
    print(f"drift: {verdict} -> {_page('drift')}")
    return ALARM if alarms else 0


def harvest(yes: bool) -> int:
    """Run the notebook that collects labelled inputs; after a yes, make them data/collected."""
    _take()
    form = f'{{"cases": number, "new": number}}, and {COLLECTED}'
    if (facts := _run("harvest", form)) is None:
        return 1
    made = root() / "scratch/harvest" / COLLECTED
    if not made.is_dir() or not all(type(facts.get(key)) is int for key in ("cases", "new")):
        raise _wrong("harvest", form)
    page = _page("harvest")
    print(f"harvest: {facts['new']:,} new, {facts['cases']:,} in all -> {page}")
    if not facts["new"]:
        print(f"Nothing new: {COLLECTED} stays as it is.")
        return 0
    if not yes and not sys.stdin.isatty():
        raise UserError(f"Nothing was changed: look through {page}, then run nbproof harvest on a "
                        "terminal, which asks, or with --yes.")
    question = f"Add them to {COLLECTED}? Look through {page} first. [y/N] "
    if not yes and input(question).strip().lower() not in ("y", "yes"):
        return 1
    version = {"cases": facts["cases"], "digest": digest(made)}
    write_whole(made.with_suffix(".json"), json.dumps(version, indent=2) + "\n")
    made.parent.rename(root() / READY)
    _take()
    return 0


def _page(name: str) -> str:
    return f"scratch/{name}/{name}.html"


def _run(name: str, form: str) -> dict | None:
    """Execute the notebook `name` and write its page; return its reports/NAME.json.

    Return None, and print why, where a cell failed; raise UserError where the file is missing.
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
    write_whole(root() / _page(name), html.render(executed, notebook.parent, name))
    if reason:
        print(f"{name}: {path} failed at {reason} -> {_page(name)}", file=sys.stderr)
        return None
    try:
        facts = json.loads((folder / f"reports/{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = None
    if not isinstance(facts, dict):
        raise _wrong(name, form)
    return facts


def _wrong(name: str, form: str) -> UserError:
    return UserError(f"{getattr(config.load(), name)} must write reports/{name}.json with {form}, "
                     "and did not.")


def _take() -> None:
    """Make the version READY, where there is one, data/collected, and let DVC keep it.

    READY is whole until all is done: after a kill or an error, the next harvest does it again.
    """
    ready = root() / READY
    if not ready.is_dir():
        return
    shutil.rmtree(root() / COLLECTED, ignore_errors=True)
    shutil.copytree(ready / "collected", root() / COLLECTED)
    write_whole(root() / VERSION, (ready / "collected.json").read_text("utf-8"))
    with dag.opened(root()) as repo:
        repo.scm_context.quiet = True  # DVC's advice on git; ours follows
        repo.add([str(root() / COLLECTED)])
    done = ready.with_name("harvest-done")
    shutil.rmtree(done, ignore_errors=True)
    ready.rename(done)  # a part of READY would be taken for all of it
    shutil.rmtree(done)
    print(f"{COLLECTED} is a new version: commit {COLLECTED}.dvc and {VERSION}, and send the data "
          "with nbproof push.")
