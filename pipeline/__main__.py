"""`python -m pipeline COMMAND`: what the Makefile calls, the same on every system."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from pipeline import ROOT, Refused, environment
from pipeline.github import command as github

RUN, TEST = "requirements.txt", "requirements-dev.txt"


def _stage(given: argparse.Namespace) -> int:
    if not environment.holds(Path(sys.prefix), RUN) and environment.PYTHON.exists() and Path(sys.prefix) != environment.VENV:
        environment.restart_in_venv()
    try:
        from pipeline.stage import run_stage, tether
    except ModuleNotFoundError as error:
        raise Refused(f"{error.name} is not installed for {sys.executable}: `make setup` makes .venv, which is then used by itself.") from None
    tether.die_with_starter()
    addressing = given.name or os.environ.get("DVC_STAGE", "")
    return run_stage(addressing.rpartition("@")[2])


def _run(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.run import run

    return run(jobs=given.jobs, force=given.force)


def _verify(_: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.verify import verify

    return verify()


def _test(given: argparse.Namespace) -> int:
    environment.ensure(RUN, TEST)
    checks = [["ruff", "check", "."], ["pytest", *(given.arguments or ["tests"])]]
    return max(subprocess.run([sys.executable, "-m", *check], cwd=ROOT, env=environment.with_tools()).returncode for check in checks)


def _setup(given: argparse.Namespace) -> int:
    environment.ensure(RUN, *([TEST] if given.tests else []))
    return 0


def _tool(given: argparse.Namespace) -> int:
    """Run a program of the environment, such as `jupyter lab`, in the project's root."""
    environment.ensure(RUN)
    return subprocess.run(given.arguments, cwd=ROOT, env=environment.with_tools()).returncode


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
    command("verify", _verify, "hash every result again and name what is damaged")
    test = command("test", _test, "set up what is missing and run the tests")
    test.add_argument("arguments", nargs="*", help="for pytest")
    setup = command("setup", _setup, "make .venv and install, nothing else")
    setup.add_argument("--tests", action="store_true", help="what the tests need, too")
    tool = command("tool", _tool, "run a program of the environment: tool -- jupyter lab")
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


if __name__ == "__main__":
    sys.exit(main())
