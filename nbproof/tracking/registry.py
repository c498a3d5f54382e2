"""The champion as a registered model of MLflow, by the aliases champion, previous, challenger.

The alias `champion` moves when the hook `better` says so of both models' answers to the same cases
or, without the hook, when the metric is better on the same data; and always when a person names
the model. The run of a version ("NAME, promoted") holds the model, its ONNX file and its answers.
"""

import json
import sys

import typer

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, from_yaml, root, write_whole
from nbproof.pipeline import config, verdict
from nbproof.tracking import versions

UNCHANGED = "The registry at {store} was not changed: {reason}"
STAMP = ".dvc/tmp/promoted"  # the comparison that was promoted last: most runs need no registry
FILES = {"portable": "onnx", "answers": "csv"}  # what a version may have beside the model
SAME = ("model", "model_digest", "portable_digest")  # the tags by which two versions are one


def promote(model: str = "", challenger: bool = False, yes: bool = False) -> int:
    """Register the comparison's champion if it is better, or `model`; print what was done.

    A `challenger` is registered beside the champion. On a terminal, ask before `model` replaces
    another one, unless `yes`.
    """
    name = model or config.load().compared().get("champion")
    if not name:
        raise UserError("There is no comparison yet, so no champion: nbproof run makes it.")
    tags = _tags(name)
    with tracking.refused(UNCHANGED):
        client, old = tracking.client(), versions.current("champion")
        is_same = old is not None and _is_same(old, tags)
        if challenger and (not old or is_same):
            raise UserError("A challenger needs another model as the champion.")
        if challenger:
            version = _register(client, tags, "challenger")
            print(f"{name} is the challenger now (version {version}): it receives the same "
                  "requests as the champion, and its predictions are only logged.")
        elif is_same:
            print(f"{name} is the registered champion already (version {old.version}).")
        elif old and not model and (reason := _why_not(old, tags)):
            print(f"The registered champion ({old}) stays: {reason.rstrip('.')}. nbproof promote "
                  f"{name} replaces it anyway.")
        elif old and model and not yes and sys.stdin.isatty() and not typer.confirm(
                f"{name}: {_instead(old, tags)}. Is it to be the champion?"):
            print(f"The registered champion ({old}) stays.")
        else:
            facts = [f"version {_register(client, tags, 'champion', old)}", data_in_use()]
            before = f": {_instead(old, tags)}; nbproof rollback undoes it" if old else ""
            print(f"{name} is the registered champion now ({', '.join(filter(None, facts))})"
                  f"{before}.")
    write_whole(root() / STAMP, _state())
    return 0


def _instead(old: versions.ModelVersion, tags: dict[str, str]) -> str:
    """Return the metric of both models (`rmse 2.5 instead of 0.5 (near, version 1)`)."""
    key = config.load().metric.key
    return f"{key} {tags[key]} instead of {old.tags.get(key)} ({old})" if key else f"not {old}"


def rollback() -> int:
    """Exchange the aliases `champion` and `previous`."""
    with tracking.refused(UNCHANGED):
        client = tracking.client()
        now, before = map(versions.current, ("champion", "previous"))
        if not now or not before or now.version == before.version:
            raise UserError("There is no champion before this one: nbproof promote MODEL names "
                            "one.")
        for alias, version in (("previous", now), ("champion", before)):
            client.set_registered_model_alias(config.load().name, alias, version.version)
    print(f"{before} is the registered champion again (before: {now}); servers "
          "follow by themselves.")
    return 0


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
    """Return what the registry is to know of the comparison, as text; "" where there is none."""
    compared, server = config.load().compared(), tracking.without_credentials(tracking.address())
    name = compared.get("champion")
    return json.dumps([server, compared, _identity(name)]) if name else ""


def data_in_use() -> str:
    """Return the parameter that names the data and its value (`data.source: NAME`), or ""."""
    key = config.load().data
    return f"{key}: {config.data_value()}" if key else ""


def _identity(name: str) -> dict[str, str]:
    """Return the model's name and the digests of its files; UserError where it has no signature."""
    folder = root() / "models" / name
    described = folder / "MLmodel"
    model = from_yaml(described.read_text("utf-8")) if described.exists() else {}
    if not model.get("signature"):
        raise UserError(f"{name!r} cannot be registered: that needs models/{name}, an MLflow model "
                        "with a signature (nbproof run makes it, nbproof pull brings it).")
    files = {part: folder.with_name(f"{name}.{suffix}") for part, suffix in FILES.items()}
    return {"model": name, "model_digest": digest(folder)} | {
        f"{part}_digest": digest(file) for part, file in files.items() if file.exists()}


def _tags(name: str) -> dict[str, str]:
    """Return the tags of a version of the model `name`; UserError where it cannot be registered."""
    key, identity = config.load().metric.key, _identity(name)
    if problem := config.check_metrics(name):
        raise UserError(f"{name!r} cannot be registered, {problem}")
    return identity | {
        "data": data_in_use().rpartition(": ")[2], "git_commit": tracking.commit(),
        "git_dirty": str(bool(tracking.changes())).lower(),
        **({key: str(config.load().metrics(name)[key])} if key else {})}


def _is_same(version, tags: dict[str, str]) -> bool:
    return all(version.tags.get(tag) == tags.get(tag) for tag in SAME)


def _register(client, tags: dict[str, str], alias: str,
              old: versions.ModelVersion | None = None) -> str:
    """Let `alias` name the version of the model of `tags`, made where it is missing; return it.

    The version `old`, which the alias named, is `previous` then.
    """
    ours, name = config.load().name, tags["model"]
    folder = root() / "models" / name
    known = client.search_model_versions(f"name = '{ours}'")
    if not (same := [version for version in known if _is_same(version, tags)]):
        experiment = tracking.experiment(client, ours)
        run = client.create_run(experiment, run_name=f"{name}, promoted", tags={"model": name}).info
        client.log_artifacts(run.run_id, str(folder), "model")
        for part, suffix in FILES.items():
            if f"{part}_digest" in tags:
                client.log_artifact(run.run_id, f"{folder}.{suffix}", part)
        client.set_terminated(run.run_id)
        if not client.search_registered_models(f"name = '{ours}'"):
            client.create_registered_model(ours)
        # By address: by run, MLflow asks a 2.x server for logged models, which it does not know.
        uri = f"{run.artifact_uri}/model"
        same = [client.create_model_version(ours, uri, run.run_id, tags)]
    if old:
        client.set_registered_model_alias(ours, "previous", old.version)
    client.set_registered_model_alias(ours, alias, same[0].version)
    return same[0].version


def _why_not(old: versions.ModelVersion, tags: dict[str, str]) -> str:
    """Return why the champion `old` stays, in a sentence; empty where the new model is better."""
    name, before = tags["model"], old.tags
    if before.get("model_digest") == tags["model_digest"]:
        return ""  # only its ONNX file is another
    file = root() / "models" / f"{name}.csv"
    was = _result(before, versions.read(old, f"answers/{old.model}.csv"))
    now = _result(tags, file.read_bytes() if file.exists() else None)
    if before.get("data") != tags["data"] and not (was.answers and now.answers):
        return f"it was evaluated on other data ({before.get('data')}, now {tags['data']})"
    judged = verdict.judge(verdict.Side({name: was}), verdict.Side({name: now})).of(name)
    if judged and judged.kind == "better" and not judged.why.startswith(verdict.HOOK_FAILED):
        return ""
    if not judged:
        return "neither a metric nor a hook `better` finds the new one better"
    return judged.why or judged.sentence(str, str)


def _result(tags: dict[str, str], answers: bytes | None) -> verdict.Result:
    """Return a version's metric and predictions, from its tags and its file of answers."""
    key = config.load().metric.key
    value = (float(tags[key]) if key in tags else None) if key else 0.0  # the hook alone decides
    return verdict.Result(value, verdict.rows((answers or b"").decode()))
