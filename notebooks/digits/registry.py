"""The champion as a version of a registered model: `python -m digits.registry [MODEL] [KEY=VALUE ...]`, the pairs become its tags.

The version has the alias `champion`, the one before it `previous`. The alias moves when McNemar's test on the same validation images
says that the new champion is better, or when a person names a model. Where a server has no registry, the run gets a tag instead.
"""

import contextlib
import hashlib
import io
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from digits import paths, tracking

NAME = "digits"


@dataclass(frozen=True)
class Entry:
    """What the registry says of one model: where it is (a version or a run), its run, and its tags."""

    place: str
    run_id: str
    tags: dict[str, str]


class Versions:
    """The registered model NAME, its versions and aliases."""

    def __init__(self, client):
        self.client = client

    def entries(self) -> dict[str, Entry]:
        from mlflow.exceptions import MlflowException

        try:
            self.aliases = dict(self.client.get_registered_model(NAME).aliases)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.client.create_registered_model(NAME)
            self.aliases = {}
        found = self.client.search_model_versions(f"name = '{NAME}'")
        return {str(each.version): Entry(f"version {each.version}", each.run_id, dict(each.tags)) for each in found}

    def champion(self) -> str | None:
        return str(self.aliases["champion"]) if "champion" in self.aliases else None

    def add(self, run_id: str, tags: dict[str, str]) -> str:
        import mlflow

        return str(mlflow.register_model(f"runs:/{run_id}/model", NAME, tags=tags).version)

    def move(self, new: str, old: str | None) -> None:
        if old:
            self.client.set_registered_model_alias(NAME, "previous", old)
        self.client.set_registered_model_alias(NAME, "champion", new)


class Tagged:
    """The same by tags of runs, for a server without a registry."""

    def __init__(self, client, experiment: str):
        self.client, self.experiment = client, experiment

    def entries(self) -> dict[str, Entry]:
        found = self.client.search_runs([self.experiment], "tags.registered = 'true'")
        return {run.info.run_id: Entry(f"run {run.info.run_id}", run.info.run_id, dict(run.data.tags)) for run in found}

    def champion(self) -> str | None:
        found = self.client.search_runs([self.experiment], "tags.champion = 'champion'", max_results=1)
        return found[0].info.run_id if found else None

    def add(self, run_id: str, tags: dict[str, str]) -> str:
        for key, value in {**tags, "registered": "true"}.items():
            self.client.set_tag(run_id, key, value)
        return run_id

    def move(self, new: str, old: str | None) -> None:
        if old:
            self.client.set_tag(old, "champion", "previous")
        self.client.set_tag(new, "champion", "champion")


def promote(named: str | None, tags: dict[str, str]) -> str:
    """Let the champion of metrics/compare.json, or the model `named`, be the registered one; what was done, in one sentence."""
    import mlflow
    from mlflow.exceptions import MlflowException

    result = json.loads(paths.source("metrics/compare.json").read_text(encoding="utf-8"))
    name = named or result["champion"]
    model, answers = paths.source(f"models/{name}.pt2"), paths.source(f"models/{name}.safetensors")
    digests = {"model_digest": _digest(model), "data_digest": _digest(paths.source("data/train.safetensors"))}
    mlflow.set_tracking_uri(tracking.store_address())
    mlflow.set_registry_uri(tracking.store_address())
    client = mlflow.MlflowClient()
    experiment = tracking.experiment_of(client)
    registry = Versions(client)
    try:
        entries = registry.entries()
    except MlflowException as error:
        if error.error_code not in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "NOT_FOUND") and "404" not in str(error):
            raise
        registry = Tagged(client, experiment)
        entries = registry.entries()
    old = registry.champion()
    current = entries.get(old) if old else None
    if current and all(current.tags.get(key) == value for key, value in digests.items()):
        return f"{name} is the registered champion already ({current.place})."
    why = "" if named else _why_not(client, current, digests, answers)
    if why:
        return why
    place = next((key for key, each in entries.items() if all(each.tags.get(tag) == value for tag, value in digests.items())), None)
    if place is None:
        metrics = json.loads(paths.source(f"metrics/{name}.json").read_text(encoding="utf-8"))
        facts = {"model": name, "data": metrics["data"], "validation_accuracy": str(metrics["validation_accuracy"]), **digests, **tags}
        if name == result["champion"]:
            facts["test_accuracy"] = str(result["test_accuracy"])
        run_id = _run_with_model(client, experiment, name, digests["model_digest"])
        client.log_artifact(run_id, str(answers), "answers")
        place = registry.add(run_id, facts)
        entries = registry.entries()
    registry.move(place, old)
    return f"{name} is the registered champion now ({entries[place].place}{f', before: {current.place}' if current else ''})."


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _why_not(client, current: Entry | None, digests: dict[str, str], answers: Path) -> str:
    """Why the registered champion stays, or nothing: it goes when the new one is better on the same images, and not by chance."""
    if current is None:
        return ""
    was = f"The registered champion ({current.tags.get('model')}, {current.place})"
    if current.tags.get("data_digest") != digests["data_digest"]:
        return f"{was} was judged on other data and stays: make promote MODEL=... names another."
    from digits.comparison import mcnemar
    from digits.params import section

    with tempfile.TemporaryDirectory() as folder:
        # by address: the way by run asks a 2.x server for logged models, which it does not know
        stored = Path(_artifacts(client, current.run_id).download_artifacts(f"answers/{current.tags['model']}.safetensors", folder))
        test = mcnemar(_answers(answers), _answers(stored))
    if test.only_first > test.only_second and test.p_value < 1 - section("compare").confidence:
        return ""
    return (
        f"{was} stays: on {test.only_first + test.only_second} validation images one of the two alone is right, {test.only_first} times the new one, "
        f"which can be chance (p = {test.p_value:.2g}). make promote MODEL=... moves it all the same."
    )


def _artifacts(client, run_id: str):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(client.get_run(run_id).info.artifact_uri)


def _answers(path: Path):
    from safetensors.torch import load_file

    from digits.training import Evaluation

    tensors = load_file(path)
    return Evaluation(tensors["probabilities"], tensors["labels"])


def _run_with_model(client, experiment: str, name: str, digest: str) -> str:
    """The finished run that trained exactly this model, else a new one that holds the stored model (after a clone, say)."""
    found = client.search_runs([experiment], f"tags.model_digest = '{digest}' and attributes.status = 'FINISHED'")
    for run in found:
        if any(each.path == "model" for each in _artifacts(client, run.info.run_id).list_artifacts()):
            return run.info.run_id
    from digits import data, models

    made = client.create_run(experiment, run_name=f"{name}, stored", tags={"notebook": name, "model_digest": digest})
    with tempfile.TemporaryDirectory() as folder:
        models.save_for_mlflow(models.load(name), data.load(), Path(folder) / "model")
        client.log_artifacts(made.info.run_id, folder)
    client.set_terminated(made.info.run_id)
    return made.info.run_id


def main(words: list[str]) -> int:
    """Promote; 1 and one sentence on stderr where the store does not do it."""
    named = next((word for word in words if "=" not in word), None)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            said = promote(named, dict(word.split("=", 1) for word in words if "=" in word))
    except Exception as error:  # whatever library below the store: one sentence, and the results on disk are whole
        said = " ".join(tracking.without_credentials(str(error)).split())[:300]
        print(f"The registry at {tracking.without_credentials(tracking.store_address())} was not changed: {said}", file=sys.stderr)
        return 1
    print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
