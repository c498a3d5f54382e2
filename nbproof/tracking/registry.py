"""The champion as a registered model, with the aliases `champion`, `previous` and `challenger`, which is served in the
champion's shadow; tags of runs where no registry is.

The alias moves when the project's hook `better` says so of both models' answers to the same cases, or, without the
hook, when the metric is better on the same data; and always when a person names the model.
"""

import contextlib
import csv
import hashlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from operator import getitem
from pathlib import Path, PurePosixPath

from nbproof.notebook import params, served, tracking
from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import digest, from_yaml, root, write_whole
from nbproof.pipeline import config

STAMP = ".dvc/tmp/promoted"  # what was promoted, so that a run that changes nothing asks no server
NO_REGISTRY = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", "NOT_FOUND")


@dataclass(frozen=True)
class Entry:
    """A registered model: `key` is its version, or its run's id where the server has no registry."""

    key: str
    run_id: str
    tags: dict[str, str]

    @property
    def version(self) -> str:
        """What servers call it, in their answers and in the log."""
        return f"run {self.key}" if self.key == self.run_id else self.key

    def __str__(self) -> str:
        return self.version if self.key == self.run_id else f"version {self.version}"


class Registry:
    """What the store of `client` has registered under the project's name."""

    def __init__(self, client):
        from mlflow.exceptions import MlflowException

        self.client, self.name, self.error = client, config.load().name, ""
        self.aliases: dict[str, str] = {}
        try:
            self.aliases = client.get_registered_model(self.name).aliases
        except MlflowException as error:
            self.error = error.error_code
            if self.error not in ("RESOURCE_DOES_NOT_EXIST", *NO_REGISTRY):
                raise
        self.by_runs = self.error in NO_REGISTRY

    def entries(self) -> list[Entry]:
        if self.by_runs:
            runs = tracking.runs(self.client, f"tags.registered = '{self.name}'")
            return [Entry(run.info.run_id, run.info.run_id, run.data.tags) for run in runs]
        versions = self.client.search_model_versions(f"name = '{self.name}'")
        return [Entry(str(each.version), each.run_id, each.tags) for each in versions]

    def champion(self) -> Entry | None:
        return self.named("champion")

    def named(self, alias: str) -> Entry | None:
        """What `alias` names."""
        if self.by_runs:
            return next((each for each in self.entries() if each.tags.get("champion") == alias), None)
        return next((each for each in self.entries() if each.key == str(self.aliases.get(alias))), None)

    def add(self, run_id: str, tags: dict[str, str]) -> Entry:
        """Register what the run holds as `model`."""
        if self.by_runs:
            for key, value in {**tags, "registered": self.name}.items():
                self.client.set_tag(run_id, key, value)
            return Entry(run_id, run_id, tags)
        if self.error:
            about = f"The champions of {self.name}: `champion` is in use, `previous` was before."
            self.client.create_registered_model(self.name, description=about)
        # by address: the way by run asks a 2.x server for logged models, which it does not know
        place = f"{self.client.get_run(run_id).info.artifact_uri}/model"
        key = config.load().metric.key
        about = f"{tags['model']}: {key} {tags[key]}; made at commit {tags['git_commit'][:10]}."
        version = self.client.create_model_version(self.name, place, run_id, tags, description=about)
        return Entry(str(version.version), run_id, tags)

    def move(self, new: Entry, old: Entry | None) -> None:
        """Let `new` be the champion, and `old` the one before it."""
        for entry, alias in ((old, "previous"), (new, "champion")):
            if entry:
                self.name_it(entry, alias)

    def name_it(self, entry: Entry, alias: str) -> None:
        """Let `alias` name `entry`, and nothing else."""
        if not self.by_runs:
            self.client.set_registered_model_alias(self.name, alias, entry.key)
            return
        for before in self.entries():
            if before.tags.get("champion") == alias and before.key != entry.key:
                self.client.set_tag(before.key, "champion", "")
        self.client.set_tag(entry.key, "champion", alias)


def promote(model: str = "", challenger: bool = False, evidence: bool = False) -> int:
    """Register the comparison's champion, or `model`; 0 if the store did it or need not, 1 where it does not answer.

    As a `challenger` the model is registered, and the champion stays. `evidence` asks that the hook `better` says so of
    the answers that it gave in the champion's shadow, and the labels that people gave.
    """
    name = model or config.load().compared().get("champion")
    if not name:
        raise UserError("There is no comparison yet, so no champion: nbproof run makes it.")
    facts = _facts(name)
    if challenger:
        asked = partial(_challenge, name, facts)
    else:
        asked = partial(_promote, name, facts, named=bool(model), evidence=evidence)
    if (code := _in_store(asked)) == 0 and not challenger:
        write_whole(root() / STAMP, _state())
    return code


def rollback() -> int:
    """Let the alias `champion` name the version before, which the alias `previous` keeps; 1 where no store answers."""
    return _in_store(_rollback)


def _rollback() -> str:
    registry = Registry(tracking.client())
    now, before = registry.champion(), registry.named("previous")
    if not now or not before or now.key == before.key:
        raise UserError("There is no champion before this one: nbproof promote MODEL names another one.")
    registry.move(before, now)
    return (f"{before.tags.get('model')} ({before}) is the registered champion again (before: {now.tags.get('model')}, "
            f"{now}); servers follow by themselves.")


def _in_store(change: Callable[[], str]) -> int:
    """Print what `change` did in the store; 1 where the store does not do it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            said = change()
    except UserError:
        raise
    except Exception as error:  # of whatever library below the store; the results on disk are whole
        trace()
        store, reason = map(tracking.without_credentials, (tracking.address(), str(error)))
        print(f"The registry at {store} was not changed: {reason.rstrip('.')}.", file=sys.stderr)
        return 1
    print(said)
    return 0


def promote_once() -> None:
    """The last step of a run, and nothing where this very state was promoted before; it fails no run."""
    stamp = root() / STAMP
    if not config.load().compared() or stamp.exists() and stamp.read_text(encoding="utf-8") == _state():
        return
    try:
        promote()
    except UserError as refused:
        print(f"The champion was not registered: {refused}", file=sys.stderr)


def data_in_use() -> str:
    """The parameter that names the data, with its value (`data.source: NAME`); empty where project.yaml names none."""
    if not (key := config.load().data):
        return ""
    try:
        return f"{key}: {reduce(getitem, key.split('.'), params.read())}"
    except (KeyError, TypeError):
        raise UserError(f"{config.CONTRACT}: data is {key}, which params.yaml does not have.") from None


def trained() -> dict[str, dict]:
    """What dvc.lock says of each stage that writes models/NAME and metrics/NAME.json, by NAME."""
    lock = root() / "dvc.lock"
    found = {}
    for stage in config.recorded(lock.read_text(encoding="utf-8") if lock.exists() else "").values():
        paths = {each["path"] for each in stage.get("outs", ())}
        names = {path.removeprefix("models/") for path in paths if path.startswith("models/")}
        found |= {name: stage for name in names if f"metrics/{name}.json" in paths}
    return found


def _state() -> str:
    return f"{digest(root() / 'dvc.lock')} {hashlib.sha256(tracking.address().encode()).hexdigest()}"


def _facts(name: str) -> dict[str, str]:
    """The tags of the model `name`; UserError where it is none that can be registered."""
    known, key, folder = trained(), config.load().metric.key, root() / "models" / name
    if name not in known:
        raise UserError(f"There is no trained model {name!r}; there are {', '.join(sorted(known)) or 'none'}.")
    described = folder / "MLmodel"
    if not described.exists() or not from_yaml(described.read_text(encoding="utf-8")).get("signature"):
        raise UserError(f"models/{name} is not an MLflow model with a signature; only such a model can be registered "
                      "(nbproof pull brings what is missing here).")
    metrics = config.load().metrics(name)
    if key not in metrics:
        raise UserError(f"metrics/{name}.json has no {key}, the metric that {config.CONTRACT} names.")
    compared = config.load().compared()
    own = compared if compared.get("champion") == name else {}
    numbers = {each: value for each, value in own.items() if isinstance(value, int | float)}
    inputs = [f"{dep['path']} {dep['md5']}\n" for dep in known[name]["deps"] if dep["path"].startswith("data/")]
    facts = {
        "model": name, "model_digest": digest(folder), "data": data_in_use().rpartition(": ")[2],
        "data_digest": hashlib.sha256("".join(sorted(inputs)).encode()).hexdigest(),
        "git_commit": tracking.commit(), "git_dirty": bool(tracking.changes()), "dvc_lock": digest(root() / "dvc.lock"),
    }
    if (portable := folder.with_name(f"{name}.onnx")).exists():
        facts["portable_digest"] = digest(portable)
    return {tag: str(value) for tag, value in {**numbers, key: metrics[key], **facts}.items()}


def _promote(name: str, facts: dict[str, str], named: bool, evidence: bool) -> str:
    """Let `name` be the registered champion where it should be; what was done, in one sentence."""
    client = tracking.client()
    registry = Registry(client)
    old = registry.champion()
    if old and _is_same(old, facts):
        _keep(client, old.run_id, name)
        return f"{name} is the registered champion already ({old})."
    if old and not named and not _is_model(old, facts) and (why := _why_not(client, old, facts)):
        was = f"The registered champion ({old.tags.get('model')}, {old})"
        return f"{was} stays: {why} nbproof promote {name} replaces it anyway."
    entry = _entry(client, registry, name, facts)
    if evidence and old:
        _require_evidence(entry, old)
    registry.move(entry, old)
    details = filter(None, [str(entry), data_in_use(), old and f"before: {old}"])
    return f"{name} is the registered champion now ({', '.join(details)})."


def _require_evidence(new: Entry, old: Entry) -> None:
    """UserError where what `new` answered in the shadow of `old`, and people's labels, do not say it is better."""
    better = config.load().hook("better")
    if better is None:
        raise UserError(f"{config.CONTRACT} names no hook `better`, which judges evidence.")
    columns = served.served(version=old.version)
    rows = zip(*(columns[name] for name in ("label", "answer", "shadow_answer", "shadow_version")))
    labelled = [(label, first or "", second or "") for label, first, second, version in rows
                if label is not None and version == new.version]
    if not labelled:
        raise UserError(f"There is no evidence yet: the log has no labelled answer of {new.tags.get('model')} ({new}) in "
                      f"the shadow of {old.tags.get('model')} ({old}). nbproof promote --challenger puts it there.")
    judged = better(*([{"actual": row[0], "predicted": row[place]} for row in labelled] for place in (2, 1)))
    if not judged["better"]:
        raise UserError(f"{old.tags.get('model')} ({old}) stays, on {len(labelled)} labelled answers: {judged['why']}")


def _challenge(name: str, facts: dict[str, str]) -> str:
    """Let `name` answer in the champion's shadow; what was done, in one sentence."""
    client = tracking.client()
    registry = Registry(client)
    champion = registry.champion()
    if champion is None:
        raise UserError("There is no champion yet that could be challenged: nbproof promote names one.")
    entry = _entry(client, registry, name, facts)
    if entry.key == champion.key:
        raise UserError(f"{name} is the champion ({champion}); a challenger is another model.")
    registry.name_it(entry, "challenger")
    return f"{name} is the challenger now ({entry}): servers ask it, too, and nobody hears it."


def _entry(client, registry: Registry, name: str, facts: dict[str, str]) -> Entry:
    """The registered model that `name` is, registered now if it is not."""
    entry = next((each for each in registry.entries() if _is_same(each, facts)), None)
    if entry is None:
        return registry.add(_run_with_model(client, name, facts), facts)
    _keep(client, entry.run_id, name)
    return entry


def _is_same(entry: Entry, facts: dict[str, str]) -> bool:
    """Whether `entry` is the model of `facts`, also in its portable form, which knows when it does not know."""
    return _is_model(entry, facts) and entry.tags.get("portable_digest") in (None, facts.get("portable_digest"))


def _is_model(entry: Entry, facts: dict[str, str]) -> bool:
    return all(entry.tags.get(key) == facts[key] for key in ("model", "model_digest"))


def is_here(entry: Entry) -> Path | None:
    """The folder models/NAME, if it is the very model of `entry`."""
    folder = root() / "models" / entry.tags.get("model", "")
    same = folder.is_dir() and folder.parent.name == "models" and digest(folder) == entry.tags.get("model_digest")
    return folder if same else None


def _why_not(client, old: Entry, facts: dict[str, str]) -> str:
    """Why the registered champion `old` stays, in a sentence; empty where the new one takes its place."""
    contract, name = config.load(), facts["model"]
    better, key = contract.hook("better"), contract.metric.key
    new_answers = _rows(root() / "models" / f"{name}.csv")
    old_answers = _registered_answers(client, old) if new_answers else []
    same_cases = bool(new_answers) and [row["actual"] for row in new_answers] == [row["actual"] for row in old_answers]
    if better and same_cases:
        judged = better(new_answers, old_answers)
        return "" if judged["better"] else f"{judged['why'].rstrip('.')}."
    if not same_cases and any(old.tags.get(tag) != facts[tag] for tag in ("data", "data_digest")):
        names = f" ({old.tags.get('data')}, now it is {facts['data']})" if old.tags.get("data") != facts["data"] else ""
        return f"it was judged on other data{names}."
    if key not in old.tags:
        return f"it has no {key} to compare with."
    new_value, old_value = float(facts[key]), float(old.tags[key])
    return "" if contract.metric.better(new_value, old_value) else f"its {key} is {old_value:g}, now {new_value:g}."


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _registered_answers(client, entry: Entry) -> list[dict[str, str]]:
    """The answers of a registered model: of this folder, where it has the model, or of its run."""
    from mlflow.artifacts import download_artifacts, list_artifacts

    if here := is_here(entry):
        return _rows(here.with_name(f"{here.name}.csv"))
    place, store = f"{client.get_run(entry.run_id).info.artifact_uri}/answers", client.tracking_uri
    name = f"{entry.tags.get('model')}.csv"
    known = {PurePosixPath(each.path).name for each in list_artifacts(artifact_uri=place, tracking_uri=store)}
    with tempfile.TemporaryDirectory() as folder:
        if name in known:
            download_artifacts(artifact_uri=f"{place}/{name}", dst_path=folder, tracking_uri=store)
        return _rows(Path(folder) / name)


def _run_with_model(client, name: str, facts: dict[str, str]) -> str:
    """The newest run that trained exactly this model and holds no other portable form of it, else a new one (after a
    clone, say); it holds the model then."""
    tags = {"notebook": name, "model_digest": facts["model_digest"]}
    query = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    portable, finished = facts.get("portable_digest"), f"{query} and attributes.status = 'FINISHED'"
    found = [run for run in tracking.runs(client, finished)
             if run.data.tags.get("portable_digest") == portable or not _held(client, run.info.run_id)]
    experiment = tracking.experiment(client, config.load().name)
    run = found[-1] if found else client.create_run(experiment, run_name=f"{name}, stored", tags=tags)
    _keep(client, run.info.run_id, name)
    if not found:
        client.set_terminated(run.info.run_id)
    return run.info.run_id


def _keep(client, run_id: str, name: str) -> None:
    """Let the run hold the model, its portable form and its answers, where it does not yet, or any more."""
    folder = root() / "models" / name
    answers, portable = (folder.with_name(f"{name}.{ending}") for ending in ("csv", "onnx"))
    held = {part for part in ("model", "answers", "portable") if _held(client, run_id, part)}
    if "model" not in held:
        client.log_artifacts(run_id, str(folder), "model")
    if answers.exists() and "answers" not in held:
        client.log_artifact(run_id, str(answers), "answers")
    if portable.exists() and "portable" not in held:
        client.log_artifact(run_id, str(portable), "portable")
        client.set_tag(run_id, "portable_digest", digest(portable))


def _held(client, run_id: str, part: str = "portable") -> bool:
    """Whether a run holds the artifact `part`; asked by address: see Registry.add."""
    from mlflow.artifacts import list_artifacts

    place = f"{client.get_run(run_id).info.artifact_uri}/{part}"
    return bool(list_artifacts(artifact_uri=place, tracking_uri=client.tracking_uri))
