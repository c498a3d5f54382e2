"""The comment: a review as Markdown that is safe to post on GitHub and keeps to its limits."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from nbproof.pipeline.numbers import change, count, is_of_test
from nbproof.pipeline.verdict import MARKS, Verdict
from nbproof.review import page, plots
from nbproof.review.collect import Facts, StageResult, collect, judge
from nbproof.review.markdown import code, fence, label, link, prose, summary, value
from nbproof.review.page import Drawn

LIMIT = 64_000  # GitHub takes 65,536 characters in a comment; the rest is for what a poster adds
# How much is shown of each kind. Where the comment is too long, the next level is tried.
LEVELS = (
    {"rows": 500, "lines": 120, "charts": 3, "failures": 10, "width": 1000, "names": ""},
    {"rows": 500, "lines": 20, "charts": 1, "failures": 3, "width": 300,
     "names": "changed outputs, curves"},
    {"rows": 50, "lines": 0, "charts": 0, "failures": 1, "width": 100,
     "names": "changed outputs, curves, failures, metrics, parameters, stages"},
)


def build(revision: str | None = None, links: dict | None = None, run: str = "",
          **known) -> tuple[str, str]:
    """Return the comment and the page of a review; see `comment`, and for the rest `collect`."""
    facts = collect(revision, **known)
    verdict, drawn = judge(facts), page.draw(facts)
    html = page.render(facts, verdict, drawn, (links or {}).get("main", ""))
    return comment(facts, verdict, drawn, links or {}, run), html


def comment(facts: Facts, verdict: Verdict, drawn: Drawn, links: dict, run: str = "") -> str:
    """Return the comment, at most LIMIT characters long.

    `links` are https addresses: `review` of the uploaded page, `try` of one that asks the model,
    `main` of the folder with the default branch's pages; `run` is the id of the workflow's run.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).with_name("templates")),
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "code": code, "fence": fence, "summary": summary, "value": value, "count": count,
        "label": label, "short": plots.short, "is_of_test": is_of_test,
        "link": lambda url, text: link(text, url), "one_line": lambda text: " ".join(text.split())}
    template = environment.get_template("comment.md.j2")
    key, has_make = facts.project.metric.key, (facts.project.root / "Makefile").is_file()
    values = {
        **_stages(facts), **_outputs(facts, drawn), "tables": _changes(facts),
        "groups": _groups(facts), "key": key, "measures": bool(key), "has_page": "review" in links,
        "compares": bool(key and facts.base),
        "curves": sorted(
            ((each.name, drawn) for each in facts.results for drawn in each.curves
             if not drawn["is_same"]), key=lambda curve: curve[0] != verdict.now.champion),
        "facts": facts, "verdict": verdict, "links": links, "run": run, "change": change,
        "marks": MARKS, "notes": _notes(facts, verdict),
        "sentence": verdict.sentence(code, lambda text: f"**{text}**"),
        "command": "make" if has_make else "nbproof"}
    for most in LEVELS:
        text = template.render(most=most, **values)
        if len(text) <= LIMIT:
            break
    return text if len(text) <= LIMIT else text[:LIMIT].rpartition("\n")[0]


def _stages(facts: Facts) -> dict:
    """Return the stages by their status, and the run's last lines where they alone explain it."""
    by_status = {status: [each for each in facts.results if each.status == status]
                 for status in ("failed", "not run", "ran", "removed")}
    failed, not_run = by_status["failed"], by_status["not run"]
    is_explained = failed and all(each.failure for each in failed)
    has_failed = failed or not_run or not facts.results
    return {"failed": failed, "not_run": not_run, "ran": by_status["ran"],
            "stages": len(facts.results) - len(by_status["removed"]),
            "log": facts.outcome.strip() if has_failed and not is_explained else ""}


def _groups(facts: Facts) -> dict[str, list[StageResult]]:
    """Return the stages of each table: one for each notebook that measures the metric for many
    values, by the stage's name without a value, and first, by "", one for all others."""
    key = facts.project.metric.key
    many = {each.page.partition("@")[0] for each in facts.results if "@" in each.page
            and (not key or any(key in side for side in each.metrics))}
    groups: dict[str, list[StageResult]] = {"": []}
    for each in facts.results:
        name = each.stage.partition("@")[0]
        groups.setdefault(name if name in many else "", []).append(each)
    return {name: group for name, group in groups.items() if group}


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


def _outputs(facts: Facts, drawn: Drawn) -> dict:
    """Return the changed lines of each notebook that ran again, and which have none."""
    hunks = {each.page: [line for cell in drawn.diffs[each.page] for line in cell.hunk]
             for each in facts.results if each.page in drawn.diffs}
    changed = [(each, "\n".join(hunk), sum(line[0] in "+-!" for line in hunk))
               for each in facts.results if (hunk := hunks.get(each.page))]
    same = [each.name for each in facts.results if hunks.get(each.page) == []]
    return {"changed": changed, "same": same}


def _notes(facts: Facts, verdict: Verdict) -> list[str]:
    """Return what a reader should know about the numbers, the hook's words too."""
    notes = [prose(note) for note in (facts.trouble, facts.pulled) if note]
    models: dict[str, list[str]] = {}  # by what the hook says: it can fail for all in one way
    for judged in verdict.judgements:
        models.setdefault(judged.why, []).append(code(judged.name))
    notes += [f"{', '.join(names)}: {prose(why)}" for why, names in models.items() if why][:5]
    if unseen := [code(each.name) for each in facts.results if each.is_unseen]:
        notes.append(f"The base's outputs of {', '.join(unseen[:10])} are not in DVC's cache here, "
                     "so they are not compared: `dvc fetch --all-commits` brings what is kept.")
    return notes
