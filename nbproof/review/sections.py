"""The report's sections, made of parts that can be left out, and what makes the whole fit into a GitHub comment."""

import contextlib
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from nbproof.review import plots
from nbproof.review.facts import Facts, Result
from nbproof.review.plots import Plot
from nbproof.review.markdown import (
    change,
    code,
    count,
    decimal,
    fence,
    fold,
    is_number,
    link,
    plain,
    shown,
    summary,
    table,
)

LIMIT = 64_000  # GitHub takes 65,536 characters in a comment; the rest is for what a poster adds
UNFOLDED = 3  # charts that are shown without a click
TRY = "try-"  # begins the names of pages that ask a model
STATUSES = ("ran", "unchanged", "failed", "not run", "removed")


@dataclass
class Part:
    """A block of Markdown. Where all does not fit, parts of a high `rank` become `short` first; `what` names them."""

    text: str
    rank: int = 0
    what: str = ""
    short: str = ""


def fit(parts: list[Part], limit: int = LIMIT) -> str:
    """The parts as one text of at most `limit` characters; what was left out for it is said at the end."""
    left_out: list[str] = []
    for part in sorted((each for each in parts if each.what), key=lambda each: (-each.rank, -len(each.text))):
        if len(_joined(parts, left_out)) > limit:
            part.text = part.short
            left_out.append(part.what)
    while len(_joined(parts, left_out)) > limit and len(parts) > 2:
        parts, left_out = [*parts[:-2], parts[-1]], ["sections before the last", *left_out]
    return _joined(parts, left_out)


def _joined(parts: list[Part], left_out: list[str]) -> str:
    listed = [f"- {each}" for each in dict.fromkeys(left_out)]
    listed[10:] = [f"- and {len(listed) - 10} more of these kinds"] if len(listed) > 10 else []
    why = ["To stay under GitHub's limit this report leaves out, in whole or in part:", "\n".join(listed)]
    return "\n\n".join([*(each.text for each in parts if each.text), *(why if listed else [])]) + "\n"


def headline(facts: Facts, final: bool = False) -> Part:
    """One line whose first words decide; `final` (main itself) adds the numbers of the test data."""
    names = {status: [each.name for each in facts.results if each.status == status] for status in STATUSES}
    failed = [f"**{_failed(each)}**" for each in facts.results if each.status == "failed"]
    said = [*failed[:3], f"**{len(failed) - 3} more failed**" if len(failed) > 3 else ""]
    said += [f"not run: {_names(names['not run'])}"] if names["not run"] else []
    said += [_champion(facts) if facts.results else "**the pipeline could not be read**"]
    number, ran = count(len(facts.results) - len(names["removed"]), "stage"), len(names["ran"])
    if not facts.base and facts.results:
        said.append(f"{number}, no base to compare with")
    elif ran or not facts.failed:
        said.append(f"{ran} of {number} ran again" if ran else "no stage has a change")
    new = [each.name for each in facts.results if each.new]
    said += [f"{kind}: {_names(which)}" for kind, which in (("new", new), ("removed", names["removed"])) if which]
    if facts.project.data in facts.params:
        before, now = map(shown, facts.params[facts.project.data])
        said.append(f"data: {now} (the base's: {before})")
    tested = {key: value for key, value in (facts.comparison or Result("", "")).now.items() if _of_test(key)}
    if final and tested:
        said.append(", ".join(f"{code(key)} {decimal(value)}" for key, value in tested.items())
                    + " (shown on main alone: to look in each review would wear the test data out)")
    return Part("; ".join(filter(None, said)) + ".")


def _of_test(key: str) -> bool:
    """Whether a number is of the test data: by its name, as docs/contract.md has it."""
    return key.rpartition(".")[2].startswith("test_")


def _failed(each: Result) -> str:
    if not each.failure:
        return f"{code(each.name)} failed"
    return f"failed at cell {each.failure['cell']} of {code(f'{each.page}.ipynb')}"


def _names(names: list[str], most: int = 3) -> str:
    return ", ".join(map(code, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _champion(facts: Facts) -> str:
    """What the change did to the champion, the verdict first."""
    judge, key = facts.comparison or Result("", ""), facts.project.metric.key
    now, before = judge.now.get("champion"), judge.before.get("champion")
    new, old = decimal(judge.now.get(key)), decimal(judge.before.get(key))
    if now is None:
        return f"no new champion (the base's: {code(before)} {old})" if before is not None else ""
    if before is None:
        return f"champion {code(now)} {new}"
    numbers = f"champion {code(before)} {old}"
    if (now, new) != (before, old):
        numbers += f" → {f'{code(now)} ' if now != before else ''}{new}"
    ran = any(each.status in ("ran", "removed") for each in facts.results)
    if judge.now == judge.before or judge.alike:
        return f"**{'same champion' if ran else 'nothing changed'}**: {numbers}"
    return f"**{_tested(facts, judge)}: {numbers}"


def _tested(facts: Facts, judge: Result) -> str:
    """The verdict on the champion, with the end of its bold type: the project's hook decides, else the metric."""
    key = facts.project.metric.key
    plot = next((plot for plot in judge.plots if plot.is_answers), None)
    new, old = (plot.answers(plot.now), plot.answers(plot.before)) if plot else ([], [])
    if new and old and [each["actual"] for each in new] != [each["actual"] for each in old]:
        return "not comparable** (other cases than the base's)"
    said = _asked(facts, new, old) if new and old else None
    if said is None or "failed" in said:
        before, now = judge.before.get(key), judge.now.get(key)
        if not (_is_measured(before) and _is_measured(now)):
            return f"not comparable** ({code(key)} is a number on one side alone)"
        return f"{_direction(facts, key, before, now)[2:] or 'no change'}**"
    back = {} if said["better"] else _asked(facts, old, new)
    verdict = "better" if said["better"] else "worse" if back.get("better") else "no detectable change"
    right = sum(each["predicted"] == each["actual"] for each in new) - sum(
        each["predicted"] == each["actual"] for each in old)
    some = [f"{right:+,} of {count(len(new), 'case')}"] if plot.template == "confusion" else []
    some += [f"p {float(said['p']):.2g}"] if said.get("p") is not None else []
    return f"{verdict}**" + (f" ({', '.join(some)})" if some else "")


def _asked(facts: Facts, new: list[dict], old: list[dict]) -> dict | None:
    """What the project's hook `better` says of answers to the same cases; None without a hook, `failed` in it: why."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the report itself may go to the terminal
            if not (hook := facts.project.hook("better")):
                return None
            said = hook(new, old)
        return {"better": bool(said["better"]), "why": str(said["why"]),
                "p": None if said.get("p") is None else float(said["p"])}
    except (Exception, SystemExit) as error:  # a project's code raises what it likes; the report goes on
        return {"better": False, "failed": f"{type(error).__name__}: {error}"}


def _verdict(facts: Facts, key: str, before: object, now: object) -> str:
    """Whether a change is for the better, of the metric that counts where no hook decides; nothing of others."""
    return "" if facts.project.hooks.get("better") else _direction(facts, key, before, now)


def _direction(facts: Facts, key: str, before: object, now: object) -> str:
    metric = facts.project.metric
    if key != metric.key or not (_is_measured(before) and _is_measured(now)):
        return ""
    return ", better" if metric.better(now, before) else ", worse" if metric.better(before, now) else ""


def _is_measured(value: object) -> bool:
    """Whether `value` can be better or worse than another: a number, also one that is infinite or none (NaN)."""
    return is_number(value) or isinstance(value, float)


def side_by_side(facts: Facts, links: dict) -> list[Part]:
    """Where the page before and after is, if a notebook has both sides; main's pages; the pages that ask a model."""
    of_main = link("pages of the default branch", links.get("main"))
    asked = [link(name.removeprefix(TRY), links[name]) for name in sorted(links) if name.startswith(TRY)]
    tried = [Part(f"Ask the model in your browser: {', '.join(asked)}.")] if asked else []
    if any(each.pair for each in facts.results):
        page = link("before and after, side by side", links.get("changes")) or code("reports/changes.html")
        return [Part(f"Source, outputs and figures: {page}{f'; {of_main}' if of_main else ''}."), *tried]
    return [*([Part(f"To compare with: {of_main}.")] if of_main else []), *tried]


def stages(facts: Facts, links: dict) -> Part:
    """A row per stage."""
    header = ["stage", "status", code(facts.project.metric.key, 40), "change", "page"]
    full = table(header, [_row(facts, each, links) for each in facts.results], "llrrl") if facts.results else ""
    tally = ", ".join(f"{sum(each.status == status for each in facts.results)} {status}" for status in STATUSES)
    return Part(full, 1, "the table of stages: in `dvc.lock`", f"Stages: {tally}.")


def _row(facts: Facts, each: Result, links: dict) -> list[str]:
    cell = f" at cell {each.failure['cell']}" if each.failure else ""
    status = f"**failed{cell}**" if each.status == "failed" else each.status
    if each.status == "not run":
        status += f": needs {_names(each.blocked)}" if each.blocked else f": {each.why}"
    status += f"{', same results' if each.same_outputs else ''}{', new' if each.new else ''}"
    key = facts.project.metric.key
    before, now = each.before.get(key), each.now.get(key)
    measured = decimal(now) if now is not None else "–" if key in each.before else ""
    if measured and each is facts.comparison and each.now.get("champion"):
        measured = f"{code(each.now['champion'])} {measured}"
    page = link("open", links.get(each.page)) or code(f"reports/{each.page}.html")
    return [code(each.name), status, measured, change(before, now) + _verdict(facts, key, before, now),
            page if each.page and each.status != "not run" else ""]


def failures(facts: Facts, outcome: str) -> list[Part]:
    """What stopped the pipeline, in words that can be acted on."""
    found = []
    for each in (each for each in facts.results if each.failure):
        error, printed = "{error}: {reason}".format_map(each.failure), each.failure["printed"]
        last = f"Its last lines of output:\n\n{fence(printed, lines=20, keep='last')}"
        head = f"### {code(each.name)} failed at cell {each.failure['cell']}\n\n{fence(error, lines=10, width=1000)}"
        body = f"The cell begins:\n\n{fence(each.failure['source'], 'python', lines=8)}"
        body += f"\n\n{last if printed.strip() else 'It had printed nothing.'}"
        where = f"the failure of {code(each.name)}: in {code(f'reports/{each.page}.html')}"
        found.append(Part(f"{head}\n\n{body}", 2, where, head))
    more = len(found) - 10
    found[10:] = [Part(f"{more} more notebooks failed; their pages show where.")] if more > 0 else []
    unexplained = any(each.status == "failed" and not each.failure for each in facts.results)
    if facts.failed and (unexplained or not found) and outcome.strip():
        last = fence(outcome, lines=20, keep="last")
        found.append(Part(f"### The last lines of the run\n\n{last}", 2, "the last lines of the run: in the job's log"))
    return found + [Part(code(each, 400)) for each in facts.troubles[:5]]


def differences(facts: Facts) -> list[Part]:
    """Metrics and parameters that are not those of the base, each in a fold."""
    metrics = [[code(path), code(key), shown(before), shown(now),
                change(before, now, ".4g") + _verdict(facts, key, before, now)]
               for path, values in sorted(facts.metrics.items()) for key, (before, now) in values.items()
               if before != now and not _of_test(key)]
    params = [[code(key), shown(before), shown(now)] for key, (before, now) in facts.params.items()]
    few = len(params) <= 3 and not any(None in pair for pair in facts.params.values())
    in_short = [f"{summary(key, 60)} {summary(before, 40)} → {summary(now, 40)}"
                for key, (before, now) in facts.params.items()] if few else []
    found = []
    for title, rows, said, header, align in (
        ("Metrics", metrics, [], ["file", "metric", "base", "branch", "change"], "llrrr"),
        ("Parameters", params, in_short, ["parameter", "base", "branch"], "lll"),
    ):
        some = " of the stages with a result" if facts.failed and title == "Metrics" else ""
        said = f"{title}: {', '.join(said) or count(len(rows), 'row') + ' changed against the base'}"
        body = fold(said, table(header, rows, align)) if rows else f"{title}{some}: as in the base."
        found.append(Part(body, 3, f"the table of {title.lower()}", f"{said}.") if rows else Part(body))
    return found if facts.base else []


def curves(facts: Facts) -> list[Part]:
    """The curves that changed, the champion's first."""
    champion = facts.comparison.now.get("champion") if facts.comparison else None
    found = [(each, plot) for each in facts.results if each.status == "ran"
             for plot in each.plots if not plot.is_answers and not plot.now.equals(plot.before)]
    found.sort(key=lambda pair: champion not in (pair[0].name, pair[0].page))
    legend = "\n\nBlue is this branch, grey the base. Where one curve is shorter, its line goes on flat."
    return [Part(f"### Curves{legend if facts.base else ''}"),
            *(_curve(each, plot, place) for place, (each, plot) in enumerate(found))] if found else []


def _curve(each: Result, plot: Plot, place: int) -> Part:
    found, name, file, x = plot.curves(), code(each.name), code(plot.path), code(plot.x, 40)
    if found.empty:
        why = f"{name}: no curve, {code(plot.y)} is not a finite number in every row of {file}."
        return Part(why, 5, f"a note on {name}: in {file}")
    sides = [found[side].dropna() for side in reversed(found.columns)]
    ends = [f"{decimal(side.iloc[-1])} at {x} {plots.place(side.index[-1])}" for side in sides]
    least = f"{name}: {code(plot.y, 40)} {', in the base '.join(ends)}."
    drawn = plots.chart(each.name, plot.x, plot.y, found)
    if drawn and place >= UNFOLDED:
        drawn = fold(f"{summary(each.name)} as a chart", drawn)
    listed = fold(f"{summary(each.name)} by {summary(plot.x, 40)}", plots.curve_table(plot.x, found))
    text = "\n\n".join(filter(None, [least, drawn, listed]))
    return Part(text, 5 if place else 4, f"the curve of {name}: in {file}", least)


def answers(facts: Facts) -> list[Part]:
    """Confusion and regression where dvc.yaml plots them; of the champion's answers what the project says of them."""
    found = [_answers(facts, each, plot) for each in facts.results for plot in each.plots
             if plot.is_answers and (each is facts.comparison or each.status == "ran")]
    return [Part("### Answers"), *found] if found else []


def _answers(facts: Facts, each: Result, plot: Plot) -> Part:
    given, judge = plot.answers(plot.now), each is facts.comparison
    champion = each.now.get("champion") if judge else None
    whose = f"the champion, {summary(champion)}" if champion else summary(each.name)
    title, drawn = f"Confusion matrix of {whose}", plots.confusion(given) if given else ""
    if plot.template == "scatter":
        title, drawn = f"Predicted and true values of {whose}", plots.regression(champion or each.name, given, plot)
    why = f"{code(plot.path)} does not hold {' and '.join(map(code, plot.columns))} as dvc.yaml plots them."
    said = _judgement(facts, given, plot.answers(plot.before)) if judge and facts.base else ""
    text = "\n\n".join(filter(None, [said, fold(title, drawn) if drawn else why]))
    return Part(text, 4, f"the answers of {code(each.name)}: in {code(plot.path)}", said)


def _judgement(facts: Facts, new: list[dict], old: list[dict]) -> str:
    """What the project's hook says of the branch's answers against the base's; asked about the same cases only."""
    if not new or new == old or [each["actual"] for each in new] != [each["actual"] for each in old]:
        return ""
    said = _asked(facts, new, old)
    if said and "failed" in said:
        return f"The project's hook `better` failed: {code(said['failed'], 300)}."
    same = f"The project's own test, on the same {count(len(new), 'case')}"
    return f"{same}: {code(said['why'].rstrip('.'), 400)}." if said else ""


def changed_outputs(facts: Facts) -> list[Part]:
    """For each notebook that ran again, what a reader of its page would see changed."""
    found, same, unseen = [], [], {}
    for each in (each for each in facts.results if each.status == "ran" and each.page and facts.base and not each.new):
        page, name = code(f"reports/{each.page}.html"), code(each.name)
        if each.unseen:
            unseen.setdefault(each.unseen, []).append(each.name)
        elif each.changes:
            title = f"{summary(each.name)}: {count(sum(line[0] in '+-' for line in each.changes), 'line')} changed"
            body = fold(title, fence("\n".join(each.changes), "diff", 120))
            found.append(Part(body, 6, f"changed outputs of {name}: in {page}", f"{title}."))
        else:
            same.append(each.name)
    for why, names in unseen.items():
        found.append(Part(f"{_names(names, 10)}: outputs could not be compared with the base's: {why}.", 6, "a note"))
    found += [Part(f"Same outputs as in the base: {_names(same, 10)}.")] if same else []
    return [Part("### Changed outputs"), *found] if found else []


def elsewhere(facts: Facts) -> list[Part]:
    """Numbers that are another machine's and not this change's, and what the DVC remote did not give."""
    alike = [each.name for each in facts.results if each.alike and each.name in facts.differing]
    said = [f"{_names(alike, 10)} ran again here with the base's code, data and parameters, and gave other bytes: "
            "another machine's arithmetic. The base's numbers are shown."] if alike else []
    return [Part(each) for each in [*said, code(facts.pulled, 400) if facts.pulled else ""] if each]


def reproduce(facts: Facts, tracking: str, run: str = "") -> Part:
    """Commit, commands, the tracking server if there is one, and how the results of the workflow `run` are taken."""
    made = (facts.project.root / "Makefile").is_file()
    base = f" {'BASE=' if made else '--base '}{facts.base}" if facts.base else ""
    command = "make" if made else "nbproof"
    said = [f"### Reproduce\n\n```sh\ngit checkout {facts.head}\n{command} run\n{command} report{base}\n```"]
    for why, names in (("This folder has changes that are not in the commit", facts.uncommitted),
                       ("The results differ from those that the commit's `dvc.lock` records", facts.differing)):
        said += [f"{why}: {_names(names, 10)}."] if names else []
    if run and facts.differing and not facts.failed:
        said.append(f"`nbproof github take {run}` brings them into a checkout of the branch, to be committed.")
    if server := tracking_server(tracking):
        tag = f"tags.`mlflow.source.git.commit` = '{facts.head}'"
        said.append(f"MLflow at {code(server, 200)}, runs with {code(tag, 200)}.")
    return Part("\n\n".join(said))


def tracking_server(uri: str | None) -> str:
    """An http address without user, password, query and fragment, any of which may be secret; else nothing."""
    try:
        parts = urlsplit(plain(uri or ""))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    web = parts.scheme in ("http", "https") and parts.hostname
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if web else ""
