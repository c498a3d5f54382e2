"""The report of a pull request, on tiny projects: what it says, and what it must never hold."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from dvc.repo import Repo
from markdown_it import MarkdownIt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nbproof.github import command as workflow
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config as contract
from nbproof.review import build, markdown as text, sections
from nbproof.review.facts import Result
from nbproof.review.plots import evenly
from nbproof.review.sections import LIMIT, Part, fit, tracking_server


def figure(colour: str, comment: str = "") -> str:
    """A small picture of one colour, as a notebook holds it."""
    file, kept = io.BytesIO(), PngInfo()
    kept.add_text("Comment", comment)
    Image.new("RGB", (4, 3), colour).save(file, "png", pnginfo=kept, compress_level=0)
    return base64.b64encode(file.getvalue()).decode()


FIGURES = {"grey": figure("grey"), "blue": figure("blue"), "grey, elsewhere": figure("grey", "made elsewhere")}
CONTRACT = "name: tiny\nmetric: {key: score, goal: max}\ncompare: compare\ndata: data.source\n"
STAGES = """\
stages:
  compare:
    cmd: nbproof stage
    deps: [notebooks/compare.ipynb, models]
    params: [models]
    outs: [reports/compare.ipynb]
    metrics: [metrics/compare.json: {cache: false}]
    plots: [metrics/answers.csv: {cache: false, template: confusion, x: predicted, y: actual}]
  features:
    cmd: python features.py
    deps: [features.py]
    params: [data]
    outs: [data/features]
  train:
    foreach: ${models}
    do:
      cmd: nbproof stage
      deps: ["notebooks/${key}.ipynb", data/features]
      params: ["models.${key}"]
      outs: ["models/${key}", "reports/${key}.ipynb"]
      metrics: ["metrics/${key}.json": {cache: false}]
      plots: ["metrics/${key}.csv": {cache: false, x: round, y: score}]
"""
TAGS = {"p", "h3", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "details", "summary", "ul", "li",
        "strong", "a"}
HOSTILE = (
    "@octocat @org/team #1 GH-1 octo/cat#2 http://evil.test www.evil.test a@evil.test ![x](https://evil.test/x.png) "
    "[y](//evil.test) <img src=x onerror=alert(1)> <!-- </details></summary> ` `` ``` ```` ~~~ | \\| a\\ ** __ $x$ "
    ":tada: &lt; \u202edetrever\u202c \u200bhidden \x1b[31mred\x1b[0m\r\x07"
)


class Tiny:
    """A project as it is after a run, without the run: its files are written, DVC itself records them."""

    def __init__(self, folder: Path):
        self.root = folder
        self.models = {"oak": {"rate": 0.01, "depth": 16}, "elm": {"rate": 0.002}}
        self.scores = {"oak": [0.97, 0.98, 0.99], "elm": [0.9, 0.91, 0.92]}
        self.said, self.figure, self.source = {}, {}, "table"
        self.git("init", "-q", "-b", "main")
        self.write(".dvc/config", "[core]\n    analytics = false\n")
        self.write(".dvc/.gitignore", "/tmp\n/cache\n/config.local\n")
        self.write(".gitignore", "/data/\n/models/\n/reports/\n")
        self.write("project.yaml", CONTRACT)
        self.write("dvc.yaml", STAGES)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, path: str, content: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).unlink(missing_ok=True)  # it may be a link into DVC's cache
        (self.root / path).write_text(content, encoding="utf-8", newline="\n")

    def write_json(self, path: str, value: object) -> None:
        self.write(path, json.dumps(value, indent=2) + "\n")

    def executed(self, name: str, failure: dict | None = None, last: list | None = None) -> None:
        """reports/NAME.ipynb and .html: a heading, some text, another heading, a figure; or `last` in its place."""
        new = nbformat.v4
        said = f"First line.\n\n{self.said.get(name, 'It learns.')}"
        shown = new.new_output("display_data", {"text/markdown": said, "text/plain": "<Markdown object>"})
        picture = new.new_output("display_data", {"image/png": FIGURES[self.figure.get(name, "grey")]})
        cells = [
            new.new_markdown_cell(f"# The {name}\n\n## Training", id="a"),
            new.new_code_cell("train()", outputs=[shown], execution_count=1, id="b"),
            new.new_markdown_cell("### How good is it?", id="c"),
            new.new_code_cell("figure = plot(history)\nassert history", outputs=last or [picture], id="d"),
        ]
        made = new.new_notebook(cells=cells, metadata={"failure": failure} if failure else {})
        self.write(f"reports/{name}.ipynb", nbformat.writes(made))
        self.write(f"reports/{name}.html", f"<p>{name}")

    def make_model(self, name: str) -> None:
        curve = self.scores[name]
        self.write(f"models/{name}/weights.txt", f"{name} {self.models[name]} {curve}")
        self.write(f"metrics/{name}.csv", "round,score\n" + "".join(f"{at},{y}\n" for at, y in enumerate(curve, 1)))
        self.write_json(f"metrics/{name}.json", {"score": curve[-1], "rounds": len(curve)})
        self.executed(name)

    def make_comparison(self) -> None:
        champion = max(self.scores, key=lambda name: self.scores[name][-1])
        self.write_json("metrics/compare.json", {"champion": champion, "score": self.scores[champion][-1]})
        wrong = round(100 * (1 - self.scores[champion][-1]))
        answers = [(index % 3, (index + (index < wrong)) % 3) for index in range(100)]
        self.write("metrics/answers.csv", "actual,predicted\n" + "".join(f"{true},{said}\n" for true, said in answers))
        self.executed("compare")

    def sources(self) -> None:
        self.write_json("params.yaml", {"data": {"source": self.source}, "models": self.models})  # JSON is YAML
        self.write("features.py", f"print({self.source!r})")
        for name in ("compare", *self.models):
            made = [each.get(name) for each in (self.scores, self.said, self.figure)]
            self.write(f"notebooks/{name}.ipynb", f"{name} {made}")  # other results come of another source

    def run(self, *only: str) -> None:
        """Write the results of the stages `only` (default: all), and have DVC record them."""
        self.sources()
        for name in only or ("features", *self.models, "compare"):
            if name == "features":
                self.write("data/features/one.txt", self.source)
                self.write("data/features/two.txt", "two")
            elif name == "compare":
                self.make_comparison()
            else:
                self.make_model(name)
        self.record(*only)

    def record(self, *only: str) -> None:
        with Repo(str(self.root)) as repo:
            names = [stage.addressing for stage in repo.index.stages if stage.name.rpartition("@")[2] in only]
            for target in names or [None]:
                repo.commit(target, force=True)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("-c", "user.name=a", "-c", "user.email=a@a", "commit", "-qm", "results")
        return self.git("rev-parse", "HEAD")

    def begin(self) -> "Tiny":
        """Record the first results, commit them on main, and go on on a branch."""
        self.run()
        self.commit()
        self.git("checkout", "-qb", "topic")
        return self

    def fail(self, failure: dict, last: list) -> None:
        """The stage train@oak as a failed run leaves it: DVC took its outputs away, its executed copy was written."""
        self.begin().models["oak"]["rate"] = 9.0
        self.sources()
        for path in ("models/oak/weights.txt", "metrics/oak.json", "metrics/oak.csv"):
            (self.root / path).unlink()
        self.executed("oak", failure, last)

    def report(self, base: str | None = "main", **given) -> str:
        """The report, with the ids of commits replaced; it is checked to be harmless."""
        root.cache_clear()
        contract.load.cache_clear()
        made = build(base, **given)
        assert_harmless(made)
        return made


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)  # DVC records relative to the working directory
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield Tiny(tmp_path)
    root.cache_clear()
    contract.load.cache_clear()
    sys.modules.pop("science", None)


def rows(report: str, name: str) -> list[str]:
    """The table rows whose first cell is `name`."""
    return [line for line in report.splitlines() if line.startswith(f"| `{name}` |")]


def assert_harmless(report: str) -> None:
    """As GitHub reads it: no HTML but folds, no image, no link but our pages, nothing outside of code that acts."""
    assert len(report) <= LIMIT
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", report)
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(report)
    page = BeautifulSoup(rendered, "html.parser")
    assert {tag.name for tag in page.find_all(True)} <= TAGS
    assert all(re.fullmatch(r"https://ci\.example/[a-z]+\.html", link["href"]) for link in page.find_all("a"))
    assert all(tag.attrs.keys() <= {"style", "class", "href"} for tag in page.find_all(True))
    for row in page.find_all("tr"):
        header = row.find_parent("table").find("tr").find_all("th")
        assert len(row.find_all(["td", "th"])) == len(header)
    for tag in page.find_all(["code", "pre"]):
        tag.decompose()
    acting = re.compile(r"@\w|#\d|GH-\d|https?:|www\.|!\[|<|&[a-z]+;|:\w+:|\$")
    assert not acting.search(page.get_text()), acting.search(page.get_text())


def test_first_run(tiny):
    tiny.run()
    tiny.git("checkout", "-q", "--orphan", "topic")
    head = tiny.commit()
    report = tiny.report(None)
    assert report.startswith("champion `oak` 0.9900; 4 stages, no base to compare with.\n")
    assert rows(report, "features") == ["| `features` | ran |  |  |  |"]  # an ordinary command has no page
    assert rows(report, "oak") == ["| `oak` | ran | 0.9900 |  | `reports/oak.html` |"]
    assert f"git checkout {head}\nnbproof run\nnbproof report\n" in report


def test_nothing_changed(tiny):
    report = tiny.begin().report()
    assert report.startswith("**nothing changed**: champion `oak` 0.9900; no stage has a change.\n")
    assert "Metrics: as in the base.\n\nParameters: as in the base.\n\n### Answers" in report
    assert "### Curves" not in report and "Changed outputs" not in report and "not in the commit" not in report


def test_one_parameter_changed(tiny):
    tiny.begin().models["oak"]["rate"] = 0.02
    tiny.scores["oak"] = [0.98, 0.985, 0.99, 0.993]
    tiny.said["oak"], tiny.figure["oak"] = "It learns faster.", "blue"
    tiny.write("Makefile", "")
    tiny.run("oak", "compare")
    tiny.commit()
    links = {name: f"https://ci.example/{name}.html" for name in ("oak", "compare")}
    report = tiny.report(links={**links, "elm": "javascript:alert(1)"})
    report = report.replace(tiny.git("rev-parse", "HEAD"), "{head}").replace(tiny.git("rev-parse", "main"), "{base}")
    golden = Path(__file__).parent / "golden" / "one_parameter_changed.md"
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(report, encoding="utf-8")
    assert report == golden.read_text(encoding="utf-8")


def test_the_same_inputs_on_another_machine(tiny):
    """Other bytes of the same command, code, data and parameters are no change of the branch."""
    tiny.begin().write("models/oak/weights.txt", "rounded otherwise")
    tiny.write_json("metrics/oak.json", {"score": 0.9899, "rounds": 3})
    tiny.write_json("metrics/compare.json", {"champion": "oak", "score": 0.9899})
    tiny.record("oak", "compare")
    report = tiny.report()
    assert report.startswith("**nothing changed**: champion `oak` 0.9900; no stage has a change.\n")
    assert "Metrics: as in the base." in report and "0.9899" not in report
    assert "`compare`, `oak` ran again here with the base's code, data and parameters, and gave other bytes" in report
    tiny.models["elm"]["rate"] = 0.5  # the comparison has another input now, the champion has not
    tiny.sources()
    tiny.record("elm")
    report = tiny.report()
    assert rows(report, "oak") == ["| `oak` | unchanged | 0.9900 | 0 | `reports/oak.html` |"]
    assert rows(report, "elm")[0].startswith("| `elm` | ran")


def test_what_mains_own_run_made_is_compared(tiny):
    """Where main's run on such a machine gave other numbers than the committed ones, they are the base's."""
    tiny.begin()
    made = {"metrics/oak.json": {"score": 0.9899, "rounds": 3},
            "metrics/compare.json": {"champion": "oak", "score": 0.9899}}
    for path, content in made.items():
        tiny.write_json(path, content)
        tiny.write_json(f"scratch/main/{path}", content)
    tiny.record("oak", "compare")
    tiny.write("scratch/main/dvc.lock", (tiny.root / "dvc.lock").read_text())
    report = tiny.report()
    assert report.startswith("**nothing changed**: champion `oak` 0.9899; no stage has a change.\n")
    assert "other bytes" not in report


def test_numbers_of_the_test_data_are_shown_on_main_alone(tiny):
    tiny.begin().models["oak"]["rate"] = 0.02
    tiny.scores["oak"] = [0.98, 0.995]
    tiny.run("oak")
    tiny.write_json("metrics/compare.json", {"champion": "oak", "score": 0.995, "test_score": 0.9876})
    tiny.record("compare")
    assert "0.9876" not in tiny.report()
    assert "; `test_score` 0.9876 (shown on main alone: " in tiny.report(final=True).splitlines()[0]


def test_new_model_and_removed_model(tiny):
    tiny.begin().models["wide"] = {"rate": 0.01, "depth": 512}
    tiny.scores["wide"] = [0.98, 0.995]
    del tiny.models["elm"], tiny.scores["elm"]
    tiny.run("wide", "compare")
    report = tiny.report()
    assert report.startswith("**better**: champion `oak` 0.9900 → `wide` 0.9950; 2 of 4 stages ran again; new: `wide`; "
                             "removed: `elm`.\n")
    assert rows(report, "wide") == ["| `wide` | ran, new | 0.9950 |  | `reports/wide.html` |"]
    assert rows(report, "elm") == ["| `elm` | removed | – |  |  |"]
    assert "| `metrics/elm.json` | `score` | 0.92 | – |  |" in report
    assert "| `models.wide.depth` | – | 512 |" in report


def test_folder_changed_and_the_data_is_named(tiny):
    tiny.begin().source = "other"
    tiny.run()
    report = tiny.report()
    assert "; data: `other` (the base's: `table`)." in report.splitlines()[0]
    assert rows(report, "features") == ["| `features` | ran |  |  |  |"]
    assert rows(report, "oak") == ["| `oak` | ran, same results | 0.9900 | 0 | `reports/oak.html` |"]
    assert "could not be compared" not in report
    assert "The results differ from those that the commit's `dvc.lock` records: `features`." in report


def test_without_a_comparison(tiny):
    tiny.write("project.yaml", "name: tiny\nmetric: {key: score, goal: max}\n")
    tiny.begin().scores["elm"] = [0.9, 0.8]
    tiny.run("elm")
    report = tiny.report()
    assert "champion" not in report and "2 of 4" not in report
    assert rows(report, "elm")[0].startswith("| `elm` | ran | 0.8000 | -0.1200, worse |")


REGRESSION = """\
stages:
  ridge:
    cmd: nbproof stage
    deps: [notebooks/ridge.ipynb]
    outs: [reports/ridge.ipynb, reports/ridge.html]
    metrics: [metrics/ridge.json: {cache: false}]
    plots: [metrics/ridge.csv: {cache: false}]
  choose:
    cmd: nbproof stage
    deps: [notebooks/choose.ipynb, metrics/ridge.json]
    outs: [reports/choose.ipynb, reports/choose.html]
    metrics: [metrics/choose.json: {cache: false}]
    plots: [metrics/truth.csv: {cache: true, template: scatter, x: target, y: guess}]
plots:
- metrics/ridge.csv: {x: alpha, y: [rmse, bias]}
"""
SCIENCE = """\
def better(new, old):
    print("asked about", len(new))
    assert new[0].keys() == {"actual", "predicted"}
    return {"better": True, "why": "@octocat " + new[0]["predicted"] + " for " + old[0]["predicted"], "p": 0.03125}
"""


def regress(tiny: Tiny, rmse: float, alphas: list) -> None:
    """Write and record the results of a regression whose predictions are `rmse` too high."""
    tiny.write("metrics/ridge.csv", "alpha,rmse,bias\n" + "".join(f"{alpha},{rmse + alpha},1\n" for alpha in alphas))
    tiny.write_json("metrics/ridge.json", {"rmse": rmse, "rows": int(rmse)})
    tiny.write_json("metrics/choose.json", {"champion": "ridge", "rmse": rmse})
    tiny.write("metrics/truth.csv", "target,guess\n" + "".join(f"{at},{at + rmse}\n" for at in range(100)))
    for name in ("ridge", "choose"):
        tiny.write(f"notebooks/{name}.ipynb", f"{name} {rmse}")
        tiny.executed(name)
    tiny.record()


@pytest.fixture
def regression(tiny):
    tiny.write("project.yaml", "name: tiny\nmetric: {key: rmse, goal: min}\ncompare: choose\n"
                               "hooks: {better: 'science:better'}\n")
    tiny.write("dvc.yaml", REGRESSION)
    tiny.write("notebooks/science.py", SCIENCE)
    regress(tiny, 60.5, [0.1, 1, 10])
    tiny.commit()
    tiny.git("checkout", "-qb", "topic")
    regress(tiny, 53.5, [1, 10, 100])
    return tiny


def test_regression(regression, capsys):
    report = regression.report()
    assert report.startswith("**better** (p 0.031): champion `ridge` 60.5 → 53.5; 2 of 2 stages ran again.\n")
    assert "| stage | status | `rmse` | change | page |" in report
    assert rows(report, "ridge")[0].startswith("| `ridge` | ran | 53.5 | -7.0000 |")
    assert "| `metrics/ridge.json` | `rows` | 60 | 53 | -7 |" in report  # of another metric nobody knows the direction
    assert "`ridge`: `rmse` 153.5 at `alpha` 100, in the base 70.5 at `alpha` 10.\n" in report  # the first of two ys
    assert '    x-axis "alpha" ["0.1", "1", "10", "100"]\n    y-axis "rmse"' in report
    assert "    line [60.6, 61.5, 70.5, 70.5]\n    line [54.5, 54.5, 63.5, 153.5]\n" in report
    assert "Predicted and true values of the champion, <code>ridge</code>" in report and "Confusion" not in report
    assert "    line [4.5, 14.5, 24.5, 34.5, 44.5, 54.5, 64.5, 74.5, 84.5, 94.5]\n    line [58, 68, 78," in report
    assert "| 10 | 10 | 90 | 99 | 94.5 | 148 |" in report
    assert "The project's own test, on the same 100 cases: `@octocat 53.5 for 60.5`." in report
    assert capsys.readouterr().out == ""  # the report itself may go there


def test_hooks_that_misbehave(regression, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for science, said in (
        ("def better(new, old):\n    raise ValueError('@octocat `x`')", "failed: `` ValueError: @octocat `x` ``."),
        ("def better(new, old):\n    return {'better': True}", "failed: `KeyError: 'why'`."),
        ("def better(new, old):\n    raise SystemExit(3)", "failed: `SystemExit: 3`."),
        ("better = ", "failed: `SyntaxError"),
        ("", "failed: `UserError: project.yaml: hooks.better is science:better, which cannot be imported"),
        ("def better(new, old):\n    return {'better': 0, 'why': 'no.', 'p': None}", "on the same 100 cases: `no`"),
    ):
        sys.modules.pop("science", None)
        regression.write("notebooks/science.py", science)
        assert said in regression.report()


def test_no_hook_is_asked_about_other_cases(regression):
    regression.write("metrics/truth.csv", "target,guess\n1,2\n2,3\n")
    regression.record()
    assert "own test" not in regression.report()


def test_plots_that_cannot_be_drawn(regression):
    regression.write("metrics/ridge.csv", "alpha,rmse\n1,nan\n2,3\n")
    regression.write("metrics/truth.csv", "target,guess\n1,many\n2,3\n")
    regression.record()
    report = regression.report()
    assert "`ridge`: no curve, `rmse` is not a finite number in every row of `metrics/ridge.csv`." in report
    assert "`metrics/truth.csv` does not hold `target` and `guess` as dvc.yaml plots them." in report
    regression.write("metrics/ridge.csv", '"' + "x" * 200_000 + "\0")
    regression.write("metrics/truth.csv", "")
    regression.record()
    assert "### Curves" not in regression.report()


def test_failed_cell(tiny):
    lines = "".join(f"step {step} \x1b[31mloss nan\x1b[0m\n" for step in range(30))
    printed = nbformat.v4.new_output("stream", name="stdout", text=lines)
    error = nbformat.v4.new_output("error", ename="AssertionError", evalue="score 0.1 is below 0.9", traceback=[])
    tiny.fail({"cell": 4, "error": "AssertionError", "reason": "score 0.1 is below 0.9"}, [printed, error])
    report = tiny.report()
    assert report.startswith("**failed at cell 4 of `oak.ipynb`**; not run: `compare`; no new champion (the base's: "
                             "`oak` 0.9900).\n")
    assert rows(report, "oak") == ["| `oak` | **failed at cell 4** | – |  | `reports/oak.html` |"]
    assert rows(report, "compare") == ["| `compare` | not run: needs `oak` | – |  |  |"]
    assert "```text\nAssertionError: score 0.1 is below 0.9\n```\n\nThe cell begins:\n\n```python\nfigure =" in report
    assert "```text\n… 10 more lines\nstep 10 loss nan\n" in report
    assert "Metrics of the stages with a result: as in the base." in report


def test_failed_command(tiny):
    tiny.begin().write("features.py", "raise SystemExit(1)")
    shutil.rmtree(tiny.root / "data/features")  # DVC takes outputs away before it runs a command
    outcome = "features: no such table\nFailed: features. Not run: elm, oak, compare.\n"
    report = tiny.report(outcome=outcome)
    assert report.startswith("**`features` failed**; not run: `compare`, `oak`, `elm`")
    assert rows(report, "features") == ["| `features` | **failed** |  |  |  |"]
    assert "### The last lines of the run\n\n```text\nfeatures: no such table\n" in report
    assert "not run: out of date" in rows(tiny.report(), "features")[0]


def test_too_much_for_a_comment(tiny):
    for number in range(16):
        name = f"net{number:02}"
        tiny.models[name] = {"rate": 0.001, "rounds": 40}
        tiny.scores[name] = [0.9 + step / 1000 + number / 10000 for step in range(40)]
        tiny.said[name] = "a\n" * 50
    tiny.begin()
    for name in tiny.said:
        tiny.models[name]["rate"] = 0.002
        tiny.scores[name] = [value + 0.01 for value in tiny.scores[name]]
        tiny.said[name] = "".join(f"line {line} of {name} {line:0100}\n" for line in range(100))
    tiny.run()
    report = tiny.report()  # at most 64,000 characters
    assert report.startswith("**same champion**: champion `oak` 0.9900; 17 of 20 stages ran again.\n")
    assert rows(report, "net15") == ["| `net15` | ran | 0.9505 | +0.0100, better | `reports/net15.html` |"]
    assert "leaves out, in whole or in part:\n\n- changed outputs of `net" in report
    assert re.search(r"\n- and \d+ more of these kinds\n$", report), report[-200:]
    assert "<code>net07</code>: " in report and "`net07`: `score` 0.9497 at `round` 40, in the base 0.9397" in report


def test_hostile_text(tiny):
    tiny.begin()
    tiny.write("project.yaml", CONTRACT.replace("score", f"'{HOSTILE[:60]}'"))
    tiny.models["oak"] = {"rate": HOSTILE, HOSTILE.replace("$", "").replace("{", ""): "x"}
    tiny.said["oak"] = f"{HOSTILE}\n```\n</details>\n\n@octocat\n# big\n~~~\n``````\n"
    tiny.figure["oak"] = "blue"
    tiny.run("oak", "compare")
    metrics = {HOSTILE[:60]: HOSTILE, HOSTILE: 10**20, "huge": 1e308, "text": "x|y\n|z|"}
    tiny.write_json("metrics/oak.json", metrics)
    tiny.write_json("metrics/compare.json", {"champion": HOSTILE, HOSTILE[:60]: "`"})
    cell = HOSTILE.replace('"', "")
    tiny.write("metrics/answers.csv", f'actual,predicted\n1,1\n"{cell}",1\n')
    tiny.write("metrics/oak.csv", f'round,score\n"{cell}",1\n"x",2\n"y",1\n')
    notebook = nbformat.read(tiny.root / "reports/oak.ipynb", 4)
    notebook.cells[2].source = f"## {HOSTILE.split('<!--')[0]}"
    tiny.write("reports/oak.ipynb", nbformat.writes(notebook))
    tiny.record("oak", "compare")
    bad = {"oak": "https://ci.example/a) ![x](https://evil.test/x.png", "elm": ["x"], "compare": "https://u@evil.test/"}
    report = tiny.report(links=bad)
    assert "+@octocat @org/team #1 GH-1" in report and "Confusion matrix of the champion, <code>@octocat" in report


def test_hostile_failure(tiny):
    error = nbformat.v4.new_output("error", ename=HOSTILE, evalue=HOSTILE, traceback=[HOSTILE])
    printed = nbformat.v4.new_output("stream", name="stdout", text=HOSTILE * 100)
    tiny.fail({"cell": 4, "error": HOSTILE, "reason": HOSTILE}, [printed, error])
    assert "@octocat" in tiny.report(outcome=HOSTILE)


def test_an_executed_copy_that_is_no_notebook(tiny):
    tiny.fail({}, [])
    empty = '{"nbformat": 4, "nbformat_minor": 5, "metadata": {"failure": {"cell": 9}}, "cells": []}'
    for content in ("", "[]", '{"cells": 1}', empty):
        tiny.write("reports/oak.ipynb", content)
        assert "not run: `compare`, `oak`" in tiny.report()


def test_unreadable_pipeline_gives_a_report(tiny):
    tiny.begin().write("dvc.yaml", "stages: [")
    report = tiny.report(outcome="params.yaml: models.oak.rate must be float in (0, 1], found 'fast'.\n")
    assert report.startswith("**the pipeline could not be read**") and "must be float in (0, 1]" in report


def test_base_outputs_that_cannot_be_had(tiny, monkeypatch):
    tiny.begin().said["oak"] = "Something else."
    tiny.run("oak")
    entry = tiny.git("show", "main:dvc.lock").split("reports/oak.ipynb")[1]
    old = re.search(r"md5: (\w{32})", entry)[1]
    cached = tiny.root / ".dvc/cache/files/md5" / old[:2] / old[2:]
    away = tiny.root / ".." / "remote" / "files/md5" / old[:2] / old[2:]
    away.parent.mkdir(parents=True)
    cached.rename(away)
    assert "not in DVC's cache here, and no DVC remote is configured." in tiny.report()
    tiny.write(".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../remote\n")

    def refuse(*_, **__):
        raise NoCredentialsError("@octocat")

    with monkeypatch.context() as patched:
        patched.setattr("dvc.data_cloud.DataCloud.pull", refuse)
        assert "and the DVC remote did not give it (NoCredentialsError)." in tiny.report()
    assert "+Something else." in tiny.report()  # fetched
    cached.chmod(0o644)
    cached.write_text("damaged")
    assert "its copy in DVC's cache is damaged" in tiny.report()


class NoCredentialsError(Exception):
    """As botocore's: no OSError, and none of DVC's."""


def test_stages_with_one_short_name(tiny):
    again = STAGES.replace("  train:", "  check:\n    foreach: [elm]\n    do:\n      cmd: python check.py\n"
                           "      outs: [\"data/${item}.txt\"]\n  train:")
    tiny.write("dvc.yaml", again)
    tiny.write("data/elm.txt", "checked")
    report = tiny.begin().report()
    assert rows(report, "check@elm") and rows(report, "train@elm") and rows(report, "oak") and not rows(report, "elm")


def test_results_that_were_not_recorded(tiny):
    tiny.begin().scores["elm"] = [0.9, 0.93]
    tiny.run("elm", "compare")
    report = tiny.report()
    assert "not in the commit: `dvc.lock`, `metrics/elm.csv`, `metrics/elm.json`, `notebooks/elm.ipynb`." in report
    assert "differ from those that the commit's `dvc.lock` records: `elm`." in report


def test_from_a_folder_below(tiny, monkeypatch):
    tiny.begin().scores["elm"] = [0.9, 0.95]
    tiny.run("elm", "compare")
    monkeypatch.chdir(tiny.root / "notebooks")
    assert rows(tiny.report(), "elm")[0].startswith("| `elm` | ran | 0.9500 | +0.0300, better |")


def test_unknown_base_is_refused(tiny):
    with pytest.raises(UserError, match="no commit 'nowhere' to compare with"):
        tiny.begin().report("nowhere")
    with pytest.raises(UserError):
        tiny.report("--output=x")


def test_tracking_server_shows_no_secret():
    secret = "https://me:secret@host.example:8443/x.mlflow?token=secret#secret"
    assert tracking_server(secret) == "https://host.example:8443/x.mlflow"
    assert tracking_server("sqlite:///mlflow.db") == tracking_server(None) == tracking_server("http://[") == ""


@pytest.mark.parametrize(
    "given", [HOSTILE, "`", "``", "|", "\\", "\\|", "a`b``c", "\n|\n---\n", "", " ", "\u2028", "````js\n````"])
def test_code_stays_code(given):
    row = f"| a | b |\n| -- | -- |\n| {text.code(given)} | x |\n"
    page = BeautifulSoup(MarkdownIt("commonmark").enable("table").render(row), "html.parser")
    assert [len(each.find_all("td")) for each in page.find_all("tr")] == [0, 2]
    assert [child.name for child in page.find("td").contents] == ["code"]
    page = BeautifulSoup(MarkdownIt("commonmark").render(text.fence(given)), "html.parser")
    assert [child.name for child in page.contents if child.name] == ["pre"]


def test_mermaid_label_is_one_string():
    for given in (HOSTILE + '"\n    line [1]', "", "§§"):
        assert re.fullmatch(r'"[\w .,:+-]+"', text.label(given))


def test_long_curves_keep_their_ends():
    assert len(evenly(1000, 50)) == 50 and evenly(1000, 50)[-1] == 999


def test_fit_shortens_and_never_cuts():
    parts = [Part("first line."), *(Part(letter * 1000, 6, f"part {letter}", letter * 10) for letter in "abcdef")]
    made = fit(parts, 3500)
    assert len(made) <= 3500 and made.startswith("first line.")
    assert all(letter * 1000 in made or f"\n{letter * 10}\n" in made for letter in "abcdef")
    assert "- part a\n" in made
    assert len(fit([Part("first line."), *(Part("x" * 400) for _ in range(100))], 3500)) <= 3500


def page_of(tiny: Tiny) -> BeautifulSoup:
    return BeautifulSoup((tiny.root / "reports" / "changes.html").read_text(encoding="utf-8"), "html.parser")


def test_before_and_after_side_by_side(tiny):
    tiny.said = {"oak": f"It learns.\n{HOSTILE}"}
    tiny.begin().models["oak"]["rate"] = tiny.models["elm"]["rate"] = 0.5
    tiny.said, tiny.figure = {"oak": "It learns a lot."}, {"oak": "blue", "elm": "grey, elsewhere"}
    assert FIGURES["grey, elsewhere"] != FIGURES["grey"]
    tiny.run("oak", "elm", "compare")
    report = tiny.report(links={"changes": "https://ci.example/changes.html"})
    link = "[before and after, side by side](<https://ci.example/changes.html>)"
    assert report.splitlines()[2] == f"Source, outputs and figures: {link}."
    page = page_of(tiny)
    oak, elm = (page.find(id=name).parent for name in ("oak", "elm"))
    assert [each.get_text() for each in oak.find_all("h3")] == ["Cell 2, Training", "Cell 4, How good is it?"]
    assert [each.get_text() for each in oak.select(".diff ins")] == ["It learns a lot."]
    gone, *hostile = [each.get_text() for each in oak.select(".diff del")]
    assert gone == "It learns." and "<img src=x onerror=alert(1)>" in "".join(hostile)
    addresses = [image["src"].partition(",")[2] for image in oak.select(".pair img")]
    assert addresses == [FIGURES["grey"], FIGURES["blue"]] and len(oak.select(".pair input[type=radio]")) == 3
    assert not elm.select(".diff, .pair") and "nothing that a reader sees changed" in elm.get_text(), "only the file"
    assert not page.find_all(["script", "iframe", "link"])
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.find_all("img"))


def test_before_and_after_of_cells_that_came_and_went(tiny):
    tiny.begin().models["oak"]["rate"] = 0.5
    tiny.run("oak")
    path = tiny.root / "reports" / "oak.ipynb"
    made = nbformat.read(path, as_version=4)
    made.cells[1:2] = [nbformat.v4.new_code_cell("train(twice=True)", id="new")]
    tiny.write("reports/oak.ipynb", nbformat.writes(made))
    tiny.record("oak")
    tiny.report()
    found = {each.get_text(): each.find_next("pre").get_text(" ") for each in page_of(tiny).find_all("h3")}
    assert found == {"A cell of the base that is gone, Training": "train()", "Cell 2, Training": "train(twice=True)"}


def test_without_both_sides_there_is_no_page_before_and_after(tiny):
    tiny.begin()
    tiny.write("reports/changes.html", "of an earlier branch")
    assert "changes.html" not in tiny.report() and not (tiny.root / "reports" / "changes.html").exists()


@pytest.mark.parametrize(("before", "now", "said"), [
    (0.9, float("nan"), "worse"), (float("nan"), 0.9, "better"), (0.9, float("-inf"), "worse"),
    (0.9, float("inf"), "better"), (0.9, None, "not comparable"), (0.9, 0.9, "no change"),
])
def test_a_number_that_is_none_is_worse(before, now, said):
    judge = Result("compare", "compare", before={"score": before}, now={"score": now})
    facts = SimpleNamespace(project=SimpleNamespace(metric=contract.Metric("score", "max"), hook=lambda name: None))
    assert sections._tested(facts, judge).startswith(f"{said}**")


def test_the_steps_of_a_workflow_compare_with_where_the_branch_left(tiny):
    tiny.begin()
    left = tiny.git("rev-parse", "HEAD")
    tiny.git("checkout", "-q", "main")
    tiny.models["oak"]["rate"] = 0.7
    tiny.run("oak")
    moved = tiny.commit()
    tiny.git("checkout", "-q", "topic")
    root.cache_clear()
    assert workflow.left(moved) == workflow.left(left) == left
    assert workflow.left("0" * 40) == "" and workflow.left("") == ""
    assert "no base to compare with" in tiny.report("")
