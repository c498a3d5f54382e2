"""The searcher of a sweep: Optuna, told of the trials that a broken-off sweep would else forget."""

from typing import ClassVar

from ray.tune.search.optuna import OptunaSearch


class Search(OptunaSearch):
    """OptunaSearch for sweeps that are gone on with. As it is, the next result of a trial that is resumed after an error ends the sweep with a KeyError."""

    lost: ClassVar[list[dict]] = []  # values of trials that ended after the state was last kept: they come first, once

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tell Optuna, but not of a trial whose worker or store was lost: it comes again."""
        if not error:
            super().on_trial_complete(trial_id, result, error)

    def restore(self, checkpoint_path: str) -> None:
        super().restore(checkpoint_path)
        while Search.lost:
            self._ot_study.enqueue_trial(Search.lost.pop())
