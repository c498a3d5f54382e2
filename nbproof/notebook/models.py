"""MLflow models as outputs: the same model gives the same bytes, on any machine, at any time."""

import base64
import contextlib
import io
import json
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import output, write

CHECKS = 8  # cases with their outputs in an ONNX file
VARIES = {"model_uuid", "model_id", "run_id", "utc_time_created", "artifact_path",
          "model_size_bytes"}


def save_model(name: str, save: Callable[[Path], None]) -> Path:
    """Let `save(folder)` write an MLflow model, and make it the output models/NAME, whole.

    `save` calls, say, `mlflow.sklearn.save_model(model, folder, signature=..., pip_requirements=
    [...])`; without requirements MLflow takes seconds to guess them. UserError if it saves no
    model, or one without a signature; the earlier one stays then.
    """
    path = output(f"models/{name}")
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=path.parent) as folder:
        beside = Path(folder) / name
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            save(beside)
        _describe(name, beside)
        for archive in beside.rglob("*.skops"):
            archive.write_bytes(_without_times(archive.read_bytes()))
        shutil.rmtree(path, ignore_errors=True)
        beside.rename(path)
    return path


def save_onnx(name: str, model: object, example: object, labels: Sequence[str] = ()) -> Path:
    """Write models/NAME.onnx, which servers and browsers run: of scikit-learn or of PyTorch.

    `example` has some inputs [N, ...]: a table or an array of numbers, for PyTorch a tensor. With
    `labels`, a PyTorch model must return their probabilities [N, labels]; a scikit-learn
    classifier has labels of its own. The file holds eight cases with their outputs: whoever loads
    it compares them.
    """
    import numpy as np
    import onnx
    import onnxruntime

    graph = onnx.load_from_string(_graph(name, model, example[:CHECKS], bool(labels)))
    labels = [*map(str, getattr(model, "classes_", labels))]
    inputs = np.asarray(example[:CHECKS], np.float32)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    first = "probabilities" if "probabilities" in names else names[0]
    (outputs,) = session.run([first], {session.get_inputs()[0].name: inputs})
    checks = {f"check_{key}": base64.b64encode(array.astype("<f4").tobytes()).decode()
              for key, array in (("inputs", inputs), ("probabilities", outputs))}
    onnx.helper.set_model_props(graph, checks | {"labels": json.dumps(labels)})
    return write(f"models/{name}.onnx", graph.SerializeToString(deterministic=True))


def _graph(name: str, model: object, example: object, is_classifier: bool) -> bytes:
    """Return a model as ONNX for any number of cases, all of whose inputs are one array."""
    if not hasattr(model, "state_dict"):
        import numpy as np
        import skl2onnx

        options = {"zipmap": False} if hasattr(model, "classes_") else None
        array = np.asarray(example, np.float32)
        return skl2onnx.to_onnx(model, array, name, options=options).SerializeToString()
    import torch

    file, output = io.BytesIO(), "probabilities" if is_classifier else "outputs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the newer exporter needs two more packages
        torch.onnx.export(model.eval(), (example,), file, dynamo=False, opset_version=18,
                          input_names=["inputs"], output_names=[output],
                          dynamic_axes={key: {0: "cases"} for key in ("inputs", output)})
    return file.getvalue()


def _describe(name: str, folder: Path) -> None:
    """Take out of a saved model's description what differs by machine, or raise UserError."""
    import yaml

    described = folder / "MLmodel"
    facts = yaml.safe_load(described.read_text(encoding="utf-8")) if described.is_file() else {}
    if not (facts.get("signature") or {}).get("inputs"):
        raise UserError(f"models/{name} is no MLflow model with a signature: save(folder) must "
                        "save one, with signature=infer_signature(INPUT, OUTPUT).")
    facts = {key: value for key, value in facts.items() if key not in VARIES}
    for flavor in facts["flavors"].values():  # both name the Python of this machine
        flavor.pop("python_version", None)
        flavor.pop("env", None)
    described.write_text(yaml.safe_dump(facts), encoding="utf-8")
    (folder / "conda.yaml").unlink(missing_ok=True)
    (folder / "python_env.yaml").unlink(missing_ok=True)
    for file in filter(Path.is_file, (described, folder / "requirements.txt")):
        text = file.read_text(encoding="utf-8")  # 2.1.0+cpu and 2.1.0+cu126 are one version
        text = re.sub(r"(?m)((==|version: )[\w.]+)\+[\w.]+$", r"\1", text)
        file.write_text(text, encoding="utf-8")


def _without_times(archive: bytes) -> bytes:
    """Return a ZIP archive of skops or NumPy without times; numbers replace places in memory."""
    names: dict[object, object] = {}

    def renumber(node: dict) -> dict:
        if "__id__" in node:
            node["__id__"] = names.setdefault(node["__id__"], len(names))
        if isinstance(file := node.get("file"), str):
            node["file"] = names.setdefault(file, f"{len(names)}{Path(file).suffix}")
        if "_stop_words_id" in node:  # of scikit-learn's text vectorizers
            node["_stop_words_id"]["content"] = "0"
        return node

    plain = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(plain, "w") as new:
        contents = {name: old.read(name) for name in old.namelist()}
        if schema := contents.get("schema.json"):
            contents["schema.json"] = json.dumps(json.loads(schema, object_hook=renumber)).encode()
        for name, content in sorted((names.get(name, name), contents[name]) for name in contents):
            content = _without_times(content) if name.endswith(".npz") else content
            new.writestr(zipfile.ZipInfo(name), content)
    return plain.getvalue()
