"""The comment: a review as Markdown. The poster makes it harmless and cuts it to GitHub's limit."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from nbproof.pipeline.numbers import change, count, is_of_test
from nbproof.pipeline.verdict import MARKS, Verdict
from nbproof.review import page, plots
from nbproof.review.collect import Facts, StageResult, collect, judge
from nbproof.review.markdown import code, fence, label, line, summary, value
from nbproof.review.page import Drawn


def build(revision: str | None = None, links: dict | None = None, run: str = "",
          **known) -> tuple[str, str]:
    """Return the comment and the page of a review; see `comment`, and for the rest `collect`."""
    facts = collect(revision, **known)
    verdict, drawn = judge(facts), page.draw(facts)
    html = page.render(facts, verdict, drawn, (links or {}).get("main", ""))
    return comment(facts, verdict, drawn, links or {}, run), html


def comment(facts: Facts, verdict: Verdict, drawn: Drawn, links: dict, run: str = "") -> str:
    """Return the comment.

    `links` are addresses: `review` of the uploaded page, `try` of one that asks the model, `main`
    of the folder with the default branch's pages; `run` is the id of the workflow's run.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")),
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "code": code, "fence": fence, "summary": summary, "value": value, "count": count,
        "label": label, "short": plots.short, "is_of_test": is_of_test,
        "one_line": lambda text: " ".join(text.split())}
    curves = [(each.name, curve) for each in facts.results for curve in each.curves
              if not curve["is_same"]]
    groups: dict[str, list[StageResult]] = {"": []}  # a table for each
    for each in facts.results:
        groups.setdefault(each.group, []).append(each)
    return environment.get_template("comment.md.j2").render(
        **{status.replace(" ", "_"): [each for each in facts.results if each.status == status]
           for status in ("failed", "not run", "ran", "removed")},
        curves=sorted(curves, key=lambda curve: curve[0] != verdict.now.champion),
        groups=groups, outputs=_outputs(facts, drawn), tables=_changes(facts), facts=facts,
        verdict=verdict, sentence=verdict.sentence(code, lambda text: f"**{text}**"),
        key=facts.project.metric.key, links=links, run=run, change=change, marks=MARKS,
        notes=_notes(facts, verdict),
        command="make" if (facts.project.root / "Makefile").is_file() else "nbproof")


def _changes(facts: Facts) -> list[tuple]:
    """Return the tables of metrics and parameters that are not those of the base."""
    metrics = [[code(each.name), code(key), *map(value, pair), change(*pair)]
               for each in facts.results if each.is_current or each.status == "removed"
               for key in {**each.metrics[0], **each.metrics[1]}
               if facts.is_main or not is_of_test(key)
               for pair in [[side.get(key) for side in each.metrics]]
               if repr(pair[0]) != repr(pair[1])]  # NaN is not equal to itself
    params = [[code(key), *map(code, pair)] for key, pair in facts.params.items()]
    first = ", ".join(f"{summary(key, 60)} {summary(old, 40)} → {summary(new, 40)}"
                      for key, (old, new) in facts.params.items()) if len(params) <= 3 else ""
    return [("Metrics", "", ["stage", "metric", "base", "branch", "change"], metrics),
            ("Parameters", first, ["parameter", "base", "branch"], params)]


def _outputs(facts: Facts, drawn: Drawn) -> list[tuple[StageResult, str, int]]:
    """Return for each notebook that ran again a diff of what it shows, and its changed lines."""
    hunks = [(each, [line for cell in drawn.diffs[each.page] for line in cell.hunk])
             for each in facts.results if each.page in drawn.diffs]
    return [(each, "\n".join(hunk), sum(line[0] in "+-!" for line in hunk))
            for each, hunk in hunks]


def _notes(facts: Facts, verdict: Verdict) -> list[str]:
    """Return what a reader should know about the numbers, the hook's words too."""
    notes = [line(facts.trouble, 400)] if facts.trouble else []
    models: dict[str, list[str]] = {}  # by what the hook says: it can fail for all in one way
    for judged in verdict.judgements:
        models.setdefault(judged.why, []).append(code(judged.name))
    notes += [f"{', '.join(names)}: {line(why, 400)}" for why, names in models.items() if why][:5]
    if unseen := [code(each.name) for each in facts.results if each.is_unseen]:
        notes.append(f"The base's outputs of {', '.join(unseen[:10])} are not in DVC's cache here, "
                     "so they are not compared: `dvc fetch --all-commits` brings what is kept.")
    return notes
