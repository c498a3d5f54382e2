"""What a section of `sweep:` may hold, what makes another sweep of it, what a lost trial costs."""

import pytest
from conftest import SPACE, code, tries
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from projects import edit_params

from nbproof.notebook.errors import UserError
from nbproof.sweep import drive, trial


@pytest.fixture
def here(finished, inside):
    """The finished tiny project as the one in which this process works."""
    return inside(finished)


@pytest.mark.parametrize("section, sentence", [
    ("{trials: 3, space: {speed: [1]}}", "space.speed cannot be tried: the notebook must declare"),
    ("{trials: 3, space: {step: [fast]}}", "space.step must be int, in [1, 9], found 'fast'"),
    ("{trials: 3, space: {step: {low: 5, high: 2}}}", "must be a list of choices or a range such"),
    ("{trials: 3, space: {step: {lo: 1}}}", "must be a list of choices or a range such as {low"),
    ("{trials: 0, space: {step: [1]}}", "near.trials must be a positive whole number, found 0"),
    ("{trials: 3, minutes: 0.0, space: {step: [1]}}", "minutes must be a positive number, found 0"),
    ("{trials: 3, reduction: 1, space: {step: [1]}}", "near.reduction must be a whole number abov"),
    ("{trails: 3, space: {step: [1]}}", "sweep.near must hold trials and space, and may hold"),
    ("{trials: 3, metric: gain, space: {step: [1]}}", "say whether less or more of it is better"),
    ("7", "sweep.near must hold trials and space, and may hold trials, minutes, metric"),
])
def test_a_wrong_section_is_refused_in_one_sentence(section, sentence, here):
    tries(here, section)
    with pytest.raises(UserError) as refused:
        drive.sweep("near")
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_another_space_or_notebook_is_another_sweep_and_an_adopted_value_is_not(here):
    folders = []
    for sweep in (SPACE, SPACE.replace("6", "7"), SPACE.replace("[3, 4]", "[3, 5]")):
        tries(here, sweep)
        folders.append(drive._read("near")[1])
    edit_params(here, lambda content: content["models"]["near"].update(step=3))
    assert len(set(folders)) == 3 and drive._read("near")[1] == folders[-1]
    code(here, "curve = []", "curve = list()")
    assert drive._read("near")[1] not in folders
    (here / "data/table/5.csv").write_text("case,actual\n")  # as another run may have left it
    with pytest.raises(UserError, match="data must run first, because files or parameters have"):
        drive.sweep("near")


def test_lists_null_and_whole_numbers_are_tried_as_the_notebook_takes_them(here):
    tries(here, "{trials: 3, space: {sizes: [[1], [1, 2]], label: [null, a]}}", "data")
    wanted, _ = drive._read("data")
    values = wanted.suggest(trial.opened(wanted, JournalFileBackend("data.log")).ask())
    assert values["sizes"] in ([1], [1, 2]) and values["label"] in (None, "a")
    tries(here, "{trials: 3, space: {step: {low: 1, high: 9, log: true}}}")
    wanted, _ = drive._read("near")
    values = wanted.suggest(trial.opened(wanted, JournalFileBackend("near.log")).ask())
    assert type(values["step"]) is int and wanted.fixed == {"rounds": 3, "seed": 1}


def test_a_lost_trial_comes_again_with_its_values_and_a_failed_one_does_not(here):
    tries(here)
    wanted, _ = drive._read("near")
    study = trial.opened(wanted, JournalFileBackend("study.log"))
    for slot in range(3):
        study.enqueue_trial({}, {"slot": slot})
    done, failed, lost = study.ask(), study.ask(), study.ask()
    study.tell(done, 1.0)
    failed.set_user_attr("failure", "on purpose")
    study.tell(failed, state=TrialState.FAIL)
    for again in range(trial.RETRIES + 1):
        tried = wanted.suggest(lost)
        lost.set_user_attr("worker", 1)
        trial.recover(study, worker=0)  # has lost nothing
        trial.recover(study, worker=1)
        states = [each.state.name for each in trial.slots(study)]
        if again < trial.RETRIES:
            assert states == ["COMPLETE", "FAIL", "WAITING"]
            lost = study.ask()
            assert wanted.suggest(lost) == tried
    assert states == ["COMPLETE", "FAIL", "FAIL"], "a trial is not repeated for ever"
    trial.recover(study)  # by a person who starts the sweep again
    assert trial.slots(study)[2].state == TrialState.WAITING
