"""The report's sections. Each gives itself in several lengths, the fullest first, so that the whole can be made to fit."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.report import curves
from pipeline.report.facts import METRIC, Facts, Notebook
from pipeline.report.safe import code, fence, line, link, plain, summary
from pipeline.report.tables import change, count, decimal, fold, shown, table

TESTS = {"passed": "all tests passed", "failed": "**tests failed**", "cancelled": "tests were cancelled", "skipped": "tests were not run"}
MANY = 3  # charts that are shown unfolded


@dataclass(eq=False)
class Section:
    """`versions` from full to short; sections with a high `give_up` are shortened first. `where` says where the left-out part is."""

    versions: list[str]
    give_up: int = 0
    what: str = ""
    where: str = ""
    level: int = field(default=0)

    @property
    def text(self) -> str:
        return self.versions[self.level]


def headline(facts: Facts, tests: str | None) -> Section:
    """One line: what happened."""
    said = [*_failures(facts), _champion(facts)]
    here = [each for each in facts.notebooks if each.status != "removed"]
    if facts.base:
        ran = sum(each.status == "ran" for each in here)
        said.append(f"{ran} of {count(len(here), 'notebook')} ran again" if ran else "no notebook ran again" if not facts.failed else "")
    elif here:
        said.append(f"{count(len(here), 'notebook')}, no base to compare with")
    for kind, names in (("new", [each.name for each in here if each.new]), ("removed", [each.name for each in facts.notebooks if each.status == "removed"])):
        said += [f"{kind}: {_names(names)}"] if names else []
    said += [TESTS[tests]] if tests else []
    return Section(["; ".join(filter(None, said)) + "."])


def _failures(facts: Facts) -> list[str]:
    said = [f"**{code(each.name)} failed at cell {each.failure.cell}**" for each in facts.notebooks if each.failure]
    said = [*said[:3], f"**{len(said) - 3} more failed**"] if len(said) > 3 else said
    if not facts.notebooks:
        return ["**the pipeline could not be read**"]
    not_run = [each.name for each in facts.notebooks if each.status == "not run"]
    return said + ([f"not run: {_names(not_run)}"] if not_run else [])


def _names(names: list[str], most: int = 3) -> str:
    return ", ".join(map(code, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _champion(facts: Facts) -> str:
    judge = next((each for each in facts.notebooks if "champion" in {**each.before, **each.now}), None)
    if not judge:
        return ""
    now, before = facts.champion, facts.base_champion
    new, old = decimal(judge.now.get(METRIC)), decimal(judge.before.get(METRIC))
    if now is None:
        return f"no new champion (the base's: {code(before)} {old})"
    if before is None:
        return f"champion: {code(now)} {new}"
    if now == before:
        return f"champion: {code(now)} {new}, as before" if judge.now == judge.before else f"champion: {code(now)} {old} → {new}"
    return f"champion: {code(before)} {old} → {code(now)} {new}"


def notebooks(facts: Facts, links: dict) -> Section:
    """A row per notebook."""
    def build(chosen: list[Notebook]) -> str:
        return table(["notebook", "status", METRIC.replace("_", " "), "change", "page"], [_row(each, links) for each in chosen], "llrrl")

    every, telling = facts.notebooks, [each for each in facts.notebooks if each.status != "unchanged"]
    if not every:
        return Section([""])
    tally = ", ".join(f"{sum(each.status == status for each in every)} {status}" for status in ("ran", "unchanged", "failed", "not run", "removed"))
    short = f"{build(telling)}\n\n{count(len(every) - len(telling), 'unchanged notebook')} not listed." if telling else f"Notebooks: {tally}."
    return Section([build(every), short, f"Notebooks: {tally}."], 1, "rows of the table of notebooks", "in `dvc.lock`")


def _row(each: Notebook, links: dict) -> list[str]:
    status = {
        "ran": "ran" if not each.same_outputs else "ran, same results", "unchanged": "unchanged", "removed": "removed",
        "failed": f"**failed at cell {each.failure.cell}**" if each.failure else "failed",
        "not run": f"not run: {'needs ' + _names(each.note[6:].split(', ')) if each.note.startswith('needs ') else each.note}",
    }[each.status]
    value = (each.now if each.status != "removed" else {}).get(METRIC)
    measured = decimal(value) if value is not None else "–" if METRIC in each.before else ""
    if value is not None and (champion := each.now.get("champion")):
        measured = f"{code(champion)} {measured}"
    page = f"reports/{each.name}.html"
    shown_page = "" if each.status in ("not run", "removed") else link("open", links.get(each.name)) or code(page)
    return [code(each.name), f"{status}, new" if each.new else status, measured, change(each.before.get(METRIC), value), shown_page]


def failures(facts: Facts, outcome: str) -> list[Section]:
    """What stopped the pipeline, in words that can be acted on."""
    found = []
    for each in (each for each in facts.notebooks if each.failure):
        failure = each.failure
        title = f"### {code(each.name)} failed at cell {failure.cell}"
        error = fence(f"{failure.error}: {failure.reason}", lines=10, width=1000)
        head = f"{title}\n\n{error}"
        printed = "\n\nIt had printed nothing."
        if failure.printed.strip():
            printed = f"\n\nIts last lines of output:\n\n{fence(failure.printed, lines=20, keep='last')}"
        source = f"\n\nThe cell begins:\n\n{fence(failure.source, 'python', lines=8)}"
        versions = [head + source + printed, head + source, head, title]
        found.append(Section(versions, 2, f"details of the failure of {code(each.name)}", f"in {code(f'reports/{each.name}.html')}"))
    if len(found) > 10:
        found = [*found[:10], Section([f"{len(found) - 10} more notebooks failed; their pages show where."])]
    if facts.failed and not found and outcome.strip():
        found.append(Section([f"### The run's last words\n\n{fence(outcome, lines=20, keep='last')}", ""], 2, "the run's last words", "in the job's log"))
    troubles = facts.troubles[:5]
    return found + ([Section(["\n\n".join(f"{code(each, 400)}" for each in troubles)])] if troubles else [])


def differences(facts: Facts) -> list[Section]:
    """Metrics and parameters that are not those of the base, each in a fold."""
    if not facts.base:
        return []
    rows = [
        [code(path), code(key), shown(before), shown(now), change(before, now, ".4g")]
        for path, values in sorted(facts.metrics.items())
        for key, (before, now) in values.items()
        if before != now
    ]
    metrics = table(["file", "metric", "base", "branch", "change"], rows, "llrrr") if rows else ""
    parameters = _parameter_rows(facts.params)
    params = table(["parameter", "base", "branch"], parameters, "lll") if parameters else ""
    found = []
    for title, body, number, in_short, where in (
        ("Metrics", metrics, len(rows), "", "`dvc metrics diff`"),
        ("Parameters", params, len(parameters), _in_short(facts.params), "`dvc params diff`"),
    ):
        if not body:
            of = " of the notebooks with a result" if facts.failed and title == "Metrics" else ""
            found.append(Section([f"{title}{of}: as in the base."]))
            continue
        said = f"{title}: {in_short or count(number, 'row') + ' changed against the base'}"
        found.append(Section([fold(said, body), f"{said}."], 3, f"the table of {title.lower()}", f"by {where}"))
    return found


def _in_short(params: dict) -> str:
    """Up to three changed values in the fold's own line, so that the cause is read together with its effect; of more, nothing."""
    if len(params) > 3 or any(value is None for pair in params.values() for value in pair):
        return ""
    return ", ".join(f"{summary(key, 60)} {summary(before, 40)} → {summary(now, 40)}" for key, (before, now) in params.items())


def _parameter_rows(params: dict) -> list[list[str]]:
    """A row per changed value; a section that is wholly new or gone takes one row."""
    groups: dict[str, dict] = {}
    for key, pair in params.items():
        groups.setdefault(key.rpartition(".")[0], {})[key] = pair
    rows = []
    for group, values in sorted(groups.items()):
        for side, other in ((0, 1), (1, 0)):
            if len(values) > 1 and all(pair[other] is None for pair in values.values()):
                listed = code(", ".join(f"{key.rpartition('.')[2]} {line(pair[side], 40)}" for key, pair in values.items()), 200)
                rows.append([code(group), listed, "–"] if side == 0 else [code(group), "–", listed])
                break
        else:
            rows += [[code(key), shown(before), shown(now)] for key, (before, now) in sorted(values.items())]
    return rows


def learning(facts: Facts) -> list[Section]:
    """The curves that changed, the champion's first, and the champion's confusion matrix."""
    curved = [each for each in facts.notebooks if each.curve and each.curve != each.base_curve and each.status == "ran"]
    curved.sort(key=lambda each: each.name != facts.champion)
    found = [Section(["### Learning curves\n\n" + _legend(facts, curved)])] if curved else []
    for place, each in enumerate(curved):
        file = code(f"metrics/{each.name}.csv")
        branch, base = curves.numbers(each.curve, METRIC), curves.numbers(each.base_curve, METRIC)
        if not branch:
            why = f"{code(each.name)}: no curve, {code(METRIC)} is not a finite number in every row of {file}."
            found.append(Section([why, ""], 5, f"a note on {code(each.name)}", f"in {file}"))
            continue
        least = f"{code(each.name)}. After {count(len(branch), 'epoch')}: {decimal(branch[-1])}"
        least += f", in the base after {count(len(base), 'epoch')}: {decimal(base[-1])}." if base else "."
        chart, numbers = curves.chart(each.name, branch, base, METRIC), curves.curve_table(branch, base)
        tabled = fold(f"{summary(each.name)} by epoch", numbers)
        shown_chart = chart if place < MANY else fold(f"{summary(each.name)} as a chart", chart) if chart else ""
        full = "\n\n".join(filter(None, [least, shown_chart, tabled]))
        give_up = 4 if each.name == facts.champion else 5
        found.append(Section([full, f"{least}\n\n{tabled}", least, ""], give_up, f"the learning curve of {code(each.name)}", f"in {file}"))
    if facts.answers:
        against = curves.image_by_image(facts.answers, facts.base_answers) if facts.base else ""
        matrix = fold(f"Confusion matrix of the champion, {summary(facts.champion)}", curves.confusion(facts.answers))
        full = "\n\n".join(filter(None, ["### The champion's answers", against, matrix]))
        found.append(Section([full, against, ""], 4, "the confusion matrix", "in `metrics/confusion.csv`"))
    return found


def _legend(facts: Facts, curved: list[Notebook]) -> str:
    both = any(each.base_curve for each in curved)
    uneven = any(each.base_curve and len(each.base_curve) != len(each.curve) for each in curved)
    ends = " Where one training is shorter, its line goes on flat." if uneven else ""
    return f"Validation by epoch: blue is this branch{', grey the base' if both else ''}.{ends}" if facts.base else "Validation by epoch."


def output_changes(facts: Facts) -> list[Section]:
    """For each notebook that ran again, what a reader of its page would see changed."""
    if not facts.base:
        return []
    found, same = [], []
    for each in (each for each in facts.notebooks if each.status == "ran"):
        changes, page = each.changes, code(f"reports/{each.name}.html")
        if each.new:
            continue
        if each.unseen:
            why = f"{code(each.name)}: its outputs could not be compared with the base's: {each.unseen}."
            found.append(Section([why, ""], 6, f"a note on {code(each.name)}", f"in {page}"))
        elif not changes or not (changes.diff or changes.figures):
            same.append(each.name)
        else:
            parts = [f"text of {count(changes.cells, 'cell')}"] * bool(changes.cells) + [count(len(changes.figures), "figure")] * bool(changes.figures)
            title = f"{summary(each.name)}: {' and '.join(parts)}"
            figures = _figures(changes.figures)
            lengths = [fence("\n".join(changes.diff), "diff", lines) if changes.diff else "" for lines in (200, 40)]
            versions = [fold(title, "\n\n".join(filter(None, [diff, figures]))) for diff in lengths]
            found.append(Section([*versions, f"{title}.", ""], 6, f"changed outputs of {code(each.name)}", f"in {page}"))
    same_said = [Section([f"Same outputs as in the base: {_names(same, 10)}."])] if same else []
    return [Section(["### Changed outputs"]), *found, *same_said] if found or same else []


def _figures(figures: list[tuple[str, str]]) -> str:
    said = [f"- figure under {code(heading)} {what}" if heading else f"- figure {what}" for what, heading in figures]
    more = [f"- and {count(len(said) - 30, 'more figure')}"] if len(said) > 30 else []
    return "\n".join([*said[:30], *more])


def reproduce(facts: Facts, tracking: str | None) -> Section:
    """Commit, commands, and the tracking server if there is one."""
    commands = [f"git checkout {facts.head}", "make run", f"make report BASE={facts.base}" if facts.base else "make report"]
    said = ["### Reproduce", f"```sh\n{chr(10).join(commands)}\n```"]
    if facts.uncommitted:
        said.append(f"This report is of a folder with changes that are not in the commit: {_names(facts.uncommitted, 10)}.")
    if facts.differing:
        said.append(f"The results differ from those that the commit's `dvc.lock` records: {_names(facts.differing, 10)}.")
    if server := tracking_server(tracking):
        tag = f"tags.`mlflow.source.git.commit` = '{facts.head}'"
        said.append(f"MLflow at {code(server, 200)}, runs with {code(tag, 200)}.")
    return Section(["\n\n".join(said)])


def tracking_server(uri: str | None) -> str:
    """An http address without user, password, query and fragment, any of which may be secret; empty for anything else."""
    try:
        parts = urlsplit(plain(uri or ""))
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if parts.scheme in ("http", "https") and parts.hostname else ""


