"""What a change did to each model: better, worse, or no difference that chance could not make.

The project's hook `better` decides, on the model's own predictions for the same cases. It is called
in a process of its own with a time limit, once for all models. Without it the metric decides.
"""

import contextlib
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.pipeline.numbers import count, is_number, number

SECONDS = 60  # for the hook, all models together
LEVEL = 0.05  # of significance, where the hook returns none
NONE = "no detectable change"
HOOK_FAILED = "The project's hook better failed"
MARKS = {"better": "▲", "worse": "▼", NONE: "≈", "new": "＋", "removed": "−", "not comparable": "?"}


@dataclass(frozen=True)
class Result:
    """What one model has on one side: its metric (None: not measured) and its predictions, rows
    (actual, predicted) of text, empty where it stores none."""

    value: object = None
    answers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Side:
    """The models by name, and which of them the comparison selected (None: there is none)."""

    models: dict[str, Result]
    champion: str | None = None


@dataclass(frozen=True)
class Judgement:
    """How one model changed: `kind` is a key of MARKS. `errors` is how many more cases it gets
    wrong, None for a regression; `p` is corrected for the number of models; `why` is the hook's
    sentence, or what went wrong with the hook."""

    name: str
    before: Result
    now: Result
    kind: str
    errors: int | None = None
    p: float | None = None
    why: str = ""

    @property
    def details(self) -> str:
        """The count of cases and the probability of chance, for a table and a sentence."""
        cases = ""
        if self.errors is not None:
            more = count(abs(self.errors), "more error" if self.errors > 0 else "fewer error")
            cases = f"{more if self.errors else 'as many errors'} of {len(self.now.answers):,}"
        return f"{cases}{'' if self.p is None else f' (p {self.p:.2g})'}".strip()

    def sentence(self, code: Callable, bold: Callable) -> str:
        """Return what became of the model; see Verdict.sentence."""
        before, now = number(self.before.value), number(self.now.value)
        if self.kind in ("new", "removed"):
            value = before if self.kind == "removed" else now
            return f"{self.kind.capitalize()}: {code(self.name)}, {value}"
        verdict = (f"No detectable change of {code(self.name)}" if self.kind == NONE
                   else bold(f"{code(self.name)} is {self.kind}"))
        values = now if before == now else f"{before} → {now}"
        return ", ".join(filter(None, [f"{verdict}: {values}", self.details]))


@dataclass(frozen=True)
class Verdict:
    """The champion on both sides, what became of each model that changed (the most important
    first), and how many models Holm's correction was for (1: none was needed). `succession` judges
    a new champion's predictions against those of the old one; `note` is one more sentence."""

    before: Side
    now: Side
    judgements: tuple[Judgement, ...] = ()
    succession: Judgement | None = None
    corrected: int = 1
    note: str = ""

    def of(self, name: str) -> Judgement | None:
        """Return the judgement on a model, None where it did not change."""
        return next((each for each in self.judgements if each.name == name), None)

    def sentence(self, code: Callable = str, bold: Callable = str, most: int = 2) -> str:
        """Return the champion in one clause, then the `most` important changes.

        `code` and `bold` write a name and a verdict in the form of a terminal, Markdown or HTML.
        """
        told = [each.sentence(code, bold) for each in self.judgements[:most]]
        more = len(self.judgements) - most
        told += [f"{count(more, 'more model')} changed"] if more > 0 else []
        is_same = self.before.champion == self.now.champion and not self.judgements
        told += [bold("No model changed")] if self.before.models and is_same else []
        if self.corrected > 1:
            told.append(f"The p-values are corrected for {self.corrected} models (Holm)")
        told = [self._champion(code, bold), *told, self.note]
        return " ".join(f"{each}." for each in told if each)

    def _champion(self, code: Callable, bold: Callable) -> str:
        old, new = self.before.champion, self.now.champion
        before, now = (number(side.models.get(side.champion, Result()).value)
                       for side in (self.before, self.now))
        if new is None:
            return f"No new champion (before: {code(old)}, {before})" if old else ""
        if old is None:
            return f"Champion {code(new)}, {now}"
        if self.succession is None:
            if self.judgements[:1] == (self.of(new),):  # the next sentence has its numbers
                return f"Same champion {code(new)}"
            return f"Same champion {code(new)}, {now if now == before else f'{before} → {now}'}"
        kind, details = self.succession.kind, self.succession.details
        lead = "Its lead could be chance" if kind == NONE else f"It is {kind}"
        return (f"New champion {code(new)}, {now}, instead of {code(old)}, {before}. "
                + ", ".join(filter(None, [bold(lead), details])))


def judge(before: Side, now: Side) -> Verdict:
    """Judge every model that differs between two sides, and the succession of the champion."""
    if not before.models:
        return Verdict(before, now)
    pairs = {}
    for name in [*now.models, *(before.models.keys() - now.models.keys())]:
        old, new = before.models.get(name, Result()), now.models.get(name, Result())
        # NaN is not equal to itself. In a fresh clone git has the metrics, and nobody the answers.
        has_others = _cases(old) != _cases(new) and repr(old.value) == repr(new.value)
        if repr(old) != repr(new) and not has_others:
            pairs[name] = _by_metric(name, old, new)
    if None not in (before.champion, now.champion) and before.champion != now.champion:
        old = before.models.get(before.champion, Result())
        new = now.models.get(now.champion, Result())
        pairs[""] = _by_metric(now.champion, old, new)
    pairs, corrected = _tested(pairs)
    succession = pairs.pop("", None)
    order = {"worse": 0, "better": 0, "not comparable": 1, "new": 2, "removed": 3, NONE: 4}
    judgements = sorted(pairs.values(), key=lambda each: (
        order[each.kind], 1 if each.p is None else each.p, -abs(each.errors or 0)))
    return Verdict(before, now, tuple(judgements), succession, corrected)


def _cases(result: Result) -> list[str]:
    """Return the true values of the cases for which a model's predictions are known."""
    return [truth for truth, _ in result.answers]


def _by_metric(name: str, before: Result, now: Result) -> Judgement:
    """Return how a model changed by its metric alone."""
    metric = config.load().metric
    cases = [_cases(side) for side in (before, now)]
    is_same = cases[0] == cases[1]
    if Result() in (before, now):
        kind = "new" if before == Result() else "removed"
    elif all(cases) and not is_same or not (is_number(before.value) and is_number(now.value)):
        kind = "not comparable"
    else:
        kind = ("better" if metric.better(now.value, before.value) else
                "worse" if metric.better(before.value, now.value) else NONE)
    return Judgement(name, before, now, kind, _errors(before, now) if is_same else None)


def _errors(before: Result, now: Result) -> int | None:
    """Return how many more of the same cases are wrong now; None where the predictions are no
    classes: values that do not occur among the true ones."""
    truths = {truth for truth, _ in now.answers}
    predicted = {answer for side in (before, now) for _, answer in side.answers}
    if not truths or len(predicted - truths) > len(truths):
        return None
    wrong = [sum(truth != answer for truth, answer in side.answers) for side in (before, now)]
    return wrong[1] - wrong[0]


def _tested(pairs: dict) -> tuple[dict, int]:
    """Return the judgements as the hook decides, and for how many models p was corrected."""
    testable = {name: each for name, each in pairs.items()
                if each.kind in ("better", "worse", NONE) and each.before.answers
                and each.now.answers and each.before.answers != each.now.answers}
    if not testable or not config.load().hooks.get("better"):
        return pairs, 1
    tests = _called(testable.values())
    if isinstance(tests, str):
        why = f"{HOOK_FAILED}: {tests}"
        return pairs | {name: replace(each, why=why) for name, each in testable.items()}, 1
    tests = dict(zip(testable, tests))
    values = sorted((test["p"], name) for name, test in tests.items() if test["p"] is not None)
    highest = 0.0
    for rank, (p, name) in enumerate(values):  # Holm's step-down: never below an earlier one
        tests[name]["p"] = highest = max(highest, min(1.0, p * (len(values) - rank)))
    for name, test in tests.items():
        is_chance = test["p"] is not None and test["p"] >= test["level"]
        kind = NONE if is_chance else test["kind"]
        pairs[name] = replace(pairs[name], kind=kind, p=test["p"], why=test["why"])
    return pairs, max(1, len(values))


def _called(judgements: Iterable[Judgement]) -> list[dict] | str:
    """Return what the hook `better` says of each pair, or why it failed.

    A process of its own: the hook is the project's code, which can hang, exit or print.
    """
    pairs = [[[{"actual": actual, "predicted": predicted} for actual, predicted in side.answers]
              for side in (each.now, each.before)] for each in judgements]
    try:
        command = [sys.executable, "-P", "-m", "nbproof.pipeline.verdict"]
        done = subprocess.run(command, cwd=root(), input=json.dumps(pairs), encoding="utf-8",
                              stdout=subprocess.PIPE, timeout=SECONDS)
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"it took longer than {SECONDS} s"
    except ValueError:  # the process ended without an answer
        return f"its process ended with exit code {done.returncode}"


def _call(hook: Callable, new: list[dict], old: list[dict]) -> dict:
    """Return what the hook says of one pair, in both directions."""
    result = hook(new, old)
    p, why = result.get("p"), str(result["why"])
    kind = "better" if result["better"] else "worse" if hook(old, new)["better"] else NONE
    return {"kind": kind, "why": why, "p": None if p is None else float(p),
            "level": float(result.get("level", LEVEL))}


def rows(text: str | None) -> tuple[tuple[str, str], ...]:
    """Return the predictions in the text of a models/NAME.csv; () where it holds none."""
    try:
        table = [*csv.DictReader(io.StringIO(text or ""))]
        return tuple((row["actual"], row["predicted"]) for row in table)
    except (csv.Error, KeyError):
        return ()


def snapshot(stages: dict) -> Side:
    """Return the models and the champion as their files are now; `stages` are dag.read's."""
    from nbproof.pipeline.dag import is_model  # all of DVC, which the hook's process does without

    project, models, champion = config.load(), {}, None
    for stage in stages.values():
        with contextlib.suppress(UserError):  # damaged metrics: the run itself refuses them
            metrics = project.metrics(stage.short)
            champion = metrics.get("champion") if stage.short == project.compare else champion
            value = metrics.get(project.metric.key) if is_model(stage) else None
            if is_number(value):
                path = root() / "models" / f"{stage.short}.csv"
                text = path.read_text(encoding="utf-8") if path.is_file() else None
                models[stage.short] = Result(value, rows(text))
    return Side(models, champion)


def of_run(earlier: Side, stages: dict) -> str:
    """Return the last words of a run that replaced the results `earlier`; "" where it did not."""
    if not earlier.models:
        return ""
    verdict = judge(earlier, snapshot(stages))
    is_other = verdict.judgements or verdict.succession
    return f"Compared with the results before this run: {verdict.sentence()}" if is_other else ""


def main() -> None:
    """Call the hook for the pairs of predictions that stdin holds; print the results as JSON."""
    with contextlib.redirect_stdout(sys.stderr):  # what the hook prints is for people
        try:
            hook = config.load().hook("better")
            answer = [_call(hook, *pair) for pair in json.load(sys.stdin)]
        except (Exception, SystemExit) as error:  # a project's code raises what it likes
            answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
