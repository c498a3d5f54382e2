"""What a change did to each model: the sentence in full, the correction, hooks that misbehave."""

import math

import pytest

from nbproof.pipeline import verdict
from nbproof.pipeline.verdict import Result, Side, judge, rows

# McNemar's exact test without a library
HOOK = """\
from math import comb

def better(new, old):
    right = [[row["predicted"] == row["actual"] for row in side] for side in (new, old)]
    up, down = (sum(a > b for a, b in zip(*pair)) for pair in (right, right[::-1]))
    tail = sum(comb(up + down, k) for k in range(min(up, down) + 1)) / 2 ** (up + down)
    p = min(1.0, 2 * tail)
    return {"better": up > down and p < 0.05, "why": f"{up} up, {down} down", "p": p}
"""


def model(wrong: int, cases: int = 1000, first: int = 0) -> Result:
    """Return a classifier with `wrong` mistakes, from the case `first` on."""
    mistaken = range(first, first + wrong)
    return Result(1 - wrong / cases, tuple((str(at % 3), str((at + (at in mistaken)) % 3))
                                           for at in range(cases)))


@pytest.fixture
def project(tmp_path, inside):
    def make(hook: str = HOOK, metric: str = "{key: score, goal: max}"):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        (tmp_path / "notebooks" / "science.py").write_text(hook)
        hooks = "hooks: {better: 'science:better'}\n" if hook else ""
        (tmp_path / "project.yaml").write_text(f"name: tiny\nmetric: {metric}\n{hooks}")
        return inside(tmp_path)

    return make


def test_a_runner_up_that_is_worse(project):
    project()
    before = Side({"cnn": model(5), "mlp": model(11), "linear": model(73)}, "cnn")
    after = Side({**before.models, "mlp": model(53)}, "cnn")
    assert judge(before, after).sentence() == (
        "Same champion cnn, 0.9950. mlp is worse: 0.9890 → 0.9470, 42 more errors of 1,000 "
        "(p 4.5e-13).")
    assert judge(after, before).sentence(code="`{}`".format, bold="**{}**".format) == (
        "Same champion `cnn`, 0.9950. **`mlp` is better**: 0.9470 → 0.9890, "
        "42 fewer errors of 1,000 (p 4.5e-13).")


def test_two_models_are_corrected_for(project):
    """Each would pass alone (p 0.031); doubled, neither does. Beside a clear change one holds."""
    project()
    before = Side({"cnn": model(20), "mlp": model(30)}, "cnn")
    after = Side({"cnn": model(14), "mlp": model(24)}, "cnn")
    assert judge(before, after).sentence() == (
        "Same champion cnn. No detectable change of cnn: 0.9800 → 0.9860, "
        "6 fewer errors of 1,000 (p 0.062). No detectable change of mlp: 0.9700 → 0.9760, "
        "6 fewer errors of 1,000 (p 0.062). The p-values are corrected for 2 models (Holm).")
    after = Side({"cnn": model(14), "mlp": model(10)}, "mlp")
    judged = judge(before, after)
    assert [(each.name, each.kind) for each in judged.judgements] == [
        ("mlp", "better"), ("cnn", "better")]


def test_a_champion_that_changed_by_chance_alone(project):
    project()
    before = Side({"cnn": model(5), "mlp": model(6, first=500)}, "cnn")
    after = Side({"cnn": model(5), "mlp": model(4, first=500)}, "mlp")
    assert judge(before, after).sentence() == (
        "New champion mlp, 0.9960, instead of cnn, 0.9950. Its lead could be chance, "
        "1 fewer error of 1,000 (p 1). No detectable change of mlp: 0.9940 → 0.9960, "
        "2 fewer errors of 1,000 (p 1). The p-values are corrected for 2 models (Holm).")


def test_a_new_and_a_removed_model(project):
    project()
    before = Side({"cnn": model(5), "mlp": model(11)}, "cnn")
    after = Side({"cnn": model(5), "vit": model(8)}, "cnn")
    assert judge(before, after).sentence() == (
        "Same champion cnn, 0.9950. New: vit, 0.9920. Removed: mlp, 0.9890.")


def test_unchanged_and_first_run(project):
    project()
    side = Side({"cnn": model(5)}, "cnn")
    assert judge(side, side).sentence() == "Same champion cnn, 0.9950. No model changed."
    assert judge(Side({}), side).sentence() == "Champion cnn, 0.9950."
    assert judge(side, Side(side.models)).sentence() == (
        "No new champion (before: cnn, 0.9950).")


def test_in_a_fresh_clone_the_same_metric_is_no_change(project):
    """Git has the metrics; the models with their predictions come with the first run."""
    made = model(5)
    side = Side({"cnn": made}, "cnn")
    assert judge(Side({"cnn": Result(made.value)}, "cnn"), side).judgements == ()
    assert judge(Side({"cnn": Result(0.9)}, "cnn"), side).of("cnn").kind == "better"


def test_a_regression_by_rmse(project):
    """The metric is to be small; the hook returns no p, and there are no errors to count."""
    project("def better(new, old):\n"
            "    wrong = [sum((float(r['actual']) - float(r['predicted'])) ** 2 for r in side)\n"
            "             for side in (new, old)]\n"
            "    return {'better': wrong[0] < wrong[1] - 1, 'why': 'squares', 'p': None}\n",
            "{key: rmse, goal: min}")
    sides = [Side({"ridge": Result(rmse, tuple((f"{at}", f"{at + rmse}") for at in range(100)))},
                  "ridge") for rmse in (60.5, 53.5)]
    assert judge(*sides).sentence() == (
        "Same champion ridge. ridge is better: 60.5000 → 53.5000.")
    assert judge(*reversed(sides)).sentence() == (
        "Same champion ridge. ridge is worse: 53.5000 → 60.5000.")


def test_other_cases_are_not_compared(project):
    project("raise SystemExit('nobody calls this')")
    judged = judge(Side({"cnn": model(5, 1000)}, "cnn"), Side({"cnn": model(5, 999)}, "cnn"))
    assert judged.sentence() == "Same champion cnn. cnn is not comparable: 0.9950."


@pytest.mark.parametrize(("before", "now", "kind"), [
    (0.9, math.nan, "worse"), (math.nan, 0.9, "better"), (0.9, -math.inf, "worse"),
    (0.9, math.inf, "better"), (0.9, 0.9, None), (math.nan, math.nan, None)])
def test_without_a_hook_the_metric_decides(project, before, now, kind):
    project("")
    judged = judge(Side({"cnn": Result(before)}), Side({"cnn": Result(now)})).of("cnn")
    assert (judged and judged.kind) == kind


@pytest.mark.parametrize(("hook", "reason"), [
    ("def better(new, old):\n    raise ValueError('no')", "ValueError: no"),
    ("def better(new, old):\n    return {'better': True}", "KeyError: 'why'"),
    ("def better(new, old):\n    raise SystemExit(3)", "SystemExit: 3"),
    ("better = ", "SyntaxError"),
    ("import os\nos._exit(7)", "its process ended with exit code 7"),
    ("import time\ntime.sleep(60)", "it took longer than 2 s"),
])
def test_hooks_that_misbehave(project, monkeypatch, capsys, hook, reason):
    monkeypatch.setattr(verdict, "SECONDS", 2 if "sleep" in hook else 60)
    project(hook)
    judged = judge(Side({"cnn": model(5)}, "cnn"), Side({"cnn": model(9)}, "cnn")).of("cnn")
    assert f"The project's hook better failed: {reason}" in judged.why
    assert (judged.kind, judged.details) == ("worse", "4 more errors of 1,000")  # by the metric
    assert capsys.readouterr().out == ""


def test_a_file_that_holds_no_predictions():
    assert rows(None) == rows("") == rows("a,b\n1,2\n") == ()
    assert rows('actual,predicted\r\n1,2\r\n') == (("1", "2"),)


def test_what_a_run_replaced(project):
    """The last words of a run: only where there were results before it, and they differ."""
    folder = project()
    (folder / "metrics").mkdir()
    (folder / "models").mkdir()

    class Stage:
        short, notebook, outputs = "cnn", "notebooks/cnn.ipynb", ("metrics/cnn.json", "models/cnn")

    def make(wrong: int) -> None:
        (folder / "metrics/cnn.json").write_text(f'{{"score": {1 - wrong / 1000}}}')
        lines = [f"{true},{said}" for true, said in model(wrong).answers]
        (folder / "models/cnn.csv").write_text("\n".join(["actual,predicted", *lines]))

    stages = {"train@cnn": Stage()}
    nothing = verdict.snapshot(stages)
    make(5)
    earlier = verdict.snapshot(stages)
    assert verdict.of_run(nothing, stages) == verdict.of_run(earlier, stages) == ""
    make(50)
    assert verdict.of_run(earlier, stages) == (
        "Compared with the results before this run: cnn is worse: 0.9950 → 0.9500, 45 more errors "
        "of 1,000 (p 5.7e-14).")
