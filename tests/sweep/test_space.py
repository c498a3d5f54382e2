"""What a section of `sweep:` may say, what makes another sweep of it, and what a broken-off study is worth."""

import dataclasses

import pytest

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import dag
from nbproof.pipeline.config import Metric
from nbproof.sweep import drive, plots, search, space
from nbproof.sweep.table import Table


def read(name: str = "fit") -> space.Sweep:
    with dag.opened(root()) as repo:
        return space.read(name, dag.read(repo))


@pytest.mark.parametrize("section, sentence", [
    ("{fit: {trials: 3, space: {speed: [1]}}}", "sweep.fit.space.speed is unknown"),
    ("{fit: {trials: 3, space: {x: [fast]}}}", "sweep.fit.space.x must be float, in (0, 100], found 'fast'"),
    ("{fit: {trials: 3, space: {x: {low: 0, high: 0.1}}}}", "space.x.low must be float, in (0, 100], found 0"),
    ("{fit: {trials: 3, space: {x: {low: 0.2, high: 0.1}}}}", "must go from a lower to a higher number"),
    ("{fit: {trials: 3, space: {word: {low: 1, high: 2}}}}", "must be a list of choices or a range"),
    ("{fit: {trials: 3, space: {sizes: [[1, 10]]}}}", "sweep.fit.space.sizes must be list[int], each in [1, 9]"),
    ("{fit: {trials: 0, space: {x: [0.1]}}}", "sweep.fit.trials must be a positive whole number, found 0"),
    ("{fit: {trials: 3, reduction: 1, space: {x: [0.1]}}}", "sweep.fit.reduction must be a whole number above 1"),
    ("{fit: {trails: 3, space: {x: [0.1]}}}", "sweep.fit.trails is unknown"),
    ("{fit: {trials: 3, space: {threads: [1, 2]}}}", "threads: what a trial takes of a machine is the same for all"),
    ("{fit: {trials: 3}}", "sweep.fit.space is missing"),
    ("{fit: {trials: 3, metric: gain, space: {x: [0.1]}}}", "say whether less or more of it is better"),
    ("{nobody: {trials: 3, space: {x: [0.1]}}}", "sweep.fit is missing"),
    ("7", "there are none"),
])
def test_a_wrong_section_is_refused_in_one_sentence(section, sentence, here):
    here.write(f"sweep: {section}\n")
    with pytest.raises(UserError) as refused:
        read()
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_another_space_notebook_or_data_is_another_sweep_and_outputs_are_not(here):
    first = read().digest()
    path = root() / "notebooks/fit.ipynb"
    path.write_text(path.read_text().replace('"outputs": []', '"outputs": [{"name": "stdout", "output_type": "stream", '
                                             '"text": "said"}]', 1))
    assert read().digest() == first
    (root() / "data/numbers.csv").write_text("5")
    second = read().digest()
    here.write(here_sweep := "sweep: {fit: {trials: 7, space: {x: [1, 2]}}}\n")
    third = read().digest()
    here.write(here_sweep.replace("x: [1, 2]", "x: [1, 3]"))
    assert len({first, second, third, read().digest()}) == 4


def test_lists_null_and_whole_numbers_are_tried_as_the_notebook_takes_them(here):
    here.write("sweep: {fit: {trials: 3, space: {x: [1], sizes: [[1], [1, 2]], word: [null, a], steps: "
               "{low: 1, high: 9, log: true}}}}\n")
    wanted = read()
    proposed = search.study_of(wanted, root()).ask(wanted.distributions()).params
    values = wanted.values(proposed)
    assert values["x"] == 1.0 and type(values["x"]) is float and values["sizes"] in ([1], [1, 2])
    assert values["word"] in (None, "a") and type(values["steps"]) is int and 1 <= values["steps"] <= 9


def test_a_metric_that_the_last_run_did_not_write_is_refused(here):
    (root() / "metrics").mkdir()
    (root() / "metrics/fit.json").write_text('{"gain": 1.0, "word": "a"}')
    with pytest.raises(UserError, match="the metric loss is unknown; metrics/fit.json of the last run has gain, word"):
        drive.sweep("fit", False)
    here.write("sweep: {fit: {trials: 3, metric: word, goal: max, space: {x: [0.1]}}}\n")
    with pytest.raises(UserError, match="the metric word is unknown"):
        drive.sweep("fit", False)


def test_data_that_is_not_that_of_now_is_refused(here):
    (root() / "data/numbers.csv").write_text("5")  # as another run may have left it
    with pytest.raises(UserError, match="data must run first, because files or parameters have changed: nbproof run"):
        drive.sweep("fit", False)


def test_a_study_goes_on_after_a_torn_line_and_forgets_no_result(here):
    wanted = read()
    study = search.study_of(wanted, root())
    told, found, lost = (study.ask(wanted.distributions()) for _ in range(3))
    study.tell(told, 1.0)
    with (root() / "study.log").open("a") as log:
        log.write('{"op_code": 4, "work')
    (root() / "study.log.lock").touch()
    again = search.study_of(wanted, root())
    search.recover(again, {"00001": {"state": "done", "value": 2.0}})
    assert [trial.value for trial in again.trials] == [1.0, 2.0, None, None]
    following = again.ask(wanted.distributions())
    assert following.params == lost.params, "what was lost comes again"
    assert again.ask(wanted.distributions()).params not in (told.params, found.params, lost.params)


def test_the_best_is_that_of_the_direction(here):
    results = [{"trial": str(value), "state": "done", "value": value, "tried": {"x": value}}
               for value in (0.5, 0.25, 0.75)]
    for goal, best in (("min", 0.25), ("max", 0.75)):
        wanted = dataclasses.replace(read(), metric=Metric("loss", goal))
        said = Table(wanted).line(results, 0, 0.0)
        assert f"3 of 6 trials: 0 running, 3 done, 0 stopped early, 0 failed; best {best} with x {best};" in said


def test_the_figures_take_trials_that_failed_and_values_that_are_lists_or_null(here):
    found = [{"trial": f"{number:05d}", "state": state, "value": value, "steps_done": 1, "steps_planned": 4,
              "seconds": 10.0 - number, "run_id": "r",
              "tried": {"x": 0.1 * 10**number, "sizes": [number], "word": None}}
             for number, (state, value) in enumerate([("done", 3.0), ("done", 1.0), ("done", 2.0), ("failed", None),
                                                      ("stopped early", 9.0), ("done", 4.0)])]
    (root() / "trials.csv").write_text(drive._table(found, "loss"))
    trials = plots.Trials("trials.csv", "x,sizes,word", "loss", "min")
    assert list(trials.done.loss) == [1.0, 2.0, 3.0, 4.0]
    assert "4 ran to their end, 1 were stopped early, 1 failed" in plots.counted(trials)
    assert "Stopping early saved 12% of 24 steps" in plots.counted(trials)  # and not what a failed one did not run
    assert plots.best(trials).splitlines()[2] == "| 1 | 1 | 1 | 9.0 | 1 | [1] | null |"
    assert "took 9 s, and none" in plots.worth(trials)
    for figure in (plots.effects(trials), plots.parallel(trials), plots.cost(trials)):
        assert figure.axes


def test_the_page_shows_the_values_that_it_was_given(here):
    """The notebook of the page has no section of params.yaml, as all others have."""
    found = [{"trial": f"{number:05d}", "state": "done", "value": value, "steps_done": 1, "steps_planned": 1,
              "seconds": 1.0, "run_id": "r", "tried": dict.fromkeys(read().space, 0.1 * 10**number)}
             for number, value in enumerate([3.0, 1.0])]
    folder = root() / "scratch" / "sweeps" / "fit-1"
    folder.mkdir(parents=True)
    (folder / "trials.csv").write_text(drive._table(found, "loss"))
    drive._page(read(), folder)
    page = (root() / "reports" / "sweep-fit.html").read_text(encoding="utf-8")
    assert "scratch/sweeps/fit-1/trials.csv" in page and "Failed at" not in page
    assert "What did the sweep find?" in page and "sweeps/NAME" not in page


def test_choices_without_an_order_are_not_said_to_matter_more_or_less(here):
    found = [{"trial": f"{number:05d}", "state": "done", "value": float(number), "steps_done": 1, "steps_planned": 1,
              "seconds": 1.0, "run_id": "r", "tried": {"x": 10.0 - number, "word": word}}
             for number, word in enumerate(["adam", "adam", "sgd", "sgd", None, 10, 5])]
    (root() / "trials.csv").write_text(drive._table(found, "loss"))
    assert "**x** goes most with the result" in plots.strongest(plots.Trials("trials.csv", "x,word", "loss", "min"))
    alone = plots.Trials("trials.csv", "word", "loss", "min")
    assert plots.strongest(alone) == "None of the parameters whose choices have an order differs."
    assert alone.scaled("word")[1] == ["null", "5", "10", "adam", "sgd"]


def test_a_sweep_whose_time_was_over_is_not_finished(here, monkeypatch):
    for place, stand_in in ((drive, "_sweep"), (drive, "_install"), (drive.dag, "check_current")):
        monkeypatch.setattr(place, stand_in, lambda *_, **__: 7)
    folder = root() / "scratch" / "sweeps" / f"fit-{read().digest()}"
    folder.mkdir(parents=True)
    for trials, code in ((2, 7), (6, 0)):  # of six
        (folder / "best.json").write_text(f'{{"trials": {trials}}}')
        assert drive.sweep("fit", False) == code
