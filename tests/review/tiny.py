"""A project as it is after a run, without the run; and what a review must never hold."""

import base64
import io
import json
import re
import subprocess
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from dvc.repo import Repo
from markdown_it import MarkdownIt
from PIL import Image

from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.review import render
from nbproof.review.sanitise import sanitised


def figure(colour: str) -> str:
    """Return a small picture of one colour, as a notebook holds it."""
    file = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


FIGURES = {"grey": figure("grey"), "blue": figure("blue")}
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
      outs: ["models/${key}", "models/${key}.csv", "reports/${key}.ipynb"]
      metrics: ["metrics/${key}.json": {cache: false}]
      plots: ["metrics/${key}.csv": {cache: false, x: round, y: score}]
"""
TAGS = {"p", "h3", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "details",
        "summary", "ul", "li", "strong", "a"}
HOSTILE = (
    "@octocat @org/team #1 GH-1 octo/cat#2 http://evil.test www.evil.test a@evil.test "
    "![x](https://evil.test/x.png) [y](//evil.test) <img src=x onerror=alert(1)> <!-- "
    "</details></summary> ` `` ``` ```` ~~~ | \\| a\\ ** __ $x$ :tada: &lt; \u202edetrever\u202c "
    "\u200bhidden \x1b[31mred\x1b[0m\r\x07")


class Tiny:
    """Its files are written, and DVC itself records them. `top` is the folder of git."""

    def __init__(self, folder: Path, top: Path | None = None, branch: str = "main"):
        self.root, self.branch = folder, branch
        self.models = {"oak": {"rate": 0.01, "depth": 16}, "elm": {"rate": 0.002}}
        self.scores = {"oak": [0.97, 0.98, 0.99], "elm": [0.9, 0.91, 0.92]}
        self.said, self.figure, self.source = {}, {}, "table"
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", branch, str(top or folder))
        self.write(".dvc/config", "[core]\n    analytics = false\n")
        self.write(".dvc/.gitignore", "/tmp\n/cache\n/config.local\n")
        self.write(".gitignore", "/data/\n/models/\n/reports/\n")
        self.write("project.yaml", CONTRACT)
        self.write("dvc.yaml", STAGES)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True,
                              text=True)
        return done.stdout.strip()

    def write(self, path: str, content: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).unlink(missing_ok=True)  # it may be a link into DVC's cache
        (self.root / path).write_text(content, encoding="utf-8", newline="")

    def write_json(self, path: str, value: object) -> None:
        self.write(path, json.dumps(value, indent=2) + "\n")

    def executed(self, name: str, failure: dict | None = None, last: list | None = None) -> None:
        """Write reports/NAME.ipynb: a heading, text, another heading, a figure; or `last`."""
        new = nbformat.v4
        said = f"First line.\n\n{self.said.get(name, 'It learns.')}"
        shown = new.new_output("display_data", {"text/markdown": said, "text/plain": "<Markdown>"})
        picture = new.new_output("display_data",
                                 {"image/png": FIGURES[self.figure.get(name, "grey")]})
        cells = [
            new.new_markdown_cell(f"# The {name}\n\n## Training", id="a"),
            new.new_code_cell("train()", outputs=[shown], execution_count=1, id="b"),
            new.new_markdown_cell("### How good is it?", id="c"),
            new.new_code_cell("figure = plot(history)\nassert history", outputs=last or [picture],
                              id="d"),
        ]
        metadata = {"failure": failure} if failure else {}
        made = new.new_notebook(cells=cells, metadata=metadata)
        self.write(f"reports/{name}.ipynb", nbformat.writes(made))

    def answers(self, score: float) -> str:
        """Return predictions for 1,000 cases of three classes, this share of them right."""
        wrong = round(1000 * (1 - score))
        rows = [f"{at % 3},{(at + (at < wrong)) % 3}\n" for at in range(1000)]
        return "actual,predicted\n" + "".join(rows)

    def make_model(self, name: str) -> None:
        curve = self.scores[name]
        rows = "".join(f"{at},{y}\n" for at, y in enumerate(curve, 1))
        self.write(f"models/{name}/weights.txt", f"{name} {self.models[name]} {curve}")
        self.write(f"models/{name}.csv", self.answers(curve[-1]))
        self.write(f"metrics/{name}.csv", f"round,score\n{rows}")
        self.write_json(f"metrics/{name}.json", {"score": curve[-1], "rounds": len(curve)})
        self.executed(name)

    def make_comparison(self) -> None:
        champion = max(self.scores, key=lambda name: self.scores[name][-1])
        score = self.scores[champion][-1]
        self.write_json("metrics/compare.json", {"champion": champion, "score": score})
        self.write("metrics/answers.csv", self.answers(score))
        self.executed("compare")

    def sources(self) -> None:
        # JSON is YAML
        self.write_json("params.yaml", {"data": {"source": self.source}, "models": self.models})
        self.write("features.py", f"print({self.source!r})")
        for name in ("compare", *self.models):
            made = [each.get(name) for each in (self.scores, self.said, self.figure)]
            self.write(f"notebooks/{name}.ipynb", f"{name} {made}")  # other results, other source

    def run(self, *only: str) -> None:
        """Write the results of the stages `only` (default: all), and have DVC record them."""
        self.sources()
        for name in only or ("features", *self.models, "compare"):
            if name == "features":
                self.write("data/features/one.txt", self.source)
            elif name == "compare":
                self.make_comparison()
            else:
                self.make_model(name)
        self.record(*only)

    def record(self, *only: str) -> None:
        with Repo(str(self.root)) as repo:
            names = [stage.addressing for stage in repo.index.stages
                     if stage.name.rpartition("@")[2] in only]
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
        """Leave the stage train@oak as a failed run does: no outputs but its executed copy."""
        self.begin().models["oak"]["rate"] = 9.0
        self.sources()
        for path in ("models/oak/weights.txt", "models/oak.csv", "metrics/oak.json",
                     "metrics/oak.csv"):
            (self.root / path).unlink()
        self.executed("oak", failure, last)

    def review(self, base: str | None = "main", links: dict | None = None,
               **known) -> tuple[str, BeautifulSoup]:
        """Return the comment, which is checked to be harmless, and the page."""
        root.cache_clear()
        config.load.cache_clear()
        comment, page = render.build(base, links, **known)
        assert_harmless(sanitised(comment, "https://ci.example"))
        return comment, BeautifulSoup(page, "html.parser")

    def comment(self, base: str | None = "main", **known) -> str:
        return self.review(base, **known)[0]


def rows(comment: str, name: str) -> list[str]:
    """Return the table rows whose first cell is `name`."""
    return [line for line in comment.splitlines() if line.startswith(f"| `{name}` |")]


def assert_harmless(comment: str) -> None:
    """As GitHub reads it: no HTML but folds, no image, no link but ours, nothing that acts."""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200c-\u200f\u2028-\u202e\u2066-\u2069"
                         "\ufeff]", comment)
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = BeautifulSoup(markdown.render(comment), "html.parser")
    assert {tag.name for tag in page.find_all(True)} <= TAGS
    address = re.compile(r"https://ci\.example/[a-z]+\.html(#[\w%.-]+)?")
    assert all(address.fullmatch(link["href"]) for link in page.find_all("a"))
    assert all(tag.attrs.keys() <= {"style", "class", "href"} for tag in page.find_all(True))
    for row in page.find_all("tr"):
        header = row.find_parent("table").find("tr").find_all("th")
        assert len(row.find_all(["td", "th"])) == len(header)
    for tag in page.find_all(["code", "pre"]):
        tag.decompose()
    acting = re.compile(r"@\w|#\d|GH-\d|https?://|www\.|!\[|<(?![ =\u200b])|&[a-z]+;|:\w+:|\$")
    assert not acting.search(page.get_text()), acting.search(page.get_text())
