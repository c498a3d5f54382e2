"""The comment of a pull request: its words, its limits, and what it never holds."""

import os
import re
from pathlib import Path

import nbformat

from nbproof.review.markdown import code

from .tiny import CONTRACT, HOSTILE, STAGES, Tiny, rows

LINKS = {"review": "https://ci.example/review.html", "main": "https://ci.example"}
GOLDEN = Path(__file__).parents[1] / "golden" / "one_parameter_changed.md"


def test_first_run(tiny):
    tiny.run()
    tiny.git("checkout", "-q", "--orphan", "topic")
    head = tiny.commit()
    comment = tiny.comment(None)
    assert comment.startswith("Champion `oak`, 0.9900. 4 stages, no base to compare with.\n")
    assert rows(comment, "features") == ["| `features` | ran |  |"]
    assert rows(comment, "oak") == ["| `oak` | ran | 0.9900 |"]
    assert f"git checkout {head}\nnbproof run\nnbproof report\n" in comment


def test_nothing_changed(tiny):
    comment = tiny.begin().comment()
    assert comment.startswith(
        "Same champion `oak`, 0.9900. **No model changed**. No stage has a change. The base is `"
        f"{tiny.git('rev-parse', 'main')[:8]}`.\n")
    assert "\nMetrics: as in the base.\n\nParameters: as in the base.\n" in comment
    assert "### Curves" not in comment and "### Changed outputs" not in comment


def test_one_parameter_changed(tiny):
    tiny.begin().models["oak"]["rate"] = 0.02
    tiny.scores["oak"] = [0.98, 0.985, 0.99, 0.993]
    tiny.said["oak"], tiny.figure["oak"] = "It learns faster.", "blue"
    tiny.write("Makefile", "")
    tiny.run("oak", "compare")
    tiny.commit()
    comment = tiny.comment(links=LINKS)
    for name, revision in (("{head}", "HEAD"), ("{base}", "main")):
        sha = tiny.git("rev-parse", revision)
        comment = comment.replace(sha, name).replace(sha[:8], name)
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(comment, encoding="utf-8")
    assert comment == GOLDEN.read_text(encoding="utf-8")


def test_new_model_and_removed_model(tiny):
    tiny.begin().models["wide"] = {"rate": 0.01, "depth": 512}
    tiny.scores["wide"] = [0.98, 0.995]
    del tiny.models["elm"], tiny.scores["elm"]
    tiny.run("wide", "compare")
    comment = tiny.comment()
    assert comment.startswith(
        "New champion `wide`, 0.9950, instead of `oak`, 0.9900. **It is better**, "
        "5 fewer errors of 1,000. New: `wide`, 0.9950. Removed: `elm`, 0.9200. "
        "2 of 4 stages ran again. The base is ")
    assert rows(comment, "wide")[0] == "| `wide` | ran | – | 0.9950 |  | ＋ new |"
    assert rows(comment, "elm")[0] == "| `elm` | removed | 0.9200 | – |  | − removed |"
    assert "| `elm` | `score` | 0.9200 | – |  |" in comment
    assert "| `models.wide.depth` | `None` | `512` |" in comment


def test_numbers_of_the_test_data_are_shown_on_main_alone(tiny):
    tiny.begin().models["oak"]["rate"] = 0.02
    tiny.scores["oak"] = [0.98, 0.995]
    tiny.run("oak")
    tiny.write_json("metrics/compare.json",
                    {"champion": "oak", "score": 0.995, "test_score": 0.9876})
    shown = nbformat.read(tiny.root / "reports/compare.ipynb", as_version=4)
    for source, tags in (("store(test_score)", []), ("show(result)", ["test"])):
        output = nbformat.v4.new_output("stream", text="98.76 % on the test data")
        shown.cells.append(nbformat.v4.new_code_cell(source, outputs=[output],
                                                     metadata={"tags": tags}))
    tiny.write("reports/compare.ipynb", nbformat.writes(shown))
    tiny.record("compare")
    comment, page = tiny.review()
    assert not re.search(r"98\.?76", comment + page.get_text())
    assert page.get_text().count("Numbers of the test data are shown") >= 2
    comment, page = tiny.review(is_main=True)
    assert "`test_score` 0.9876." in comment.splitlines()[0] and "98.76 %" in page.get_text()


def test_data_that_changed_is_named(tiny):
    tiny.begin().source = "other"
    tiny.run()
    comment = tiny.comment()
    assert ("The data changed, so no model is called better or worse. 3 of 4 stages ran again. "
            "Data: `other` (before: `table`).") in comment.splitlines()[0]


def test_without_a_metric_the_numbers_that_changed_are_open(tiny):
    tiny.write("project.yaml", "name: tiny\n")
    tiny.begin().scores["elm"] = [0.9, 0.8]
    tiny.run("elm", "compare")
    comment = tiny.comment()
    assert "\n| stage | status |\n| :-- | :-- |\n| `compare` | ran |\n" in comment
    assert "\nMetrics: 2 changes\n\n| stage | metric | base | branch | change |\n" in comment
    assert "<summary>Metrics" not in comment and "<summary>Parameters" not in comment


def test_one_notebook_for_many_values_is_one_table(tiny):
    values = ["0.1", "1", "10"]
    for side in ("base", "branch"):
        tiny.write("dvc.yaml", f"{STAGES}  svm:\n    foreach: {values}\n    do:\n".replace("'", "")
                   + "      cmd: nbproof stage C=${item}\n      deps: [notebooks/svm.ipynb]\n"
                     "      outs: [\"reports/svm@${item}.ipynb\"]\n"
                     "      metrics: [\"metrics/svm@${item}.json\": {cache: false}]\n")
        tiny.write("notebooks/svm.ipynb", side)
        for value in values:
            tiny.write_json(f"metrics/svm@{value}.json",
                            {"score": 0.5 + len(value) / 10 + 0.1 * (side == "branch")})
            tiny.executed(f"svm@{value}")
        if side == "base":
            tiny.begin()
            values.remove("10")
    tiny.record("0.1", "1")
    table = tiny.comment().partition("\n`svm` for 3 values:\n\n")[2].split("\n\n")[0]
    assert table.splitlines()[2:] == [
        "| `svm@0.1` | ran | 0.8000 | 0.9000 | +0.1000 | ▲ better |",
        "| `svm@1` | ran | 0.6000 | 0.7000 | +0.1000 | ▲ better |",
        "| `svm@10` | removed | 0.7000 | – |  | − removed |"]


def test_what_the_hook_says_is_text_and_once(tiny):
    tiny.write("project.yaml", CONTRACT + "hooks: {better: judge:better}\n")
    tiny.write("notebooks/judge.py", "def better(new, old):\n"
               "    raise ValueError('p < 0.05 by @octocat, see http://evil.test (#1)')\n")
    tiny.begin().scores.update(oak=[0.98], elm=[0.95])
    tiny.run("oak", "elm", "compare")
    comment, page = tiny.review()
    assert ("\n`elm`, `oak`: The project's hook better failed: ValueError: p < 0.05 by @octocat, "
            "see http://evil.test (#1)\n") in comment
    assert page.get_text().count("The project's hook better failed") == 1


def test_failed_cell(tiny):
    lines = "".join(f"step {step} \x1b[31mloss nan\x1b[0m\n" for step in range(30))
    printed = nbformat.v4.new_output("stream", name="stdout", text=lines)
    error = nbformat.v4.new_output("error", ename="AssertionError", evalue="too low", traceback=[])
    tiny.fail({"cell": 4, "error": "AssertionError", "reason": "too low"}, [printed, error])
    comment, page = tiny.review(links=LINKS)
    assert comment.startswith("**`oak` failed at cell 4**. Not run: `compare`. "
                              "No new champion (before: `oak`, 0.9900). The base is ")
    assert rows(comment, "oak")[0].startswith(
        "| `oak` | **failed at cell 4** | 0.9900 | – |  |  | [open]")
    assert rows(comment, "compare") == [
        "| `compare` | not run: needs `oak` | `oak` 0.9900 | – |  |  |  |"]
    assert "```text\nAssertionError: too low\n```\n\nThe cell begins:\n\n```python\n" in comment
    assert "```text\n… 10 more lines\nstep 10 loss nan\n" in comment
    assert "Metrics of the stages with a result: as in the base." in comment
    assert "Failed at cell 4." in page.find(id="oak").get_text()


def test_failed_command(tiny):
    tiny.begin().write("features.py", "raise SystemExit(1)")
    (tiny.root / "data/features/one.txt").unlink()  # DVC takes outputs away first
    outcome = "features: no such table\nFailed: features. Not run: elm, oak, compare.\n"
    comment = tiny.comment(outcome=outcome)
    assert comment.startswith("**`features` failed**. Not run: `compare`, `oak`, `elm`. ")
    assert "### The last lines of the run\n\n```text\nfeatures: no such table\n" in comment
    assert "| not run |" in rows(tiny.comment(), "features")[0]


def test_hostile_text(tiny):
    tiny.begin()
    tiny.write("project.yaml", CONTRACT.replace("score", f"'{HOSTILE[:60]}'"))
    tiny.models["oak"] = {"rate": HOSTILE, HOSTILE.replace("$", "").replace("{", ""): "x"}
    tiny.said["oak"] = f"{HOSTILE}\n```\n</details>\n\n@octocat\n# big\n~~~\n``````\n"
    tiny.figure["oak"] = "blue"
    tiny.run("oak", "compare")
    tiny.write_json("metrics/oak.json", {HOSTILE[:60]: HOSTILE, HOSTILE: 10**20, "huge": 1e308})
    tiny.write_json("metrics/compare.json", {"champion": HOSTILE, HOSTILE[:60]: "`"})
    tiny.write("metrics/oak.csv", f'round,score\n"{HOSTILE.replace(chr(34), "")}",1\n"x",2\n')
    notebook = nbformat.read(tiny.root / "reports/oak.ipynb", 4)
    notebook.cells[2].source = f"## {HOSTILE.split('<!--')[0]}"
    tiny.write("reports/oak.ipynb", nbformat.writes(notebook))
    tiny.record("oak", "compare")
    comment, page = tiny.review(links=LINKS)
    assert "+@octocat @org/team #1 GH-1" in comment
    assert not page.find_all(["script", "iframe", "link", "object"])
    assert not [key for tag in page.find_all(True) for key in tag.attrs if key.startswith("on")]
    assert all(tag["src"].startswith("data:image/") for tag in page.find_all(src=True))


def test_hostile_failure(tiny):
    error = nbformat.v4.new_output("error", ename=HOSTILE, evalue=HOSTILE, traceback=[HOSTILE])
    printed = nbformat.v4.new_output("stream", name="stdout", text=HOSTILE * 100)
    tiny.fail({"cell": 4, "error": HOSTILE, "reason": HOSTILE}, [printed, error])
    assert "**failed at cell 4**" in tiny.comment(outcome=HOSTILE)


def test_a_pipeline_that_cannot_be_read_gives_a_comment(tiny):
    tiny.begin().write("dvc.yaml", "stages: [")
    comment = tiny.comment(outcome="params.yaml: models.oak.rate must be float, found 'fast'.\n")
    assert comment.startswith("**The pipeline could not be read**.")
    assert "must be float" in comment


def test_a_project_below_git_s_root_on_master(tmp_path, monkeypatch, inside):
    """The base is found there, from a folder below as well, and files have the project's names.

    It has no comparison."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    project = Tiny(tmp_path / "a" / "b", tmp_path, "master")
    project.write("project.yaml", CONTRACT.replace("compare: compare\n", ""))
    inside(project.root)
    project.begin().models["elm"]["rate"] = 0.5
    project.scores["elm"] = [0.9, 0.95]
    project.said["elm"] = "It learns more."
    project.run("elm", "compare")
    monkeypatch.chdir(project.root / "notebooks")
    comment = project.comment(None)
    assert comment.startswith("**`elm` is better**: 0.9200 → 0.9500, 30 fewer errors of 1,000. "
                              "2 of 4 stages ran again. The base is ")
    assert "+It learns more." in comment and code("models.elm.rate") in comment
    assert "in the commit: `dvc.lock`, `metrics/elm.csv`, " in comment
