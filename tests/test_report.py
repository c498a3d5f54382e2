"""The report of a pull request, compared whole with tests/golden/*.md (GOLDEN=write writes them anew), and what it must never hold."""

import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from dvc.repo import Repo
from markdown_it import MarkdownIt

from pipeline import Refused
from pipeline.__main__ import main
from pipeline.report import build, read_links, safe
from pipeline.report.curves import chart, confusion, evenly, image_by_image, sign_test
from pipeline.report.fit import LIMIT, fit
from pipeline.report.sections import Section, tracking_server

GOLDEN = Path(__file__).with_name("golden")
PIXELS = {"grey": "iVBORw0KGgo=", "blue": "iVBORw0KGg8="}
STAGES = """\
stages:
  data:
    cmd: python -m pipeline stage
    deps: [notebooks/data.ipynb]
    params: [data]
    outs: [data/train.bin, reports/data.ipynb, reports/data.html]
  train:
    foreach: ${models}
    do:
      cmd: python -m pipeline stage
      deps: ["notebooks/${key}.ipynb", data/train.bin]
      params: ["models.${key}"]
      outs: ["models/${key}.bin", "reports/${key}.ipynb", "reports/${key}.html"]
      metrics: ["metrics/${key}.json": {cache: false}]
      plots: ["metrics/${key}.csv": {cache: false}]
  compare:
    cmd: python -m pipeline stage
    deps: [notebooks/compare.ipynb, models]
    params: [models]
    outs: [reports/compare.ipynb, reports/compare.html]
    metrics: [metrics/compare.json: {cache: false}]
    plots: [metrics/confusion.csv: {cache: false}]
"""
TAGS = {"p", "h3", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "details", "summary", "ul", "li", "strong", "a"}
HOSTILE = (
    "@octocat @org/team #1 GH-1 octo/cat#2 http://evil.test www.evil.test a@evil.test ![x](https://evil.test/x.png) [y](//evil.test) "
    "<img src=x onerror=alert(1)> <!-- </details></summary> ` `` ``` ```` ~~~ | \\| a\\ ** __ $x$ :tada: &lt; "
    "\u202edetrever\u202c \u200bhidden \x1b[31mred\x1b[0m\r\x07"
)


class Project:
    """A pipeline as it is after a run, without the run: its files are written, DVC itself records them."""

    def __init__(self, root: Path):
        self.root = root
        self.models = {"cnn": {"lr": 0.01, "width": 16}, "linear": {"lr": 0.002}}
        self.accuracy = {"cnn": [0.97, 0.98, 0.99], "linear": [0.9, 0.91, 0.92]}
        self.said = dict.fromkeys(("data", "cnn", "linear", "compare"), "It learns.")
        self.figure = dict.fromkeys(self.said, "grey")
        self.git("init", "-q", "-b", "main")
        (root / ".dvc").mkdir()
        self.write(".dvc/config", "[core]\n    analytics = false\n")
        self.write(".dvc/.gitignore", "/tmp\n/cache\n/config.local\n")
        self.write(".gitignore", "/data/\n/models/\n/reports/\n")
        self.write("dvc.yaml", STAGES)

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8", newline="\n")

    def write_json(self, path: str, value: object) -> None:
        self.write(path, json.dumps(value, indent=2) + "\n")

    def executed(self, name: str, failure: dict | None = None, last: list | None = None) -> None:
        """reports/NAME.ipynb and .html: a heading, some text, another heading, a figure; or `last` outputs in place of the figure."""
        new = nbformat.v4
        text = new.new_output("display_data", {"text/markdown": f"First line.\n\n{self.said[name]}", "text/plain": "<Markdown object>"})
        picture = new.new_output("display_data", {"image/png": PIXELS[self.figure[name]], "text/plain": "<Figure>"})
        cells = [
            new.new_markdown_cell(f"# The {name}\n\n## Training", id=f"{name}-1"),
            new.new_code_cell("train()", outputs=[text], execution_count=1, id=f"{name}-2"),
            new.new_markdown_cell("### How good is it?", id=f"{name}-3"),
            new.new_code_cell("figure = plot(history)\nassert history", outputs=last or [picture], execution_count=2, id=f"{name}-4"),
        ]
        made = new.new_notebook(cells=cells, metadata={"failure": failure} if failure else {})
        self.write(f"reports/{name}.ipynb", nbformat.writes(made))
        self.write(f"reports/{name}.html", f"<p>{name}")

    def train(self, name: str) -> None:
        curve = self.accuracy[name]
        self.write(f"models/{name}.bin", f"{name} {self.models[name]} {curve}")
        self.write(f"metrics/{name}.csv", "epoch,validation_accuracy\n" + "".join(f"{epoch},{value}\n" for epoch, value in enumerate(curve, start=1)))
        self.write_json(f"metrics/{name}.json", {"validation_accuracy": curve[-1], "epochs": len(curve)})
        self.executed(name)

    def compare(self) -> None:
        champion = max(self.accuracy, key=lambda name: self.accuracy[name][-1])
        self.write_json("metrics/compare.json", {"champion": champion, "validation_accuracy": self.accuracy[champion][-1]})
        wrong = round(100 * (1 - self.accuracy[champion][-1]))
        answers = [(index % 3, (index + (index < wrong)) % 3) for index in range(100)]
        self.write("metrics/confusion.csv", "actual,predicted\n" + "".join(f"{actual},{predicted}\n" for actual, predicted in answers))
        self.executed("compare")

    def sources(self) -> None:
        self.write_json("params.yaml", {"data": {"seed": 1}, "models": self.models})  # JSON is YAML
        for name in ("data", "compare", *self.models):
            self.write(f"notebooks/{name}.ipynb", name)

    def run(self, *only: str) -> None:
        """Write the results of the stages `only` (default: all), and have DVC record them."""
        self.sources()
        for name in only or ("data", *self.models, "compare"):
            if name == "data":
                self.write("data/train.bin", "images")
                self.executed("data")
            elif name == "compare":
                self.compare()
            else:
                self.train(name)
        with Repo(str(self.root)) as repo:
            for target in [stage.addressing for stage in repo.index.stages if stage.name.rpartition("@")[2] in only] or [None]:
                repo.commit(target, force=True)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("-c", "user.name=a", "-c", "user.email=a@a", "commit", "-qm", "results")
        return self.git("rev-parse", "HEAD")

    def report(self, base: str | None = "HEAD", **given) -> str:
        return build(self.root, base, **given)


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)  # DVC records relative to the working directory
    return Project(tmp_path)


def recorded(project: Project) -> Project:
    """The project with its first results committed on main, on a branch that goes on from there."""
    project.run()
    project.commit()
    project.git("checkout", "-qb", "topic")
    return project


def check(name: str, report: str, project: Project) -> None:
    """Compare with the golden file, in which commits are called by what they are."""
    for revision, called in (("HEAD", "{head}"), ("main", "{base}")):
        report = report.replace(project.git("rev-parse", revision), called)
    golden = GOLDEN / f"{name}.md"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(report, encoding="utf-8", newline="\n")
    assert report == golden.read_text(encoding="utf-8")
    assert_harmless(report)


def assert_harmless(report: str) -> None:
    """As GitHub reads it: no HTML but folds, no image, no link but our pages, and outside of code nothing that GitHub would act on."""
    assert len(report) <= LIMIT
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", report)
    page = BeautifulSoup(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(report), "html.parser")
    assert {tag.name for tag in page.find_all(True)} <= TAGS
    assert all(re.fullmatch(r"https://ci\.example/[a-z]+\.html", link["href"]) for link in page.find_all("a"))
    assert all(tag.attrs.keys() <= {"style", "class", "href"} for tag in page.find_all(True))
    for row in page.find_all("tr"):
        assert len(row.find_all(["td", "th"])) == len(row.find_parent("table").find("tr").find_all("th"))
    for tag in page.find_all(["code", "pre"]):
        tag.decompose()
    acting = re.compile(r"@\w|#\d|GH-\d|https?:|www\.|!\[|<|&[a-z]+;|:\w+:|\$")
    assert not acting.search(page.get_text()), acting.search(page.get_text())


def test_first_run(project):
    project.run()
    project.git("checkout", "-q", "--orphan", "topic")
    head = project.commit()
    report = project.report(None, tests="passed")
    golden = GOLDEN / "first_run.md"
    report = report.replace(head, "{head}")
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(report, encoding="utf-8", newline="\n")
    assert report == golden.read_text(encoding="utf-8")
    assert_harmless(report)


def test_nothing_changed(project):
    check("nothing_changed", recorded(project).report(), project)


def test_one_parameter_changed(project):
    recorded(project).models["cnn"]["lr"] = 0.02
    project.accuracy["cnn"] = [0.98, 0.985, 0.99, 0.993]
    project.said["cnn"] = "It learns faster."
    project.figure["cnn"] = "blue"
    project.run("cnn", "compare")
    project.commit()
    links = {"cnn": "https://ci.example/cnn.html", "linear": "javascript:alert(1)", "compare": "https://ci.example/compare.html"}
    check("one_parameter_changed", project.report("main", links=links, tests="passed"), project)


def test_new_model(project):
    recorded(project).models["wide"] = {"lr": 0.01, "width": 512}
    project.accuracy["wide"], project.said["wide"], project.figure["wide"] = [0.98, 0.995], "It is wide.", "blue"
    project.run("wide", "compare")
    check("new_model", project.report("main"), project)


def test_model_removed(project):
    recorded(project)
    del project.models["cnn"], project.accuracy["cnn"]
    for path in ("models/cnn.bin", "metrics/cnn.json", "metrics/cnn.csv", "reports/cnn.ipynb", "notebooks/cnn.ipynb"):
        (project.root / path).unlink()
    project.run("compare")
    check("model_removed", project.report("main"), project)


def fails(project: Project, failure: dict, last: list) -> None:
    """The cnn stage as a failed run leaves it: DVC took its outputs away, the runner wrote the executed copy."""
    recorded(project).models["cnn"]["lr"] = 9.0
    project.sources()
    for path in ("models/cnn.bin", "metrics/cnn.json", "metrics/cnn.csv"):
        (project.root / path).unlink()
    project.executed("cnn", failure, last)


def test_failed_cell(project):
    printed = nbformat.v4.new_output("stream", name="stdout", text="".join(f"step {step} \x1b[31mloss nan\x1b[0m\n" for step in range(30)))
    error = nbformat.v4.new_output("error", ename="AssertionError", evalue="accuracy 0.1 is below 0.99", traceback=[])
    fails(project, {"cell": 4, "error": "AssertionError", "reason": "accuracy 0.1 is below 0.99"}, [printed, error])
    check("failed_cell", project.report("main", tests="skipped"), project)


def test_killed_kernel(project):
    reason = "the kernel died while this cell ran (killed, out of memory, or ended by the cell itself)"
    error = nbformat.v4.new_output("error", ename="DeadKernelError", evalue=reason, traceback=[])
    fails(project, {"cell": 4, "error": "DeadKernelError", "reason": reason}, [error])
    check("killed_kernel", project.report("main"), project)


def test_forty_models(project):
    for number in range(40):
        name = f"net{number:02}"
        project.models[name], project.figure[name] = {"lr": 0.001, "epochs": 40}, "grey"
        project.accuracy[name], project.said[name] = [0.9 + epoch / 1000 + number / 10000 for epoch in range(40)], "a\n" * 50
    recorded(project)
    for name in [name for name in project.models if name.startswith("net")]:
        project.models[name]["lr"] = 0.002
        project.accuracy[name] = [value + 0.01 for value in project.accuracy[name]]
        project.said[name] = "".join(f"line {line} of {name}\n" for line in range(100))
    project.run()
    check("forty_models", project.report("main", tests="failed"), project)


def test_hostile_text(project):
    project.write("notebooks/@team #1 `x` &lt; [y](z).txt", "a")  # as hostile as Windows lets a name be
    recorded(project)
    project.write(project.git("ls-files", "-z", "notebooks/@*").strip("\0"), "b")
    project.models["cnn"] = {"lr": HOSTILE, HOSTILE.replace("$", "").replace("{", ""): "x"}
    project.said["cnn"] = f"{HOSTILE}\n```\n</details>\n\n@octocat\n# big\n~~~\n``````\n"
    project.run("cnn", "compare")
    project.write_json("metrics/cnn.json", {"validation_accuracy": HOSTILE, HOSTILE: 10**20, "huge": 1e308, "text": "x|y\n|z|"})
    project.write_json("metrics/compare.json", {"champion": HOSTILE, "validation_accuracy": "`"})
    project.write("metrics/confusion.csv", f'actual,predicted\n1,1\n"{HOSTILE.replace(chr(34), "")}",1\n')
    notebook = nbformat.read(project.root / "reports/cnn.ipynb", 4)
    notebook.cells[2].source = f"## {HOSTILE.split('<!--')[0]}"
    notebook.cells[3].outputs[0].data["image/png"] = PIXELS["blue"]
    (project.root / "reports/cnn.ipynb").unlink()
    project.write("reports/cnn.ipynb", nbformat.writes(notebook))
    with Repo(str(project.root)) as repo:
        for stage in [stage.addressing for stage in repo.index.stages if stage.name in ("train@cnn", "compare")]:
            repo.commit(stage, force=True)
    bad = {"cnn": "https://ci.example/a) ![x](https://evil.test/x.png", "linear": ["x"], "data": "https://user@evil.test/"}
    check("hostile_text", project.report("main", links=bad), project)


def test_hostile_failure(project):
    error = nbformat.v4.new_output("error", ename=HOSTILE, evalue=HOSTILE, traceback=[HOSTILE])
    fails(project, {"cell": 4, "error": HOSTILE, "reason": HOSTILE}, [nbformat.v4.new_output("stream", name="stdout", text=HOSTILE * 100), error])
    assert_harmless(project.report("main"))


@pytest.mark.parametrize("content", ["", "[]", '{"cells": 1}', '{"nbformat": 4, "nbformat_minor": 5, "metadata": {"failure": {"cell": 99}}, "cells": []}'])
def test_an_executed_copy_that_is_no_notebook(project, content):
    fails(project, {}, [])
    project.write("reports/cnn.ipynb", content)
    assert "not run: `cnn`, `compare`" in project.report("main")


def test_unreadable_pipeline_gives_a_report(project):
    recorded(project)
    project.write("dvc.yaml", "stages: [")
    report = project.report("main", outcome="params.yaml: models.cnn.lr must be float in (0, 1] (peak learning rate), found 'fast'.\n")
    assert_harmless(report)
    assert report.startswith("**the pipeline could not be read**") and "must be float in (0, 1]" in report


def test_base_outputs_that_cannot_be_had(project):
    recorded(project).said["cnn"] = "Something else."
    project.run("cnn")
    old = re.search(r"md5: (\w+)\n *size: \d+\n *- path: reports/cnn.ipynb\n *hash: md5\n *md5: (\w+)", project.git("show", "main:dvc.lock"))[2]
    cached = project.root / ".dvc/cache/files/md5" / old[:2] / old[2:]
    away = project.root / ".." / "remote" / "files/md5" / old[:2] / old[2:]
    away.parent.mkdir(parents=True)
    cached.rename(away)
    assert "could not be compared with the base's: it is not in DVC's cache here, and no DVC remote is configured." in project.report("main")
    project.write(".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../remote\n")
    assert "+Something else." in project.report("main")  # fetched
    cached.chmod(0o644)
    cached.write_text("damaged")
    assert "its copy in DVC's cache is damaged" in project.report("main")


def test_results_that_were_not_recorded(project):
    recorded(project).accuracy["linear"] = [0.9, 0.93]
    project.run("linear", "compare")
    project.write("notebooks/new.ipynb", "")
    report = project.report("main")
    assert "`metrics/linear.json`, `notebooks/new.ipynb`." in report
    assert "differ from those that the commit's `dvc.lock` records: `linear`." in report


def test_unknown_base_is_refused(project):
    with pytest.raises(Refused, match="no commit 'nowhere' to compare with"):
        recorded(project).report("nowhere")
    with pytest.raises(Refused):
        project.report("--output=x")


def test_command(monkeypatch, tmp_path, capsys):
    links, outcome, out = (tmp_path / name for name in ("links.json", "outcome.txt", "report.md"))
    links.write_text('{"cnn": "https://ci.example/cnn.html"}')
    outcome.write_text("last words")
    monkeypatch.setattr("pipeline.environment.ensure", lambda *_: None)
    monkeypatch.setattr("pipeline.report.build", lambda **given: json.dumps(given))
    arguments = ["report", "--base", "main", "--tests", "passed", "--links", str(links), "--outcome", str(outcome)]
    monkeypatch.setattr("sys.argv", ["pipeline", *arguments, "--out", str(out)])
    assert main() == 0
    given = {"base": "main", "links": {"cnn": "https://ci.example/cnn.html"}, "tests": "passed", "outcome": "last words"}
    assert json.loads(out.read_text()) == given
    monkeypatch.setattr("sys.argv", ["pipeline", "report", "--outcome", str(tmp_path / "missing")])
    assert main() == 2 and "cannot be read: No such file" in capsys.readouterr().err


def test_links_must_be_an_object(tmp_path):
    (tmp_path / "links.json").write_text("[]")
    with pytest.raises(Refused, match="must hold an object"):
        read_links(tmp_path / "links.json")


def test_tracking_server_shows_no_secret():
    assert tracking_server("https://me:secret@host.example:8443/x.mlflow?token=secret#secret") == "https://host.example:8443/x.mlflow"
    assert tracking_server("sqlite:///mlflow.db") == tracking_server(None) == tracking_server("http://[") == ""


@pytest.mark.parametrize("text", [HOSTILE, "`", "``", "|", "\\", "\\|", "a`b``c", "\n|\n---\n", "", " ", "\u2028", "````js\n````"])
def test_code_stays_code(text):
    row = f"| a | b |\n| -- | -- |\n| {safe.code(text)} | x |\n"
    page = BeautifulSoup(MarkdownIt("commonmark").enable("table").render(row), "html.parser")
    assert [len(each.find_all("td")) for each in page.find_all("tr")] == [0, 2]
    assert [child.name for child in page.find("td").contents] == ["code"]
    page = BeautifulSoup(MarkdownIt("commonmark").render(safe.fence(text)), "html.parser")
    assert [child.name for child in page.contents if child.name] == ["pre"]


def test_curves_that_cannot_be_drawn(project):
    recorded(project).accuracy["linear"] = [0.9, float("nan")]
    project.run("linear")
    assert "`linear`: no curve, `validation_accuracy` is not a finite number in every row of `metrics/linear.csv`." in project.report("main")
    assert chart("x", [0.5], [], "y") == ""
    assert "[0.5, 0.5, 0.5]" in chart("x", [0.1, 0.2, 0.3], [0.5], "y")
    assert len(evenly(1000, 50)) == 50 and evenly(1000, 50)[-1] == 999


def test_mermaid_label_is_one_string():
    assert re.fullmatch(r'"[\w .,:+-]*"', safe.label(HOSTILE + '"\n    line [1]'))


def test_fit_shortens_and_never_cuts():
    parts = [Section(["first line."]), *(Section([letter * 1000, letter * 10, ""], 6, f"part {letter}", "there") for letter in "abcdef")]
    text = fit(parts, 3500)
    assert len(text) <= 3500 and text.startswith("first line.")
    assert all(letter * 1000 in text or f"\n{letter * 10}\n" in text for letter in "abcdef")
    assert "- part a: there" in text
    assert len(fit([Section(["first line."]), *(Section(["x" * 400]) for _ in range(100))], 3500)) <= 3500


def test_answers():
    base, now = [("1", "1"), ("2", "1"), ("2", "2")], [("1", "1"), ("2", "2"), ("2", "2")]
    assert image_by_image(now, base).startswith("Answer by answer against the base's champion, on the same 3: 1 newly right, 0 newly wrong.")
    assert image_by_image(now, base[:2]) == ""
    assert sign_test(1, 0) == 1.0 and sign_test(8, 1) == pytest.approx(0.0390625)
    assert confusion([(str(each), "0") for each in range(30)]).count("\n") == 21
