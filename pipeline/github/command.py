"""`python -m pipeline github COMMAND`: each is one `run:` line of a workflow."""

import argparse
import json
import os
from pathlib import Path

from pipeline import Refused, environment

RUN = "requirements.txt"


def _pull(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.github import report, storage

    print(storage.pull(report.known(given.base)))
    return 0


def _run(given: argparse.Namespace) -> int:
    """Never fails by itself: the report comes first, then `verdict` fails the job."""
    from pipeline.github import report, step

    step.output("ended", "passed" if report.run(given.force) == 0 else "failed")
    return 0


def _pages(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.github import pages, report

    left = pages.lay_out(report.known(given.base))
    if left:
        print(f"There are {pages.SLOTS} slots for pages; not uploaded on their own: {', '.join(left)}.")
    return 0


def _report(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.github import pages, report
    from pipeline.github.api import from_environment

    ended = report.tests(from_environment(), given.sha, given.wait) if given.sha else ""
    print(report.write(report.known(given.base), ended, pages.links(os.environ.get("STEPS", ""))))
    return 0


def _results(_: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.github import results, step

    try:
        results.lay_out()
    except Refused as refusal:
        print(refusal)
        step.output("complete", "no")
    else:
        step.output("complete", "yes")
    return 0


def _verdict(given: argparse.Namespace) -> int:
    if given.ended != "passed":
        raise Refused("The pipeline failed: its report says where and why.")
    return 0


def _post(given: argparse.Namespace) -> int:
    from pipeline.github import post, pull_request, step
    from pipeline.github.api import Answer, from_environment
    from pipeline.github.sanitise import sanitised

    api, server = from_environment(), os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    if not given.report.is_file() or given.report.is_symlink() or given.report.stat().st_size > 4_000_000:
        raise Refused(f"{given.report} is no regular file of at most 4 MB: the run gave no report to post.")
    repository = f"{server}/{api.repository}"
    allowed = (f"{repository}/actions/runs/{given.run}", f"{repository}/commit")
    text = sanitised(given.report.read_text(encoding="utf-8", errors="replace"), allowed)
    try:
        found = pull_request.find(api, given.sha, given.number)
        if found is None:
            print(f"No open pull request has the head {given.sha[:8]} (it went on, or was closed): nothing is posted.")
            return 0
        print(post.post(api, found["number"], text, server))
    except Answer as answer:
        step.summarise(text)
        raise Refused(f"GitHub's API did not answer as needed ({answer}); the report is in the job's summary.") from None
    except Refused:
        step.summarise(text)
        raise
    return 0


def _publish(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.github import publish, pull_request
    from pipeline.github.api import Answer, from_environment

    api = from_environment()
    try:
        found = pull_request.find(api, given.sha) if given.event != "push" else None
        target = publish.branch_of(api, given.sha, given.event, given.default, found)
        if target is None:
            print(f"{given.sha[:8]} is no longer the head of a branch of this repository that is published: nothing to do.")
            return 0
        branch, commits = target
        url = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{api.repository}"
        if publish.publish(given.results, url, given.sha, branch, given.run, commits, api.token):
            publish.start_checks(api, branch)
    except Answer as answer:
        raise Refused(f"GitHub's API refused or did not answer ({answer}).") from None
    return 0


def _retrain(given: argparse.Namespace) -> int:
    environment.ensure(RUN)
    from pipeline.github import retrain

    return retrain.report(given.tolerance)


def add(commands) -> None:
    """Add `github` and its commands to the command line."""
    parser = commands.add_parser("github", help="the steps of the workflows in .github/workflows", description="The steps of the workflows.")
    steps = parser.add_subparsers(required=True, metavar="STEP")

    def step(name: str, does, explained: str) -> argparse.ArgumentParser:
        added = steps.add_parser(name, help=explained, description=explained)
        added.set_defaults(does=does)
        return added

    # What a workflow knows from outside comes by environment variables: no text of others stands in a shell's line.
    known = os.environ.get

    def based(added: argparse.ArgumentParser) -> None:
        added.add_argument("--base", default=known("BASE", ""), help="revision to compare with (default: $BASE)")

    def of_run(added: argparse.ArgumentParser) -> None:
        added.add_argument("--sha", default=known("HEAD_SHA", ""), help="the run's commit (default: $HEAD_SHA)")
        added.add_argument("--run", type=_number, default=known("RUN_ID", "0"), help="the run's id (default: $RUN_ID)")

    based(step("pull", _pull, "bring what the DVC remote has, where one is configured"))
    step("run", _run, "run the pipeline and note how it ended").add_argument("--force", action="store_true", help="from nothing")
    based(step("pages", _pages, "lay out the rendered notebooks, one a slot, for the upload"))
    report = step("report", _report, "write the report and put it into the job summary")
    based(report)
    report.add_argument("--sha", default=known("HEAD_SHA", ""), help="commit whose tests are asked for (default: $HEAD_SHA)")
    report.add_argument("--wait", type=float, default=0, help="seconds to wait for the tests at most")
    step("results", _results, "lay out the outputs for the job that publishes them")
    step("verdict", _verdict, "fail where the pipeline failed").add_argument("--ended", default=known("ENDED", ""), help="passed or failed (default: $ENDED)")
    post = step("post", _post, "make or update the comment on the pull request with this head")
    of_run(post)
    post.add_argument("--report", type=Path, required=True, help="the Markdown, which is not trusted")
    post.add_argument("--number", type=_number, default=known("NUMBER") or None, help="which of several pull requests (default: $NUMBER)")
    publish = step("publish", _publish, "check the results of a run, push them to the DVC remote, commit dvc.lock with metrics/")
    of_run(publish)
    publish.add_argument("--results", type=Path, required=True, help="the folder that holds them, which is not trusted")
    publish.add_argument("--event", default=known("EVENT", ""), help="what started the run (default: $EVENT)")
    publish.add_argument("--default", default=known("DEFAULT_BRANCH", "main"), help="the default branch (default: $DEFAULT_BRANCH)")
    retrain = step("retrain", _retrain, "compare the numbers of a run from nothing with the committed ones")
    retrain.add_argument("--tolerance", type=float, default=0.002, help="a change up to this is no failure")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a number, found {json.dumps(text)}")
    return int(text)
