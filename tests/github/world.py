"""GitHub on this machine: act executes the project's own workflows, with stand-ins for the actions and the REST API."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from projects import MLMODEL, WARM, command, commit, notebook, project
from ruamel.yaml import YAML
from test_publish import Github as Git

from nbproof.github.api import Answer

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
GITHUB = ROOT / ".github"
BOT, PERSON, DEPENDABOT = "github-actions[bot]", "person", "dependabot[bot]"

# A notebook, and ordinary commands around it: what has not changed takes no kernel, and a run takes seconds.
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
    "if source == 'none':\n    raise Fallback('No mirror gave the data (tried https://a.example, https://b.example): "
    "set MIRRORS to one that does.', 'data.source', 'small')\nassert wrong < 90, f'{wrong} of 100 are too many'\n"
    "print(f'{wrong} of 100 wrong')",
    "write('metrics/near.json', json.dumps({'error': wrong / 100}) + '\\n')\n"
    "curve = [f'{at},{wrong / 100 + (3 - at) / 10}' for at in (1, 2, 3)]\n"
    "write('metrics/near.csv', '\\n'.join(['round,error', *curve]) + '\\n')\n"
    "answers = [f'{at % 3},{(at + (at < wrong)) % 3}' for at in range(100)]\n"
    "write('models/near.csv', '\\n'.join(['actual,predicted', *answers]) + '\\n')\n"
    f"_ = (output_folder('models/near') / 'MLmodel').write_text({MLMODEL!r} + f'wrong: {{wrong}}\\n')",
)
JUDGE = '''\
"""The test of the tiny project."""


def better(new, old):
    right = [sum(row["actual"] == row["predicted"] for row in rows) for rows in (new, old)]
    p = 0.5 ** abs(right[0] - right[1])
    return {"better": right[0] > right[1] and p < 0.05, "why": f"{right[0]} right, {right[1]} before.", "p": p}
'''
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
outputs: {outputs}
runs:
  using: composite
  steps:
    - id: do
      shell: bash
      run: '"{python}" -I -S "{script}" {name}'
      env: {{INPUTS: "${{{{ toJSON(inputs) }}}}"}}
"""
OUTPUTS = ("artifact-id", "artifact-url", "cache-hit", "token")


def tiny(folder: Path) -> Path:
    """The project, with the workflows of this repository; nothing is run yet."""
    (folder / "notebooks" / "science").mkdir(parents=True)
    (folder / "notebooks" / "science" / "__init__.py").write_text(JUDGE)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "far.json").write_text('{"error": 0.5}\n')
    (folder / "compare.sh").write_text(COMPARE)
    shutil.copytree(GITHUB, folder / ".github")
    notebook(folder / "notebooks" / "near.ipynb", *NEAR)
    contract = ("name: tiny\nmetric: {key: error, goal: min}\ncompare: compare\ndata: data.source\n"
                "tolerance: {absolute: 0.005}\nhooks: {better: 'science:better'}\n")
    return project(folder, project_yaml=contract, dvc_yaml=DVC_YAML,
                   params_yaml="data: {source: mirror}\nmodels:\n  near: {wrong: 4}\n")


def mutate(folder: Path, path: str, old: str, new: str) -> None:
    """Plant one fault in a workflow; ValueError, which is no failed case, where `old` is not there once."""
    text = (folder / path).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path} has {text.count(old)} times: {old}")
    (folder / path).write_text(text.replace(old, new), encoding="utf-8")


def actions() -> dict[str, set[str]]:
    """Every action that the workflows use, owner/name[/path]@commit, with the inputs that they give."""
    found: dict[str, set[str]] = {}
    for path in GITHUB.rglob("*.yml"):
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        jobs = content.get("jobs", {}).values() or [content.get("runs", {})]
        for step in (step for job in jobs for step in job.get("steps", [])):
            if not (uses := step.get("uses", "./")).startswith("./"):
                found.setdefault(uses, set()).update(step.get("with", {}))
    return found


@dataclass
class Run:
    """What a run of a workflow left: how each job and step ended, what was printed, and its summaries."""

    id: str
    code: int
    jobs: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)  # by id or, without one, by its line
    text: str = ""

    @property
    def conclusion(self) -> str:
        return "failure" if "failure" in self.jobs.values() else "success" if self.jobs else "skipped"


class Server(ThreadingHTTPServer):
    """GitHub's REST API as far as the workflows use it, and a DVC remote at /dvc that wants an account."""

    def __init__(self, world: "World") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.world, self.git = world, Git(world.origin)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, query: dict, body: dict | None) -> tuple[int, object]:
        world, path = self.world, path.removeprefix("/repos/owner/name")
        if path == "/user":
            return 403, {"message": "Resource not accessible by integration"}
        if found := re.fullmatch(r"/issues/(\d+)/comments", path):
            if method == "POST":
                world.comments.append({"id": len(world.comments) + 1, "issue": int(found[1]), "user": {"login": BOT}})
                world.comments[-1] |= body
                return 201, world.comments[-1]
            return 200, [each for each in world.comments if each["issue"] == int(found[1])]
        if found := re.fullmatch(r"/issues/comments/(\d+)", path):
            world.comments[int(found[1]) - 1] |= body
            return 200, world.comments[int(found[1]) - 1]
        if path == "/pulls":
            return 200, world.pulls
        if path.endswith("/check-runs"):
            return 200, {"check_runs": world.checks}
        if found := re.fullmatch(r"/actions/runs/(\d+)/jobs", path):
            return 200, {"jobs": world.jobs_of(found[1])}
        try:
            return 200, self.git.call(method, path, body)
        except Answer as answer:
            return answer.status, {"message": str(answer)}
        except AttributeError:
            return 404, {"message": f"the stand-in has no {method} {path}"}

    def dvc(self, method: str, path: str, account: str | None, content: bytes) -> tuple[int, bytes]:
        accounts = ("reader:read-secret", "writer:write-secret")
        if account not in [f"Basic {base64.b64encode(each.encode()).decode()}" for each in accounts]:
            return 401, b""
        file = self.world.remote / path.removeprefix("/dvc/")
        if method == "PUT":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            return 201, b""
        return (200, file.read_bytes()) if file.is_file() else (404, b"")


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """What came with a request, whole or in chunks."""
    content = request.rfile.read(int(request.headers.get("Content-Length") or 0))
    if request.headers.get("Transfer-Encoding") == "chunked":
        while size := int(request.rfile.readline(), 16):
            content += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
    return content


class Handler(BaseHTTPRequestHandler):
    def handle_any(self) -> None:
        content = body_of(self)
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        kind = "application/json"
        if path.startswith("/dvc"):
            status, content = self.server.dvc(self.command, path, self.headers.get("Authorization"), content)
            kind = "application/octet-stream"
        elif path.startswith("/s3"):
            status, kind = 403, "application/xml"
            content = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        elif self.headers.get("Authorization") not in ("Bearer token", "Bearer app"):
            status, content = 401, b'{"message": "Bad credentials"}'
        else:
            status, said = self.server.answer(self.command, path, query, json.loads(content or "null"))
            content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_HEAD = handle_any

    def log_message(self, *_: object) -> None:
        pass


class World:
    """A repository owner/name with the branch main, what GitHub keeps of it, and a way to run its workflows."""

    def __init__(self, folder: Path, act: str) -> None:
        self.folder, self.act, self.runs = folder, act, 100
        self.origin, self.work, self.remote = folder / "origin.git", folder / "work", folder / "remote"
        self.comments, self.pulls, self.done, self.mutation = [], [], {}, None
        self.checks = [{"name": "test (ubuntu-latest)", "conclusion": "success"}]
        tiny(self.work)
        WARM.start()
        self.python = WARM.python
        self._lay_out()
        self.run_pipeline(self.work)
        commit(self.work, "branch", "-M", "main")
        subprocess.run(["git", "clone", "-q", "--bare", str(self.work), str(self.origin)], check=True)
        self.git("remote", "add", "origin", str(self.origin))
        self.server = Server(self)

    def close(self) -> None:
        self.server.shutdown()

    def _lay_out(self) -> None:
        """Write the stand-ins for the actions."""
        python, self.repositories = sys.executable, {}
        for uses, inputs in actions().items():
            name, _, pin = uses.partition("@")
            owner, repository, *below = name.split("/")
            place = self.folder / "actions" / f"{owner}-{repository}-{pin[:8]}"
            place.joinpath(*below).mkdir(parents=True, exist_ok=True)
            text = ACTION.format(
                inputs=json.dumps({each: {"description": "-"} for each in sorted(inputs)}), python=python,
                outputs=json.dumps({each: {"description": "-", "value": f"${{{{ steps.do.outputs.{each} }}}}"}
                                    for each in OUTPUTS}),
                script=HERE / "standin.py", name="_".join([repository, *below]).replace("-", "_"))
            place.joinpath(*below, "action.yml").write_text(text)
            self.repositories[f"{owner}/{repository}@{pin}"] = str(place)

    def run_pipeline(self, folder: Path) -> None:
        """Run the pipeline as a person does."""
        words = [str(self.python), "-m", "nbproof", "run", "--no-register"]
        done = command(folder, *words, WARM_PYTHON=str(self.python))
        assert done.returncode == 0, done.stdout

    def git(self, *words: str) -> str:
        return subprocess.check_output(["git", *words], cwd=self.work, text=True).strip()

    def commit(self, message: str) -> None:
        self.git("-c", "user.name=Person", "-c", "user.email=p@example.org", "commit", "-qm", message, "--allow-empty")

    def push(self, branch: str, change: Callable[[Path], object] = lambda _: None, of: str = "main") -> str:
        """Commit a change of `of` as `branch`, and push it; the commit."""
        self.git("checkout", "-qf", "-B", branch, of)
        change(self.work)
        self.git("add", "-A")
        self.commit("change")
        self.git("push", "-qf", "origin", f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def pull_request(self, sha: str, number: int = 7, fork: bool = False, author: str = PERSON,
                     base: str = "main") -> dict:
        """Open a pull request, and close every other; its event."""
        repository = {"full_name": "fork/name" if fork else "owner/name"}
        onto = {"sha": self.git("rev-parse", base), "ref": base, "repo": {"full_name": "owner/name"}}
        pull = {"number": number, "user": {"login": author}, "base": onto,
                "head": {"sha": sha, "ref": self.git("rev-parse", "--abbrev-ref", "HEAD"), "repo": repository}}
        self.pulls = [pull]
        return {"number": number, "pull_request": pull}

    def run(self, workflow: str, event: str, given: dict, sha: str = "", *, actor: str = PERSON, attempt: int = 1,
            variables: dict | None = None, secrets: dict | None = None, environment: dict | None = None,
            run_id: str = "") -> Run:
        """Have act execute a workflow for an event at a commit (default: main's)."""
        self.runs += 1
        run = Run(run_id or str(self.runs), 0)
        self.git("checkout", "-qf", "--detach", sha or "main")
        if event == "pull_request":  # which runs on GitHub's merge of the branch and its base, a commit of its own
            self.commit("merge")
            self.git("push", "-qf", "origin", "HEAD:refs/pull/7/merge")
        if self.mutation:
            mutate(self.work, *self.mutation)
        repository = {"default_branch": "main", "full_name": "owner/name"}
        (self.folder / "event.json").write_text(json.dumps(given | {"repository": repository}))
        known = {"GITHUB_API_URL": self.server.address, "GITHUB_SERVER_URL": "https://github.com",
                 "GITHUB_REPOSITORY": "owner/name", "GITHUB_RUN_ID": run.id, "GITHUB_RUN_ATTEMPT": str(attempt),
                 "STANDIN": str(self.folder),
                 "WARM_PYTHON": str(self.python), "PYTHONSAFEPATH": "1", "AWS_EC2_METADATA_DISABLED": "true",
                 "MUTATION": json.dumps(self.mutation), "PATH": os.environ["PATH"]} | (environment or {})
        options = [("--env", known), ("--var", variables or {}), ("-s", {"GITHUB_TOKEN": "token"} | (secrets or {})),
                   ("--local-repository", self.repositories)]
        words = [self.act, event, "-W", f".github/workflows/{workflow}.yml", "-e", str(self.folder / "event.json"),
                 "--json", "-P", "ubuntu-latest=-self-hosted", "--no-skip-checkout", "--no-cache-server", "-a", actor,
                 "--defaultbranch", "main"]
        words += [word for option, values in options for name, value in values.items()
                  for word in (option, f"{name}={value}")]
        home = {"HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "home")}
        (self.folder / "home").mkdir(exist_ok=True)
        done = subprocess.run(words, cwd=self.work, env={"PATH": os.environ["PATH"], **home}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        run.code = done.returncode
        for line in done.stdout.splitlines():
            self._note(run, line)
        self.done[run.id] = run
        return run

    @staticmethod
    def _note(run: Run, line: str) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            run.text += f"{line}\n"
            return
        if "jobResult" in said:
            run.jobs[said["jobID"]] = said["jobResult"]
        if "stepResult" in said and said.get("stage") == "Main" and len(said["stepID"]) == 1:
            place = said["stepID"][0]
            run.steps[said["step"] if place.isdigit() else place] = said["stepResult"]
        if said.get("raw_output") or said.get("level") == "error":
            run.text += said["msg"] if said["msg"].endswith("\n") else f"{said['msg']}\n"

    def jobs_of(self, run_id: str) -> list[dict]:
        """What the API says of a run's jobs."""
        run = self.done[run_id]
        return [{"name": name, "conclusion": end, "steps": [{"name": step, "conclusion": result}
                 for step, result in run.steps.items()]} for name, end in run.jobs.items()]

    def follow(self, workflow: str, first: Run, event: str, given: dict, sha: str, actor: str = PERSON, **more) -> Run:
        """The run of `workflow` that GitHub starts when the run `first` has ended."""
        head = given.get("pull_request", {}).get("head", {"ref": "main", "repo": {"full_name": "owner/name"}})
        ended = {"id": int(first.id), "conclusion": first.conclusion, "event": event, "head_sha": sha,
                 "head_branch": head["ref"], "head_repository": head["repo"], "actor": {"login": actor}}
        return self.run(workflow, "workflow_run", {"action": "completed", "workflow_run": ended}, actor=actor, **more)

    def artifacts(self, run: Run) -> dict[str, str]:
        """What a run uploaded: file or zip by name."""
        return {kind.stem: kind.read_text() for kind in (self.folder / "artifacts" / run.id).glob("*.kind")}

    @property
    def comment(self) -> str | None:
        """The one comment that is there, with what varies replaced."""
        assert len(self.comments) <= 1, [each["body"] for each in self.comments]
        if not self.comments:
            return None
        text = self.comments[0]["body"].replace("\u200b", "¦")
        for sha, name in ((self.pulls[0]["head"]["sha"], "HEAD"), (self.pulls[0]["base"]["sha"], "BASE")):
            text = text.replace(sha, name).replace(sha[:8], name)
        return re.sub(r"(runs/|artifacts/|github take )\d+", r"\1N", text)
