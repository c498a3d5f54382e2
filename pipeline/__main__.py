"""`python -m pipeline COMMAND`: what the Makefile calls, the same on every system."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from pipeline import ROOT, Refused, environment
from pipeline.github import command as github

RUN, TEST, SWEEP = "requirements.txt", "requirements-dev.txt", "requirements-sweep.txt"


def _stage(given: argparse.Namespace) -> int:
    if not environment.holds(Path(sys.prefix), RUN) and environment.PYTHON.exists() and Path(sys.prefix) != environment.VENV:
        environment.restart_in_venv()
    try:
        from pipeline.stage import parameters, run_stage, tether
    except ModuleNotFoundError as error:
        raise Refused(f"{error.name} is not installed for {sys.executable}: `make setup` makes .venv, which is then used by itself.") from None
    tether.die_with_starter()
    addressing = given.name or os.environ.get("DVC_STAGE", "")
    name = addressing.rpartition("@")[2]
    engine = os.environ.get("ENGINE", "")
    if engine not in ("", "ray"):
        raise Refused(f"ENGINE must be ray, or not set, found {engine!r}.")
    if engine == "ray" and name in parameters.models(parameters.read(ROOT / "params.yaml")):
        environment.ensure(RUN, SWEEP)
        from pipeline import cluster

        return cluster.run_stage(name)
    return run_stage(name)


def _run(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.run import run

    return run(jobs=given.jobs, force=given.force)


def _verify(_: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.verify import verify

    return verify()


def _report(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.report import build, read_links
    from pipeline.stage.files import write_whole

    try:
        outcome = given.outcome.read_text(encoding="utf-8", errors="replace") if given.outcome else ""
    except OSError as error:
        raise Refused(f"{given.outcome} cannot be read: {error.strerror}.") from None
    report = build(base=given.base, links=read_links(given.links) if given.links else None, tests=given.tests, outcome=outcome)
    if given.out:
        write_whole(given.out, report)
    else:
        sys.stdout.buffer.write(report.encode())  # UTF-8 whatever the terminal's encoding is
    return 0


def _test(given: argparse.Namespace) -> int:
    environment.ensure(RUN, SWEEP, TEST)
    checks = [["ruff", "check", "."], ["pytest", *(given.arguments or ["tests", "--ignore=tests/lab", "--ignore=tests/remote", "--ignore=tests/sweep"])]]
    return max(subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=environment.with_tools()).returncode for check in checks)


def _setup(given: argparse.Namespace) -> int:
    environment.ensure(RUN, *([TEST] if given.tests else []))
    return 0


def _tool(given: argparse.Namespace) -> int:
    """Run a program of the environment, such as `jupyter lab`, in the project's root."""
    environment.ensure(RUN, *([SWEEP] if given.sweep else []))
    return subprocess.run(given.arguments, cwd=ROOT, env=environment.with_tools()).returncode


def _lab(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline import lab

    return lab.start(given.arguments)


def _adopt(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.edit import adopt

    return adopt(given.run, given.yes, given.model)


def _model(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.edit import new_model

    return new_model(given.name, given.like)


def _sweep(given: argparse.Namespace) -> int:
    environment.ensure(RUN, SWEEP)
    from pipeline.sweep.drive import sweep

    return sweep(given.model, given.force)


def _sync(_: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.sync import sync

    return sync()


def _remote(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline import remote

    if given.unset or given.url == "":
        return remote.unset()
    if not (given.url or given.tracking or given.data):
        return remote.check()
    return remote.use(given.url or "", given.tracking or "", given.data or "", given.endpoint or "")


def _transfer(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.remote import transfer

    return transfer(given.direction)


def _secrets(_: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.remote import secrets

    return secrets()


def _promote(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.registry import promote

    return promote(given.model)


def _predict(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.predict import predict

    return predict(given.image)


def _ui(_: argparse.Namespace) -> int:
    """MLflow's own page on the local store; a server has one already."""
    environment.ensure(RUN)
    from pipeline.tracking import LOCAL, address, without_credentials

    if address() != LOCAL:
        print(f"The runs are at {without_credentials(address())}.")
        return 0
    return subprocess.run([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", LOCAL], cwd=ROOT, env=environment.with_tools()).returncode


def _git(given: argparse.Namespace) -> int:
    from pipeline import git

    if given.staged:  # by the commit hook, which has the right Python
        return git.strip_staged()
    if given.remove:
        return git.unset()
    environment.ensure(RUN)
    git.set_up(Path(sys.executable))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Notebooks as a pipeline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does, explained: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=explained, description=explained)
        added.set_defaults(does=does)
        return added

    run = command("run", _run, "set up what is missing and bring every result up to date, models in parallel")
    run.add_argument("--jobs", type=int, default=os.cpu_count(), help="stages at the same time (default: the cores)")
    run.add_argument("--force", action="store_true", help="run every stage again, from nothing")
    stage = command("stage", _stage, "execute one notebook as a stage; DVC calls this")
    stage.add_argument("name", nargs="?", help="the notebook's name (default: from DVC_STAGE)")
    report = command("report", _report, "what this branch changed in the results, as Markdown")
    report.add_argument("--base", metavar="REVISION", help="compare with where the branch left this one (default: origin/main, or main)")
    report.add_argument("--links", type=Path, metavar="FILE", help="JSON: notebook to the https address of its page")
    report.add_argument("--tests", choices=["passed", "failed", "cancelled", "skipped"], help="how the tests ended, for the first line")
    report.add_argument("--outcome", type=Path, metavar="FILE", help="what the run printed, shown where no cell explains a failure")
    report.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default: the terminal)")
    command("verify", _verify, "hash every result again and name what is damaged")
    test = command("test", _test, "set up what is missing and run the tests")
    test.add_argument("arguments", nargs="*", help="for pytest")
    setup = command("setup", _setup, "make .venv and install, nothing else")
    setup.add_argument("--tests", action="store_true", help="what the tests need, too")
    lab = command("lab", _lab, "open JupyterLab on the project")
    lab.add_argument("arguments", nargs="*", help="for JupyterLab: lab -- --no-browser")
    adopt = command("adopt", _adopt, "take the parameters of an exploration into params.yaml")
    adopt.add_argument("run", help="an MLflow run's id, or last")
    adopt.add_argument("--model", default="", help="with `best`: the model whose newest sweep is meant")
    adopt.add_argument("--yes", action="store_true", help="write without asking")
    model = command("model", _model, "make the notebook and the parameters of a new model")
    model.add_argument("name")
    model.add_argument("--like", default="mlp", help="the model to start from (default: mlp)")
    sweep = command("sweep", _sweep, "try many values of a model's parameters, on this machine or at RAY_ADDRESS")
    sweep.add_argument("model")
    sweep.add_argument("--force", action="store_true", help="begin anew where a sweep is finished or broken off")
    command("sync", _sync, "send what the tracking store did not take while a training ran")
    remote = command("remote", _remote, "track, and keep data and models, on servers; without options, try the ones that are set")
    remote.add_argument("--url", metavar="https://HOST/OWNER/REPO", help="a repository of DagsHub's form; empty: back to local")
    remote.add_argument("--tracking", metavar="ADDRESS", help="an MLflow server")
    remote.add_argument("--data", metavar="ADDRESS", help="a DVC remote: s3://bucket/path, https://..., ssh://..., a folder")
    remote.add_argument("--endpoint", metavar="ADDRESS", help="where the S3-compatible store is")
    remote.add_argument("--unset", action="store_true", help="back to local")
    for direction, explained in (("push", "send data, models and reports to the DVC remote"), ("pull", "bring them from there")):
        command(direction, _transfer, explained).set_defaults(direction=direction)
    command("secrets", _secrets, "which secrets are set, never a value")
    promote = command("promote", _promote, "register the comparison's champion, or the model that is named")
    promote.add_argument("model", nargs="?", default="")
    predict = command("predict", _predict, "ask the registered champion about an image")
    predict.add_argument("image", type=Path)
    command("ui", _ui, "open MLflow's page on the local store")
    git = command("git", _git, "have git show and merge notebooks by cells and commit their source alone; setup does it too")
    git.add_argument("--remove", action="store_true", help="take it away again")
    git.add_argument("--staged", action="store_true", help="strip what is about to be committed; the commit hook calls this")
    tool = command("tool", _tool, "run a program of the environment: tool -- jupyter lab")
    tool.add_argument("--sweep", action="store_true", help="with what sweeps need")
    tool.add_argument("arguments", nargs="+")
    github.add(commands)
    given = parser.parse_args()
    try:
        return given.does(given)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except OSError as error:  # no room, no right to write, a file gone in between: causes that a person can see to
        where = f" ({error.filename})" if error.filename else ""
        print(f"The system refused: {error.strerror or error}{where}. Put that right, then run again.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
