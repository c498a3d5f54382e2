"""Sets a repository up for the workflows, by GitHub's own program gh: each step is shown before it is done."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import typer

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root

CHECKS = ("pipeline", "test (ubuntu-latest)")  # the jobs that a merge must wait for
# What the workflows read; a secret that only `publish` may have is one of the environment `publish`.
SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "tracking server: user (DagsHub: yours)",
    "MLFLOW_TRACKING_PASSWORD": "tracking server: password or token",
    "DVC_READ_USER": "DVC remote: user or key that reads",
    "DVC_READ_PASSWORD": "its password or secret",
    "DVC_WRITE_USER": "DVC remote: user or key that writes; environment publish",
    "DVC_WRITE_PASSWORD": "its password or secret; environment publish",
    "PUBLISH_APP_KEY": "key of the GitHub App that commits; environment publish",
}
VARIABLES = {
    "MLFLOW_TRACKING_URI": "tracking server: overrides remote.yaml",
    "DVC_REMOTE_URL": "DVC remote",
    "DVC_REMOTE_ENDPOINT": "its endpoint where it is S3-compatible",
    "RUNNER": "the runner that trains, a label or a JSON list of labels",
    "NBPROOF_CPU": "1: train with PyTorch's build for processors alone",
    "DRIFT_RUNNER": "the runner that the server's log lies on, for `drift`",
    "SERVED": "the folder of that log there",
    "PAGES_URL": "where main's pages are published on GitHub Pages (else nowhere)",
    "CML_SHA256": "checksum of CML's program, else GitHub's own API posts",
    "PUBLISH_APP_ID": "client ID of the GitHub App that commits results",
}
RULES = "nbproof: required checks"
REMOTE = re.compile(r"(?:[/@])github\.[a-z.]+[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$")


class Gh:
    """GitHub's REST API for the repository `name` (owner/name), as the person who is logged in to gh."""

    def __init__(self, name: str):
        self.name = name
        self.default = self("GET", "")["default_branch"]

    def __call__(self, method: str, path: str, body: dict | None = None):
        """The answer's JSON; None where there is no such thing (404)."""
        words = ["api", "--method", method, f"repos/{self.name}{path}", *(["--input", "-"] if body is not None else [])]
        code, out, err = run_gh(words, json.dumps(body) if body is not None else "")
        if code and "HTTP 404" in err and path and method == "GET":
            return None
        if code:
            raise UserError(f"GitHub did not take {method} {path or '/'} of {self.name}: {' '.join(err.split())[:300]}")
        return json.loads(out) if out.strip() else {}


def run_gh(words: list[str], given: str = "") -> tuple[int, str, str]:
    """Exit code and words of gh; UserError where it is not installed."""
    try:
        done = subprocess.run(["gh", *words], cwd=root(), input=given, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("GitHub is set up by its program gh: install it (https://cli.github.com), then gh auth login.") \
            from None
    return done.returncode, done.stdout, done.stderr


@dataclass(frozen=True)
class Step:
    """One thing to set: what it is for, what is missing now (empty: nothing), and how it is done."""

    title: str
    missing: str
    do: Callable[[], object]


def setup(check: bool, yes: bool) -> int:
    """Show what is set and what is missing, and set it, step by step; with `check`, 1 where something is missing."""
    gh = Gh(repository())
    print(f"{gh.name}, default branch {gh.default}:")
    open_steps = [step for step in steps(gh) if not _said(step)]
    if check:
        return 1 if open_steps else 0
    for step in open_steps:
        if yes or typer.confirm(f"{step.title}: {step.missing}. Set it now?", default=True):
            step.do()
            print(f"done     {step.title}")
    _ask_values(gh, yes)
    return 0


def _said(step: Step) -> bool:
    print(f"{'missing ' if step.missing else 'set     '} {step.title}{f': {step.missing}' if step.missing else ''}")
    return not step.missing


def repository() -> str:
    """owner/name of the remote `origin`."""
    asked = subprocess.run(["git", "remote", "get-url", "origin"], cwd=root(), capture_output=True, text=True)
    if found := REMOTE.search(asked.stdout.strip()):
        return found[1]
    raise UserError("The git remote origin is no repository on GitHub: push the project there first "
                  "(gh repo create, or git remote add origin ...).")


def steps(gh: Gh) -> list[Step]:
    """Everything that needs no value of a person's."""
    asleep = [each for each in (gh("GET", "/actions/workflows?per_page=100") or {}).get("workflows", [])
              if each["state"].startswith("disabled")]
    rights = gh("GET", "/actions/permissions/workflow") or {}
    place = gh("GET", "/environments/publish")
    branches = (gh("GET", "/environments/publish/deployment-branch-policies") or {}) if place else {}
    admits = [each["name"] for each in branches.get("branch_policies", [])]
    pages = gh("GET", "/pages") or {}
    rules = [each["name"] for each in gh("GET", "/rulesets") or []]
    on = (gh("GET", "/actions/permissions") or {}).get("enabled")
    if not (root() / ".github" / "workflows" / "report.yml").exists():
        raise UserError("There is no .github/workflows/report.yml here: nothing would run. Copy .github from the project "
                      "nbproof first, and commit it.")
    return [
        Step("Actions run", "" if on else "they are switched off",
             lambda: gh("PUT", "/actions/permissions", {"enabled": True, "allowed_actions": "all"})),
        Step("workflows and their schedules are on", ", ".join(each["name"] for each in asleep),
             lambda: [gh("PUT", f"/actions/workflows/{each['id']}/enable") for each in asleep]),
        Step("a workflow's token only reads, unless a job asks for more",
             "" if rights.get("default_workflow_permissions") == "read" else "it may write everywhere",
             lambda: gh("PUT", "/actions/permissions/workflow", {"default_workflow_permissions": "read"})),
        Step(f"the environment publish admits {gh.default} alone",
             "" if admits == [gh.default] else f"it admits {', '.join(admits) or 'every branch, or is not there'}",
             lambda: _admit(gh, branches.get("branch_policies", []))),
        Step(f"a merge into {gh.default} waits for {' and '.join(CHECKS)}", "" if RULES in rules else "no rule says so",
             lambda: gh("POST", "/rulesets", _rules())),
        Step("Pages are built by a workflow", "" if pages.get("build_type") == "workflow" else
             "they are built from a branch" if pages else "they are off", lambda: _pages(gh, bool(pages))),
    ]


def _admit(gh: Gh, others: list[dict]) -> None:
    policy = {"protected_branches": False, "custom_branch_policies": True}
    gh("PUT", "/environments/publish", {"deployment_branch_policy": policy})
    for each in (each for each in others if each["name"] != gh.default):
        gh("DELETE", f"/environments/publish/deployment-branch-policies/{each['id']}")
    if gh.default not in [each["name"] for each in others]:
        gh("POST", "/environments/publish/deployment-branch-policies", {"name": gh.default})


def _rules() -> dict:
    checks = {"strict_required_status_checks_policy": False,
              "required_status_checks": [{"context": each} for each in CHECKS]}
    return {"name": RULES, "target": "branch", "enforcement": "active",
            "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": []}},
            "rules": [{"type": "required_status_checks", "parameters": checks}]}


def _pages(gh: Gh, are_on: bool) -> None:
    """Let a workflow build Pages, which are switched on where they are off, and say their address to the workflows."""
    place = gh("PUT" if are_on else "POST", "/pages", {"build_type": "workflow"}) or gh("GET", "/pages") or {}
    _set_variable(gh, "PAGES_URL", place.get("html_url") or f"https://{gh.name.replace('/', '.github.io/')}")


def _set_variable(gh: Gh, name: str, value: str) -> None:
    there = gh("GET", f"/actions/variables/{name}")
    gh("PATCH" if there else "POST", f"/actions/variables{f'/{name}' if there else ''}", {"name": name, "value": value})


def _ask_values(gh: Gh, yes: bool) -> None:
    """Variables and secrets, each with what it is for; an empty answer leaves one as it is. Secrets are not shown."""
    if yes or not sys.stdin.isatty():
        print("Variables and secrets are asked for on a terminal; gh variable set and gh secret set take them, too.")
        return
    servers = root() / "remote.yaml"
    named = from_yaml(servers.read_text(encoding="utf-8")) if servers.exists() else {}
    known = {"DVC_REMOTE_URL": _dvc_url(), "MLFLOW_TRACKING_URI": (named or {}).get("tracking", "")}
    for name, meaning in VARIABLES.items():
        if value := typer.prompt(f"{name} ({meaning})", default=known.get(name, ""), show_default=True):
            _set_variable(gh, name, value)
    for name, meaning in SECRETS.items():
        if value := typer.prompt(f"{name} ({meaning})", default="", hide_input=True, show_default=False):
            place = ["--env", "publish"] if "environment publish" in meaning else []
            code, _, err = run_gh(["secret", "set", name, "--repo", gh.name, *place], value)
            if code:
                raise UserError(f"GitHub did not take the secret {name}: {' '.join(err.split())[:300]}")


def _dvc_url() -> str:
    """The address of the project's DVC remote, if .dvc/config names one over the network."""
    path = root() / ".dvc" / "config"
    found = re.search(r"(?m)^\s*url\s*=\s*((?:https?|s3|ssh)://\S+)$", path.read_text() if path.exists() else "")
    return found[1] if found else ""
