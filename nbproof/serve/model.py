"""A model as an ONNX file: loaded, checked against the predictions that it stores, and run."""

import base64
import hashlib
import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnxruntime

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root
from nbproof.notebook.tracking import changes, commit
from nbproof.tracking import versions
from nbproof.tracking.versions import ModelVersion

TOLERANCE = 1e-4  # between a prediction and the one that is stored with the model


class Predictions(NamedTuple):
    """A model's outputs for some cases, a row each; None for what the model does not compute."""

    outputs: np.ndarray
    features: np.ndarray | None
    ood_scores: np.ndarray | None


def from_folder(name: str) -> ModelVersion:
    """Return the model models/NAME.onnx of this folder as a version, which has no run."""
    is_dirty = str(bool(changes())).lower()
    return ModelVersion("files", name, {"git_commit": commit(), "git_dirty": is_dirty})


def load(version: ModelVersion, threads: int = 1, read: Callable = versions.read) -> "OnnxModel":
    """Return the model of a version.

    Raise UserError where it is damaged, fails its check or has no ONNX file, and RegistryError
    where `read` cannot get a file now.
    """
    paths = [f"portable/{version.model}.onnx", "model/MLmodel"]  # MLmodel names the columns
    if version.run_id:
        files = [read(version, path) for path in paths]
    else:
        folder, name = root() / "models", version.model
        files = [path.read_bytes() if path.is_file() else None
                 for path in (folder / f"{name}.onnx", folder / name / "MLmodel")]
    for path, content in zip(paths, files):
        if content is None:
            raise UserError(f"{version} has no file {path.rpartition('/')[2]}, which a "
                            "server needs: nbproof run writes it, nbproof pull brings it, nbproof "
                            "promote registers it.")
    try:
        return OnnxModel(version, *files, threads)
    except UserError:
        raise
    except Exception as error:  # of anybody's files
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{version} cannot be loaded: {reason}.") from None


class OnnxModel:
    """An ONNX model in memory. Raises UserError, with the reason, where it cannot be used."""

    def __init__(self, version: ModelVersion, content: bytes, mlmodel: bytes, threads: int):
        self.version = version
        # As files.digest computes it for a file.
        self.digest = hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()
        if version.tags.get("portable_digest", self.digest) != self.digest:
            raise UserError(f"{self} is damaged: its ONNX file is not the one that was registered.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # the exception has the message, too
        self.session = onnxruntime.InferenceSession(content, options,
                                                    providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        names = [output.name for output in self.session.get_outputs()]
        self.first = "probabilities" if "probabilities" in names else names[0]
        wanted = (self.first, "features", "strangeness")  # the OOD score, in docs/contract.md
        self.outputs = [name for name in wanted if name in names]
        described = from_yaml(mlmodel.decode())
        self.metadata = described.get("metadata") or {}  # which the hook `prepare` gets
        signature = json.loads((described.get("signature") or {}).get("inputs") or "[]")
        self.columns = [str(column["name"]) for column in signature  # of a table
                        if column.get("type") != "tensor" and "name" in column]
        stored = self.session.get_modelmeta().custom_metadata_map
        self.labels = [str(label) for label in json.loads(stored.get("labels", "[]"))]
        self.limit = float(stored.get("limit", math.inf))
        if "check_inputs" in stored:
            self._check(stored)

    def __str__(self) -> str:
        return str(self.version)

    def run(self, inputs: dict[str, np.ndarray]) -> Predictions:
        """Return the predictions for an array per input; ValueError where one is not finite.

        UserError says what onnxruntime does not accept of the inputs.
        """
        try:
            found = dict(zip(self.outputs, self.session.run(self.outputs, inputs)))
        except Exception as error:  # onnxruntime has a class for each kind
            reason = " ".join(str(error).split()).rpartition(" : ")[2]
            raise UserError(f"{self} cannot predict from that: {reason[:200]}") from None
        outputs = np.asarray(found[self.first])
        if outputs.dtype.kind == "f" and not np.isfinite(outputs).all():
            raise ValueError(f"{self} predicts a value that is not finite")
        return Predictions(outputs, found.get("features"), found.get("strangeness"))

    def abstains(self, ood_score: float | None) -> bool:
        """Return whether a case is out of distribution for the model; NaN is."""
        return ood_score is not None and not ood_score <= self.limit

    def named(self, row: np.ndarray) -> dict[str, float]:
        """Return a case's outputs by label; without labels by number, a single one by itself."""
        values = np.ravel(row).tolist()
        if len(self.labels) == len(values):
            return dict(zip(self.labels, values))
        names = [f"{values[0]:g}"] if len(values) == 1 else map(str, range(len(values)))
        return dict(zip(names, values))

    def _check(self, stored: dict[str, str]) -> None:
        """Compare the predictions for the stored inputs with the stored ones."""
        inputs, expected = (np.frombuffer(base64.b64decode(stored[key], validate=True), "<f4")
                            for key in ("check_inputs", "check_probabilities"))
        shape = [size if isinstance(size, int) else 1 for size in self.inputs[0].shape[1:]]
        found = self.run({self.inputs[0].name: inputs.reshape(-1, *shape)}).outputs
        difference = float(np.abs(found - expected.reshape(found.shape)).max())
        if not difference <= TOLERANCE:
            raise UserError(f"{self} fails its check: a prediction differs by {difference:.2g} "
                            f"from the stored one, and {TOLERANCE:g} is allowed.")
