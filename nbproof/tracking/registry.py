"""The champion as a registered model of MLflow, by the aliases champion, previous, challenger.

The alias `champion` moves when the hook `better` says so of both models' answers to the same cases
or, without the hook, when the metric is better on the same data; and always when a person names
the model. The run of a version ("NAME, promoted") holds the model, its ONNX file and its answers.
"""

import contextlib
import csv
import functools
import hashlib
import json
import re
import sys
import tempfile
from operator import getitem
from pathlib import Path

from nbproof.notebook import params, served, tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import CONTRACT, digest, from_yaml, root, write_whole
from nbproof.pipeline import config

STAMP = ".dvc/tmp/promoted"  # the comparison that was promoted last: most runs need no MLflow
FILES = {"portable": "onnx", "answers": "csv"}  # what a version may have beside the model
NONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for no such alias


@contextlib.contextmanager
def _registry():
    """Yield a client of the registry; UserError where the store does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        yield tracking.client()
    except (MlflowException, OSError) as error:  # OSError: the network's, too
        store, reason = map(tracking.without_credentials, (tracking.address(), str(error)))
        raise UserError(f"The registry at {store} was not changed: {reason}") from error


def promote(model: str = "", challenger: bool = False, evidence: bool = False) -> int:
    """Register the comparison's champion if it is better, or `model`; print what was done.

    A `challenger` is registered beside the champion. `evidence` demands that the hook `better`
    prefers what the model answered as the challenger, by the labels that people gave.
    """
    name = model or config.load().compared().get("champion")
    if not name:
        raise UserError("There is no comparison yet, so no champion: nbproof run makes it.")
    tags, reason = _tags(name), ""
    with _registry() as client:
        old = version_of(client, "champion")
        is_same = old and _is_same(old, tags)
        if challenger:
            if not old or is_same:
                raise UserError("A challenger needs another model as the champion.")
            new = _registered(client, tags)
            client.set_registered_model_alias(new.name, "challenger", new.version)
            print(f"{name} is the challenger now (version {new.version}): it receives the same "
                  "requests as the champion, and its answers are only logged.")
            return 0
        if old and not is_same and (evidence or not model):
            reason = _why_not(client, old, tags, evidence)
        if is_same:
            print(f"{name} is the registered champion already (version {old.version}).")
        elif reason:
            print(f"The registered champion ({_shown(old)}) stays: {reason} nbproof promote {name} "
                  "replaces it anyway.")
        else:
            new = _registered(client, tags)
            _set_champion(client, new, old)
            details = [f"version {new.version}", data_in_use()]
            if old:
                key = config.load().metric.key
                details.append(f"before: version {old.version}, {key} {old.tags.get(key)}, now "
                               f"{tags[key]}; nbproof rollback undoes it")
            print(f"{name} is the registered champion now ({', '.join(filter(None, details))}).")
    write_whole(root() / STAMP, _state())
    return 1 if evidence and reason else 0


def rollback() -> int:
    """Exchange the aliases `champion` and `previous`."""
    with _registry() as client:
        now, before = version_of(client, "champion"), version_of(client, "previous")
        if not now or not before or now.version == before.version:
            raise UserError("There is no champion before this one: nbproof promote MODEL names "
                            "one.")
        _set_champion(client, before, now)
    print(f"{_shown(before)} is the registered champion again (before: {_shown(now)}); servers "
          "follow by themselves.")
    return 0


def _set_champion(client, new, old) -> None:
    if old:
        client.set_registered_model_alias(old.name, "previous", old.version)
    client.set_registered_model_alias(new.name, "champion", new.version)


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
    """Return a digest of what the registry is to know of the comparison; "" where there is none."""
    compared = config.load().compared()
    if not (name := compared.get("champion")):
        return ""
    # To parse dvc.lock takes longer than the rest of a run with nothing to do.
    lock = (root() / "dvc.lock").read_text("utf-8")
    models = re.findall(rf"path: models/{re.escape(name)}\S*\n\s+hash: \S+\n\s+md5: \S+", lock)
    return hashlib.sha256(json.dumps([tracking.address(), compared, models]).encode()).hexdigest()


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
    tags = {
        "model": name, "model_digest": digest(folder), key: str(metrics[key]),
        "data": data_in_use().rpartition(": ")[2],
        "data_digest": hashlib.sha256("".join(inputs).encode()).hexdigest(),
        "git_commit": tracking.commit(), "dvc_lock": digest(root() / "dvc.lock"),
    }
    for part, suffix in FILES.items():
        if (file := folder.with_name(f"{name}.{suffix}")).exists():
            tags[f"{part}_digest"] = digest(file)
    return tags


def version_of(client, alias: str):
    """Return the version that `alias` names, an MLflow ModelVersion; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(config.load().name, alias)
    except MlflowException as error:
        if error.error_code in NONE:
            return None
        raise


def _shown(version) -> str:
    return f"{version.tags.get('model')}, version {version.version}"


def _is_same(version, tags: dict[str, str]) -> bool:
    """Return whether `version` has the model and the ONNX file that `tags` describe."""
    same = ("model", "model_digest", "portable_digest")
    return all(version.tags.get(tag) == tags.get(tag) for tag in same)


def _registered(client, tags: dict[str, str]):
    """Return the version of the model of `tags`, which is registered now if it is not yet."""
    ours, name = config.load().name, tags["model"]
    for version in client.search_model_versions(f"name = '{ours}'"):
        if _is_same(version, tags):
            return version
    experiment, folder = tracking.experiment(client, ours), root() / "models" / name
    run = client.create_run(experiment, run_name=f"{name}, promoted", tags={"model": name}).info
    client.log_artifacts(run.run_id, str(folder), "model")
    for part, suffix in FILES.items():
        if f"{part}_digest" in tags:
            client.log_artifact(run.run_id, f"{folder}.{suffix}", part)
    client.set_terminated(run.run_id)
    if not client.search_registered_models(f"name = '{ours}'"):
        client.create_registered_model(ours)
    # By address: by run, MLflow asks a 2.x server for logged models, which it does not know.
    return client.create_model_version(ours, f"{run.artifact_uri}/model", run.run_id, tags)


def _why_not(client, old, tags: dict[str, str], evidence: bool) -> str:
    """Return why the champion `old` stays, in a sentence; empty where the new model is better."""
    project, model, key = config.load(), tags["model"], config.load().metric.key
    if not evidence and old.tags.get("model_digest") == tags["model_digest"]:
        return ""  # only its ONNX file is another
    if evidence:
        new_rows, old_rows = _labelled(client, old)
    else:
        new_rows, old_rows = _rows(root() / "models" / f"{model}.csv"), _answers(client, old)
    same_cases = [row["actual"] for row in new_rows] == [row["actual"] for row in old_rows]
    if new_rows and same_cases and (better := project.hook("better")):
        judged = better(new_rows, old_rows)
        return "" if judged["better"] else f"{judged['why'].rstrip('.')}."
    if evidence:
        raise UserError(f"There is no evidence: that needs the hook `better` in {CONTRACT}, and "
                        f"labels for answers of {model} as the challenger of {_shown(old)}.")
    same_data = all(old.tags.get(tag) == tags[tag] for tag in ("data", "data_digest"))
    if not same_data and not (new_rows and same_cases):
        return f"it was judged on other data ({old.tags.get('data')}, now {tags['data']})."
    if key not in old.tags:
        return f"it has no {key} to compare with."
    is_better = project.metric.better(float(tags[key]), float(old.tags[key]))
    return "" if is_better else f"its {key} is {old.tags[key]}, now {tags[key]}."


def _answers(client, version) -> list[dict[str, str]]:
    """Return the answers that were registered with `version`, a dict a row."""
    from mlflow.artifacts import download_artifacts

    if "answers_digest" not in version.tags:
        return []
    address = f"{tracking.artifacts(client.get_run(version.run_id))}/answers"
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(f"{address}/{version.tags['model']}.csv", dst_path=folder,
                                  tracking_uri=client.tracking_uri)
        return _rows(Path(path))


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file as texts by column; none where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _labelled(client, old) -> tuple[list[dict], list[dict]]:
    """Return the labelled answers of the challenger and of the champion `old`, a dict a row."""
    new_rows, old_rows = [], []
    log, challenger = served.served(version=str(old.version)), version_of(client, "challenger")
    for label, version, new, answer in zip(
            log["label"], log["shadow_version"], log["shadow_answer"], log["answer"]):
        if label is not None and challenger and version == str(challenger.version):
            new_rows.append({"actual": label, "predicted": new or ""})
            old_rows.append({"actual": label, "predicted": answer or ""})
    return new_rows, old_rows
