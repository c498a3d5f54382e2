"""The champion as a registered model of MLflow, by the aliases champion, previous, challenger.

The alias `champion` moves when the hook `better` says so of both models' answers to the same cases
or, without the hook, when the metric is better on the same data; and always when a person names
the model. The run of a version ("NAME, promoted") holds the model, its ONNX file and its answers.
"""

import functools
import hashlib
import sys
import tempfile
from collections.abc import Callable
from operator import getitem
from pathlib import Path

from nbproof.notebook import params, served, tracking
from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import CONTRACT, digest, from_yaml, root, write_whole
from nbproof.pipeline import config

STAMP = ".dvc/tmp/promoted"  # the comparison that was promoted last: most runs need no MLflow
NONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for no such alias


def _reported(change: Callable[..., str]) -> Callable[..., int]:
    """Let `change` print what it did and return 0, or 1 where the store does not answer."""

    @functools.wraps(change)
    def reported(*words, **options) -> int:
        from mlflow.exceptions import MlflowException

        try:
            print(change(*words, **options))
            return 0
        except (MlflowException, OSError) as error:  # OSError: the network's, too
            trace()
            store, reason = map(tracking.without_credentials, (tracking.address(), str(error)))
            print(f"The registry at {store} was not changed: {reason}", file=sys.stderr)
            return 1

    return reported


@_reported
def promote(model: str = "", challenger: bool = False, evidence: bool = False) -> str:
    """Register the comparison's champion, or `model`.

    A `challenger` is registered beside the champion. `evidence` demands that the hook `better`
    prefers what the model answered as the challenger, by the labels that people gave.
    """
    name = model or config.load().compared().get("champion")
    if not name:
        raise UserError("There is no comparison yet, so no champion: nbproof run makes it.")
    tags, client = _tags(name), tracking.client()
    old = version_of(client, "champion")
    if challenger:
        return _challenge(client, old, tags)
    done = _promote(client, old, tags, bool(model), evidence)
    write_whole(root() / STAMP, _state())
    return done


@_reported
def rollback() -> str:
    """Exchange the aliases `champion` and `previous`."""
    client = tracking.client()
    now, before = version_of(client, "champion"), version_of(client, "previous")
    if not now or not before or now.version == before.version:
        raise UserError("There is no champion before this one: nbproof promote MODEL names one.")
    client.set_registered_model_alias(now.name, "previous", now.version)
    client.set_registered_model_alias(now.name, "champion", before.version)
    return (f"{_shown(before)} is the registered champion again (before: {_shown(now)}); servers "
            "follow by themselves.")


def promote_once() -> None:
    """Promote the comparison's champion where its result changed; this fails no run."""
    stamp = root() / STAMP
    try:
        state = _state()
        if state and not (stamp.exists() and stamp.read_text("utf-8") == state):
            promote()
    except UserError as error:
        print(f"The champion was not registered: {error}", file=sys.stderr)


def _state() -> str:
    """Return what the registry is to know of the comparison; empty where there is none."""
    project = config.load()
    if not (name := project.compared().get("champion")):
        return ""
    compared = digest(root() / "metrics" / f"{project.compare}.json")
    outputs = {out["path"]: out.get("md5") for out in recorded(name).get("outs", ())}
    store = hashlib.sha256(tracking.address().encode()).hexdigest()
    return f"{store} {compared} {[outputs.get(f'models/{name}{end}') for end in ('', '.onnx')]}"


def recorded(name: str) -> dict:
    """Return the stage of dvc.lock that wrote models/NAME, or {}."""
    lock = root() / "dvc.lock"
    stages = config.recorded(lock.read_text("utf-8") if lock.exists() else "").values()
    return next((stage for stage in stages
                 if f"models/{name}" in {out["path"] for out in stage.get("outs", ())}), {})


def data_in_use() -> str:
    """Return the parameter that names the data and its value (`data.source: NAME`), or ""."""
    if not (key := config.load().data):
        return ""
    try:
        return f"{key}: {functools.reduce(getitem, key.split('.'), params.read())}"
    except (KeyError, TypeError):
        raise UserError(f"{CONTRACT}: data is {key}, which params.yaml does not have.") from None


def _tags(name: str) -> dict[str, str]:
    """Return the tags of a version of the model `name`; UserError where it cannot be registered."""
    project, stage, folder = config.load(), recorded(name), root() / "models" / name
    key, metrics, described = project.metric.key, project.metrics(name), folder / "MLmodel"
    model = from_yaml(described.read_text("utf-8")) if described.exists() else {}
    if not (stage and model.get("signature") and key in metrics):
        raise UserError(f"{name!r} cannot be registered: that needs models/{name}, an MLflow model "
                        f"with a signature that dvc.lock records, and {key} in metrics/{name}.json "
                        "(nbproof run makes them, nbproof pull brings them).")
    inputs = sorted(f"{dep['path']} {dep['md5']}\n" for dep in stage["deps"]
                    if dep["path"].startswith("data/"))
    files = {part: folder.with_name(f"{name}.{end}")
             for part, end in (("portable", "onnx"), ("answers", "csv"))}
    tags = {f"{part}_digest": digest(file) for part, file in files.items() if file.exists()}
    if (compared := project.compared()).get("champion") == name:
        tags |= {key: value for key, value in compared.items() if type(value) in (int, float)}
    tags |= {
        "model": name, "model_digest": digest(folder), key: metrics[key],
        "data": data_in_use().rpartition(": ")[2],
        "data_digest": hashlib.sha256("".join(inputs).encode()).hexdigest(),
        "git_commit": tracking.commit(), "git_dirty": bool(tracking.changes()),
        "dvc_lock": digest(root() / "dvc.lock"),
    }
    return {tag: str(value) for tag, value in tags.items()}


def version_of(client, alias: str):
    """Return the version that `alias` names, an MLflow ModelVersion; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(config.load().name, alias)
    except MlflowException as error:
        if error.error_code in NONE:
            return None
        raise


def _promote(client, old, tags: dict[str, str], by_name: bool, evidence: bool) -> str:
    """Let the model of `tags` be the champion where it is better than `old`, or named."""
    name, metric = tags["model"], config.load().metric
    if old and _is_same(old, tags):
        return f"{name} is the registered champion already (version {old.version})."
    new_model = old and any(old.tags.get(tag) != tags[tag] for tag in ("model", "model_digest"))
    if new_model and not by_name and (reason := _why_not(client, old, tags)):
        return (f"The registered champion ({_shown(old)}) stays: {reason} nbproof promote {name} "
                "replaces it anyway.")
    new = _registered(client, tags)
    if evidence and old:
        _require_evidence(new, old)
    if old:
        client.set_registered_model_alias(new.name, "previous", old.version)
    client.set_registered_model_alias(new.name, "champion", new.version)
    before = f"before: version {old.version}" if old else ""
    details = ", ".join(filter(None, [f"version {new.version}", data_in_use(), before]))
    loss = ""
    if old and metric.key in old.tags:
        value, old_value = float(tags[metric.key]), float(old.tags[metric.key])
        if metric.better(old_value, value):
            loss = (f": {value:g} instead of {old_value:g} ({old.tags.get('model')}); nbproof "
                    "rollback undoes it")
    return f"{name} is the registered champion now ({details}){loss}."


def _challenge(client, champion, tags: dict[str, str]) -> str:
    if not champion or _is_same(champion, tags):
        raise UserError("A challenger needs another model as the champion: nbproof promote.")
    new = _registered(client, tags)
    client.set_registered_model_alias(new.name, "challenger", new.version)
    return (f"{tags['model']} is the challenger now (version {new.version}): it receives the same "
            "requests as the champion, and its answers are only logged.")


def _shown(version) -> str:
    return f"{version.tags.get('model')}, version {version.version}"


def _is_same(version, tags: dict[str, str]) -> bool:
    """Return whether `version` has the model and the ONNX file that `tags` describe."""
    same = ("model", "model_digest", "portable_digest")
    return all(version.tags.get(tag) == tags.get(tag) for tag in same)


def _registered(client, tags: dict[str, str]):
    """Return the version of the model of `tags`, which is registered now if it is not yet."""
    ours, name, key = config.load().name, tags["model"], config.load().metric.key
    for version in client.search_model_versions(f"name = '{ours}'"):
        if _is_same(version, tags):
            return version
    experiment, folder = tracking.experiment(client, ours), root() / "models" / name
    run = client.create_run(experiment, run_name=f"{name}, promoted", tags={"model": name}).info
    client.log_artifacts(run.run_id, str(folder), "model")
    for part, suffix in (("answers", "csv"), ("portable", "onnx")):
        if f"{part}_digest" in tags:
            client.log_artifact(run.run_id, f"{folder}.{suffix}", part)
    client.set_terminated(run.run_id)
    if not client.search_registered_models(f"name = '{ours}'"):
        client.create_registered_model(ours)
    about = f"{name}: {key} {tags[key]}; made at commit {tags['git_commit'][:10]}."
    # By address: by run, MLflow asks a 2.x server for logged models, which it does not know.
    return client.create_model_version(ours, f"{run.artifact_uri}/model", run.run_id, tags,
                                       description=about)


def _why_not(client, old, tags: dict[str, str]) -> str:
    """Return why the champion `old` stays, in a sentence; empty where the new model is better."""
    project, key = config.load(), config.load().metric.key
    new_rows = _rows(root() / "models" / f"{tags['model']}.csv")
    old_rows = _answers(client, old) if new_rows else []
    same_cases = [row["actual"] for row in new_rows] == [row["actual"] for row in old_rows]
    if new_rows and same_cases:
        if better := project.hook("better"):
            judged = better(new_rows, old_rows)
            return "" if judged["better"] else f"{judged['why'].rstrip('.')}."
    elif any(old.tags.get(tag) != tags[tag] for tag in ("data", "data_digest")):
        return f"it was judged on other data ({old.tags.get('data')}, now {tags['data']})."
    if key not in old.tags:
        return f"it has no {key} to compare with."
    value, old_value = float(tags[key]), float(old.tags[key])
    is_better = project.metric.better(value, old_value)
    return "" if is_better else f"its {key} is {old_value:g}, now {value:g}."


def _answers(client, version) -> list[dict[str, str]]:
    """Return the answers that were registered with `version`, a dict a row."""
    from mlflow.artifacts import download_artifacts

    if "answers_digest" not in version.tags:
        return []
    address = f"{tracking.artifacts(client.get_run(version.run_id))}/answers"
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(artifact_uri=f"{address}/{version.tags['model']}.csv",
                                  dst_path=folder, tracking_uri=client.tracking_uri)
        return _rows(Path(path))


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as texts by column; none where there is no file."""
    import pandas  # MLflow has imported it

    if not path.exists():
        return []
    return pandas.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


def _require_evidence(new, old) -> None:
    """Raise UserError where people's labels do not say that `new` is better than `old`."""
    if not (better := config.load().hook("better")):
        raise UserError(f"{CONTRACT} names no hook `better`, which judges evidence.")
    columns = served.served(version=str(old.version))
    rows = zip(*(columns[name] for name in ("label", "answer", "shadow_answer", "shadow_version")))
    labelled = [(label, first or "", second or "") for label, first, second, version in rows
                if label is not None and version == str(new.version)]
    if not labelled:
        raise UserError(f"There is no evidence yet: no answer of {_shown(new)}, as challenger of "
                        f"{_shown(old)}, has a label (nbproof promote --challenger).")
    judged = better(*([{"actual": row[0], "predicted": row[column]} for row in labelled]
                      for column in (2, 1)))
    if not judged["better"]:
        raise UserError(f"{_shown(old)} stays, on {len(labelled)} labelled answers: "
                        f"{judged['why']}")
