"""A model as an ONNX file: loaded, checked against the predictions that it stores, and run."""

import base64
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import digest, from_yaml, root
from nbproof.notebook.tracking import changes, commit
from nbproof.tracking import versions
from nbproof.tracking.versions import ModelVersion

TOLERANCE = 1e-4  # between a prediction and the one that is stored with the model
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}


@dataclass(frozen=True)
class Predictions:
    """A model's outputs for some cases, a row each; None for what the model does not compute."""

    outputs: np.ndarray
    features: np.ndarray | None = None
    strangeness: np.ndarray | None = None


def read_file(version: ModelVersion, path: str) -> bytes | None:
    """Return a file of a version; one without a run is this folder's own model."""
    if version.run_id:
        return versions.read(version, path)
    name = f"{version.model}.onnx" if path.endswith(".onnx") else f"{version.model}/MLmodel"
    file = root() / "models" / name
    return file.read_bytes() if file.is_file() else None


def from_folder(name: str) -> ModelVersion:
    """Return the model models/NAME.onnx of this folder as a version."""
    lock = root() / "dvc.lock"
    return ModelVersion("files", name, {
        "git_commit": commit(), "git_dirty": str(bool(changes())).lower(),
        "dvc_lock": digest(lock) if lock.exists() else ""})


def load(version: ModelVersion, threads: int = 1, read: Callable = read_file) -> "OnnxModel":
    """Return the model of a version.

    Raise UserError where it is damaged, fails its check or has no ONNX file, and RegistryError
    where `read` cannot get a file now.
    """
    name = f"{version.model} ({version.version})"
    content = read(version, f"portable/{version.model}.onnx")
    if content is None:
        raise UserError(f"{name} has no ONNX file, and only ONNX models can be served: nbproof "
                         "run writes it, nbproof pull brings it, nbproof promote registers it.")
    mlmodel = read(version, "model/MLmodel")
    if mlmodel is None:
        raise UserError(f"{name} has no file MLmodel, which names its columns: nbproof run writes "
                        "it, nbproof promote registers it.")
    return OnnxModel(content, version, mlmodel, threads)


class OnnxModel:
    """An ONNX model in memory. Raises UserError, with the reason, where it cannot be used."""

    def __init__(self, content: bytes, version: ModelVersion, mlmodel: bytes, threads: int = 1):
        self.version = version
        # As files.digest computes it for a file.
        self.digest = hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()
        if version.tags.get("portable_digest", self.digest) != self.digest:
            raise UserError(f"{self} is damaged: its ONNX file is not the one that was registered.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # the exception has the message, too
        # Threads that wait for work would otherwise take a processor.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            described = from_yaml(mlmodel.decode())
            self.metadata = described.get("metadata") or {}  # which the hook `prepare` gets
            signature = json.loads((described.get("signature") or {}).get("inputs") or "[]")
            self.columns = [str(column["name"]) for column in signature  # of a table
                            if column.get("type") != "tensor" and "name" in column]
            self.session = onnxruntime.InferenceSession(content, options,
                                                        providers=["CPUExecutionProvider"])
            stored = self.session.get_modelmeta().custom_metadata_map
            self.labels = [str(label) for label in json.loads(stored.get("labels", "[]"))]
            self.limit = float(stored.get("limit", math.inf))
            self.inputs = self.session.get_inputs()
            names = [output.name for output in self.session.get_outputs()]
            self.first = "probabilities" if "probabilities" in names else names[0]
            wanted = (self.first, "features", "strangeness")
            self.outputs = [name for name in wanted if name in names]
            self._check(stored)
        except UserError:
            raise
        except Exception as error:  # of anybody's files
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{self} cannot be loaded: {reason}.") from None

    def __str__(self) -> str:
        return f"{self.version.model} ({self.version.version})"

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of the one input, the number of cases first; None for a free dimension."""
        return tuple(size if isinstance(size, int) else None for size in self.inputs[0].shape)

    @property
    def dtype(self):
        """The type of the one input, None for text."""
        return TYPES.get(self.inputs[0].type)

    def run(self, inputs: dict[str, np.ndarray]) -> Predictions:
        """Return the predictions for an array per input; ValueError where one is not finite."""
        found = dict(zip(self.outputs, self.session.run(self.outputs, inputs)))
        outputs = np.asarray(found[self.first])
        if outputs.dtype.kind == "f" and not np.isfinite(outputs).all():
            raise ValueError(f"{self} predicts a value that is not finite")
        return Predictions(outputs, found.get("features"), found.get("strangeness"))

    def abstains(self, strangeness: float | None) -> bool:
        """Return whether a case is too strange for the model to predict; NaN is."""
        return strangeness is not None and not strangeness <= self.limit

    def best(self, row: np.ndarray) -> tuple[str, float]:
        """Return the label of the highest output and its value; without labels, its number."""
        row = np.atleast_1d(row)
        if len(row) == 1 and len(self.labels) != 1:
            return f"{row[0]:g}", float(row[0])
        best = int(row.argmax())
        return self.labels[best] if len(self.labels) == len(row) else str(best), float(row[best])

    def _check(self, stored: dict[str, str]) -> None:
        """Run once, on the stored inputs where there are any, and compare the predictions."""
        if "check_inputs" not in stored:
            self.run({each.name: _zeros(each) for each in self.inputs})
            return
        inputs, expected = (np.frombuffer(base64.b64decode(stored[key], validate=True), "<f4")
                            for key in ("check_inputs", "check_probabilities"))
        inputs = inputs.reshape(-1, *(size or 1 for size in self.shape[1:]))
        found = self.run({self.inputs[0].name: inputs}).outputs
        difference = float(np.abs(found - expected.reshape(found.shape)).max())
        if not difference <= TOLERANCE:
            raise UserError(f"{self} fails its check: a prediction differs by {difference:.2g} "
                            f"from the stored one, and {TOLERANCE:g} is allowed.")


def _zeros(wanted) -> np.ndarray:
    shape = [size if isinstance(size, int) else 1 for size in wanted.shape]
    return np.zeros(shape, TYPES[wanted.type]) if wanted.type in TYPES else np.full(shape, "", "O")
