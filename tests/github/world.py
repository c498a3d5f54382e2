"""GitHub on this machine: act executes a new project's workflows, which call this repository's.

Stand-ins take the place of the actions, and of GitHub's API."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from github_api import GitHub
from github_callers import callers
from projects import MLMODEL, ROOT, WARM, command, commit, notebook, project
from ruamel.yaml import YAML

HERE, HOME = Path(__file__).parent, "nbproof/nbproof"
PERSON, DEPENDABOT = "person", "dependabot[bot]"

# A notebook, and ordinary commands around it: what has not changed takes no kernel.
DVC_YAML = """\
stages:
  near:
    cmd: $WARM_PYTHON -m nbproof stage
    deps: [notebooks/near.ipynb]
    params: [models.near, data]
    outs: [models/near, models/near.csv, reports/near.ipynb]
    metrics: [metrics/near.json: {cache: false}]
    plots: [metrics/near.csv: {cache: false, x: round, y: error}]
  far:
    cmd: mkdir -p metrics && cp far.json metrics/far.json
    deps: [far.json]
    metrics: [metrics/far.json: {cache: false}]
  compare:
    cmd: sh compare.sh
    deps: [compare.sh, models/near.csv, metrics/near.json, metrics/far.json]
    metrics: [metrics/compare.json: {cache: false}]
    plots: [metrics/answers.csv: {cache: false, template: confusion, x: predicted, y: actual}]
"""
COMPARE = """\
cp models/near.csv metrics/answers.csv
sed 's/{/{"champion": "near", /' metrics/near.json > metrics/compare.json
"""
NEAR = (
    "#!# near\n\n> a model",
    "import json\n\nfrom nbproof.notebook import Fallback, output_folder, section, write\n\n"
    "P = section('models.near')\nD = section('data')",
    "@wrong: int = P.wrong  # [0, 99] cases that it gets wrong\n"
    "source: str = D.source  # {mirror, small, none} the data",
    "if source == 'none':\n    raise Fallback('No mirror gave the data (tried https://a.example, "
    "https://b.example): set MIRRORS to one that does.', 'data.source', 'small')\n"
    "assert wrong < 90, f'{wrong} of 100 are too many'\nprint(f'{wrong} of 100 wrong')",
    "write('metrics/near.json', json.dumps({'error': wrong / 100}) + '\\n')\n"
    "curve = [f'{at},{wrong / 100 + (3 - at) / 10}' for at in (1, 2, 3)]\n"
    "write('metrics/near.csv', '\\n'.join(['round,error', *curve]) + '\\n')\n"
    "answers = [f'{at % 3},{(at + (at < wrong)) % 3}' for at in range(100)]\n"
    "write('models/near.csv', '\\n'.join(['actual,predicted', *answers]) + '\\n')\n"
    f"_ = (output_folder('models/near') / 'MLmodel').write_text({MLMODEL!r} + f'x: {{wrong}}\\n')",
)
# In place of the set-up, which fails where a run asks for it: the commands are forks.
MAKEFILE = """\
setup:
\t@test -z "$$SETUP_FAILS" || { echo "$$SETUP_FAILS" >&2; exit 1; }
\t@mkdir -p .venv/bin
\t@printf '#!/bin/sh\\nexec "$$WARM_PYTHON" -m nbproof "$$@"\\n' > .venv/bin/nbproof
\t@chmod +x .venv/bin/nbproof
"""
ACTION = """\
name: stand-in
description: stand-in
inputs: {inputs}
outputs: {{artifact-url: {{description: "-", value: "${{{{ steps.do.outputs.artifact-url }}}}"}}}}
runs:
  using: composite
  steps:
    - id: do
      shell: bash
      run: '"{python}" -I -S "{script}" {name}'
      env: {{INPUTS: "${{{{ toJSON(inputs) }}}}"}}
"""


class Server(GitHub):
    """With a DVC remote at /dvc that wants an account."""

    remote: Path

    def special(self, method, path, headers, content):
        if not path.startswith("dvc"):
            return None
        accounts = (base64.b64encode(each).decode()
                    for each in (b"reader:r-secret", b"writer:w-secret"))
        if headers.get("Authorization") not in [f"Basic {account}" for account in accounts]:
            return 401, b""
        file = self.remote / path.removeprefix("dvc/")
        if method == "PUT":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return (200, file.read_bytes()) if file.is_file() else (404, b"")


@dataclass
class Run:
    """What a run of a workflow left: how its job and each step ended, and what was printed."""

    id: str
    job: str = ""  # how it ended; empty if it did not run
    steps: list[dict] = field(default_factory=list)
    text: str = ""


class World:
    """A repository owner/name with the branch main, and a way to run its workflows."""

    def __init__(self, folder: Path, act: str) -> None:
        self.folder, self.act, self.count = folder, act, 100
        self.fault, self.planted = None, 0
        self.work, self.home, self.api = folder / "work", folder / "nbproof", Server()
        self.api.remote = folder / "remote"
        self._write_project()
        WARM.start()
        self.python = str(WARM.python)
        self.run_pipeline()
        commit(self.work, "branch", "-M", "main")
        origin = folder / "origin.git"
        subprocess.run(["git", "clone", "-q", "--bare", self.work, origin], check=True)
        self.git("remote", "add", "origin", str(origin))
        self.environment = self.api.variables(folder) | {
            "STANDIN": str(folder), "WARM_PYTHON": self.python, "PYTHONSAFEPATH": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "HTTPS_PROXY": "http://127.0.0.1:9"}  # nothing is downloaded, CML neither
        del self.environment["GH_TOKEN"]  # a step has it where the workflow says so
        if shutil.which("cml"):
            server, certificate = self.api.with_tls(folder)
            self.environment |= {"NODE_EXTRA_CA_CERTS": str(certificate), "HTTPS_PROXY": "",
                                 "SSL_CERT_FILE": str(certificate),
                                 "GITHUB_SERVER_URL": f"https://127.0.0.1:{server.server_port}"}
        self._write_actions()

    def _write_project(self) -> None:
        """The project with the workflows of a new one, which call those in `home`."""
        self.work.mkdir()
        shutil.copytree(ROOT / ".github", self.home / ".github")
        self.pin = callers(self.work, f"https://github.com/{HOME}")
        (self.work / ".github/workflows/tests.yml").write_text("name: tests\n")
        (self.work / "Makefile").write_text(MAKEFILE)
        (self.work / "far.json").write_text('{"error": 0.5}\n')
        (self.work / "compare.sh").write_text(COMPARE)
        notebook(self.work / "notebooks" / "near.ipynb", *NEAR)
        contract = ("name: tiny\nmetric: {key: error, goal: min}\ncompare: compare\n"
                    "data: data.source\ntolerance: {absolute: 0.005}\n")
        project(self.work, project_yaml=contract, dvc_yaml=DVC_YAML,
                params_yaml="data: {source: mirror}\nmodels:\n  near: {wrong: 4}\n")

    def _write_actions(self) -> None:
        """Write a stand-in for each action of the workflows, owner/name[/folder]@commit."""
        self.repositories, inputs = {f"{HOME}@{self.pin}": str(self.home)}, {}
        for path in (self.home / ".github" / "workflows").glob("*.yml"):
            jobs = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["jobs"]
            for step in (step for job in jobs.values() for step in job["steps"] if "uses" in step):
                inputs.setdefault(step["uses"], set()).update(step.get("with", {}))
        for uses, names in inputs.items():
            name, _, pin = uses.partition("@")
            owner, repository, *below = name.split("/")
            folder = self.folder / "actions" / f"{owner}-{repository}-{pin[:8]}"
            folder.joinpath(*below).mkdir(parents=True, exist_ok=True)
            folder.joinpath(*below, "action.yml").write_text(ACTION.format(
                inputs=json.dumps({name: {"description": "-"} for name in sorted(names)}),
                python=sys.executable, script=HERE / "standin.py",
                name="_".join([repository, *below]).replace("-", "_")))
            self.repositories[f"{owner}/{repository}@{pin}"] = str(folder)

    def run_pipeline(self) -> None:
        """Run the pipeline as a person does."""
        words = (self.python, "-m", "nbproof", "run", "--no-register")
        done = command(self.work, *words, WARM_PYTHON=self.python)
        assert done.returncode == 0, done.stdout

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=Person", "-c", "user.email=p@example.org")
        return subprocess.check_output(["git", *who, *words], cwd=self.work, text=True).strip()

    def push(self, branch: str, change: Callable[[Path], object] = lambda _: None) -> str:
        """Commit a change of main as `branch`, and push it; the commit."""
        self.git("checkout", "-qf", "-B", branch, "main")
        change(self.work)
        self.git("add", "-A")
        self.git("commit", "-qm", "change", "--allow-empty")
        self.git("push", "-qf", "origin", f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def pull_request(self, sha: str, repository: str = "owner/name", author: str = PERSON) -> dict:
        """Open a pull request, and close every other; its event."""
        base = {"sha": self.git("rev-parse", "main"), "ref": "main",
                "repo": {"full_name": "owner/name"}}
        head = {"sha": sha, "ref": self.git("rev-parse", "--abbrev-ref", "HEAD"),
                "repo": {"full_name": repository}}
        pull = {"number": 7, "user": {"login": author}, "base": base, "head": head}
        self.api.pulls = [pull]
        return {"number": 7, "pull_request": pull}

    def run(self, workflow: str, event: str, payload: dict, sha: str = "", *, actor: str = PERSON,
            attempt: int = 1, run_id: str = "", variables: dict | None = None,
            secrets: dict | None = None, environment: dict | None = None) -> Run:
        """Have act execute a workflow for an event at a commit (default: main's)."""
        self.count += 1
        run = Run(run_id or str(self.count))
        self.git("checkout", "-qf", "--detach", sha or "main")
        if event == "pull_request":  # runs on GitHub's merge of the branch and its base
            self.git("commit", "-qm", "merge", "--allow-empty")
            self.git("push", "-qf", "origin", "HEAD:refs/pull/7/merge")
        self._plant()
        repository = {"default_branch": "main", "full_name": "owner/name"}
        (self.folder / "event.json").write_text(json.dumps(payload | {"repository": repository}))
        known = self.environment | {"GITHUB_RUN_ID": run.id, "GITHUB_RUN_ATTEMPT": str(attempt)}
        options = [("--env", known | (environment or {})), ("--var", variables or {}),
                   ("-s", {"GITHUB_TOKEN": "token"} | (secrets or {})),
                   ("--local-repository", self.repositories)]
        words = [self.act, event, "-W", f".github/workflows/{workflow}.yml", "--json", "-a", actor,
                 "-e", str(self.folder / "event.json"), "-P", "ubuntu-latest=-self-hosted",
                 "--no-skip-checkout", "--no-cache-server", "--defaultbranch", "main"]
        words += [word for option, values in options for name, value in values.items()
                  for word in (option, f"{name}={value}")]
        home = {"HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "home")}
        (self.folder / "home").mkdir(exist_ok=True)
        done = subprocess.run(words, cwd=self.work, env={"PATH": os.environ["PATH"], **home},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=600)
        for line in done.stdout.splitlines():
            self._note(run, line)
        if run.job and workflow == "report":
            self.api.jobs = [{"steps": run.steps}]
            self.api.runs = [{"id": int(run.id), "path": f".github/workflows/{workflow}.yml",
                              "event": event, "head_sha": sha, "conclusion": run.job}]
            self.api.artifacts[run.id] = {
                path.name: path for path in (self.folder / "artifacts" / run.id).glob("*")}
        return run

    def _plant(self) -> None:
        """Write one fault into a workflow: that of this repository, or the project's copy."""
        shutil.copytree(ROOT / ".github", self.home / ".github", dirs_exist_ok=True)
        if self.fault:
            name, old, new = self.fault
            for folder in (self.home, self.work):
                file = folder / ".github" / "workflows" / f"{name}.yml"
                text = file.read_text(encoding="utf-8")
                self.planted += text.count(old)
                file.write_text(text.replace(old, new), encoding="utf-8")

    @staticmethod
    def _note(run: Run, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            run.text += f"{line}\n"
            return
        run.job = entry.get("jobResult", run.job)
        if "stepResult" in entry and entry.get("stage") == "Main" and len(entry["stepID"]) == 1:
            run.steps.append({"name": entry["step"], "conclusion": entry["stepResult"]})
        if entry.get("raw_output") or entry.get("level") == "error":
            run.text += f"{entry['msg'].rstrip()}\n"

    def follow(self, workflow: str, first: Run, payload: dict, sha: str,
               event: str = "pull_request", **more) -> Run:
        """The run of `workflow` that GitHub starts when the run `first` has ended."""
        head = payload.get("pull_request", {}).get(
            "head", {"ref": "main", "repo": {"full_name": "owner/name"}})
        ended = {"id": int(first.id), "conclusion": first.job, "event": event, "head_sha": sha,
                 "head_branch": head["ref"], "head_repository": head["repo"]}
        return self.run(workflow, "workflow_run", {"workflow_run": ended}, **more)

    def artifacts(self, run: Run) -> list[str]:
        """The names of what a run uploaded."""
        return sorted(name.replace(run.id, "RUN") for name in self.api.artifacts.get(run.id, {}))

    @property
    def comment(self) -> str:
        """The one comment that is there, with what varies replaced."""
        [comment] = self.api.comments
        text = comment["body"].partition("\n\n<!-- nbproof")[0].replace("\u200b", "¦")
        head, base = (self.api.pulls[0][side]["sha"] for side in ("head", "base"))
        for sha, name in ((head, "HEAD"), (base, "BASE")):
            text = text.replace(sha, name).replace(sha[:8], name)
        text = text.replace(self.environment["GITHUB_SERVER_URL"], "https://github.com")
        return re.sub(r"(runs/|artifacts/|github take )\d+", r"\1N", text) + "\n"
