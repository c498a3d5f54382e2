"""What a section of `sweep:` may hold, and what makes another sweep of it."""

import pytest
from conftest import SPACE, code, tries
from optuna.storages.journal import JournalFileBackend
from projects import edit_params

from nbproof.notebook.errors import UserError
from nbproof.sweep import drive, space, trial


@pytest.fixture
def here(finished, inside):
    """The finished tiny project as the one in which this process works."""
    return inside(finished)


@pytest.mark.parametrize("section, sentence", [
    ("{trials: 3, space: {speed: [1]}}", "space.speed cannot be tried: the notebook must declare"),
    ("{trials: 3, space: {step: [fast]}}", "space.step must be int, in [1, 9], found 'fast'"),
    ("{trials: 3, space: {step: {low: 5, high: 2}}}", "must be a list of choices or a range such"),
    ("{trials: 3}", "grace and reduction: 'space' is missing."),
    *[(section, "sweep.near must hold trials and space, and may hold minutes") for section in (
        "{trials: 0, space: {step: [1]}}", "{trials: 3, minutes: 0.0, space: {step: [1]}}",
        "{trials: 3, reduction: 1, space: {step: [1]}}", "{trails: 3, space: {step: [1]}}",
        "{trials: 3, metric: gain, space: {step: [1]}}", "7")],
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
    def proposed(sweep: str, name: str) -> dict:
        tries(here, sweep, name)
        wanted, _ = drive._read(name)
        study = trial.opened(wanted, JournalFileBackend(f"{name}.log"))
        return space.typed(study.ask(wanted.space).params) | wanted.fixed

    values = proposed("{trials: 3, space: {sizes: [[1], [1, 2]], label: [null, a]}}", "data")
    assert values["sizes"] in ([1], [1, 2]) and values["label"] in (None, "a")
    values = proposed("{trials: 3, space: {step: {low: 1, high: 9, log: true}}}", "near")
    assert type(values.pop("step")) is int and values == {"rounds": 3, "seed": 1}
