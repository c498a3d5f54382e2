"""The searcher of a sweep: Optuna, which still knows a trial that Tune gave up and that is gone on with."""

from ray.tune.search.optuna import OptunaSearch


class Search(OptunaSearch):
    """OptunaSearch for trials that are resumed after an error; as it is, their next result ends the sweep with a KeyError."""

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Tell Optuna, but not of a trial whose worker or store was lost: it comes again."""
        if not error:
            super().on_trial_complete(trial_id, result, error)
