"""A model as an ONNX file: loaded, warmed, checked against the answers that it holds, and asked."""

import base64
import hashlib
import json
import math
import time
from dataclasses import dataclass, field

import numpy as np
import onnxruntime

from nbproof.notebook.errors import UserError

NEAR = 1e-4  # how far a probability may be from the one that is stored with the model
QUICK = 0.003  # seconds: a model that needs less for a case is asked without a detour
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}


@dataclass(frozen=True)
class Answers:
    """What a model says of some cases, a row each; `features` and `strangeness` are None where it has none."""

    outputs: np.ndarray
    features: np.ndarray | None = None
    strangeness: np.ndarray | None = None

    def __getitem__(self, rows: slice) -> "Answers":
        parts = (self.outputs, self.features, self.strangeness)
        return Answers(*(None if part is None else part[rows] for part in parts))


@dataclass(frozen=True)
class Facts:
    """Where a model comes from: its version in the registry and the tags that it has there, its own metadata, and the
    names of its columns where its signature has some."""

    version: str
    name: str
    tags: dict[str, str] = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    source: str = ""
    columns: tuple[str, ...] = ()


class Portable:
    """An ONNX model in memory. UserError, with the reason, where it cannot be loaded or fails its check."""

    def __init__(self, content: bytes, facts: Facts, threads: int = 1):
        self.facts = facts
        self.digest = hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()  # as files.digest says it of a file
        known = facts.tags.get("portable_digest", self.digest)
        if known != self.digest:
            raise UserError(f"{self} is damaged: its ONNX file is not the one that was registered.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what it would print, the error says, too
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a waiting server costs nothing
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            held = self.session.get_modelmeta().custom_metadata_map
            self.labels = [str(label) for label in json.loads(held.get("labels", "[]"))]
            self.limit = float(held.get("limit", math.inf))
        except Exception as error:  # of a library in C++, which has a class for each of its troubles
            raise UserError(f"{self} cannot be loaded: {' '.join(str(error).split())[:200]}.") from None
        self.inputs = self.session.get_inputs()
        self.names = [each.name for each in self.session.get_outputs()]
        self.first = "probabilities" if "probabilities" in self.names else self.names[0]
        self.wanted = [name for name in (self.first, "features", "strangeness") if name in self.names]
        self.quick = self._check(held) < QUICK

    def __str__(self) -> str:
        return f"{self.facts.name} ({self.facts.version})"

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of the one input, the number of cases first; None for a free dimension."""
        return tuple(size if isinstance(size, int) else None for size in self.inputs[0].shape)

    @property
    def dtype(self):
        """The type of the one input, None for text."""
        return TYPES.get(self.inputs[0].type)

    def ask(self, inputs: dict[str, np.ndarray]) -> Answers:
        """The answers to `inputs`, an array for each input of the model."""
        found = dict(zip(self.wanted, self.session.run(self.wanted, inputs)))
        outputs, features = np.asarray(found[self.first]), found.get("features")
        if self.first == "probabilities":
            outputs = np.clip(outputs, 0, 1)  # rounding may leave 1.0000001
        return Answers(outputs, features, found.get("strangeness"))

    def knows(self, strangeness: float | None) -> bool:
        """Whether a case of that strangeness gets an answer; False is "I do not know"."""
        return strangeness is None or bool(strangeness <= self.limit)  # NaN is known by nobody

    def best(self, row: np.ndarray) -> tuple[str, float]:
        """The label of the highest of the outputs `row`, and its value; a model without labels has numbers."""
        row = np.atleast_1d(row)
        if self.labels and len(self.labels) == len(row):
            place = int(row.argmax())
            return self.labels[place], float(row[place])
        return (str(row.argmax()), float(row.max())) if len(row) > 1 else (f"{row[0]:g}", float(row[0]))

    def _check(self, held: dict[str, str]) -> float:
        """Warm up, on the inputs that are stored with the model if there are any, and compare with their answers.

        Returns the seconds that one case takes.
        """
        try:
            if "check_inputs" not in held:
                return self._seconds({each.name: self._zeros(each) for each in self.inputs})
            inputs, expected = (_array(held[key]) for key in ("check_inputs", "check_probabilities"))
            inputs = inputs.reshape(-1, *(size or 1 for size in self.shape[1:]))
            found = self.ask({self.inputs[0].name: inputs}).outputs
            seconds = self._seconds({self.inputs[0].name: inputs[:1]})  # the size of most questions
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self} fails its check: {' '.join(str(error).split())[:200]}.") from None
        expected = expected.reshape(len(inputs), -1)
        if found.shape != expected.shape:
            raise UserError(f"{self} fails its check: it gives {found.shape}, its stored answers are {expected.shape}.")
        far = float(np.abs(found - expected).max())
        if not far <= NEAR:  # NaN, too
            raise UserError(f"{self} fails its check: its answers are {far:.2g} from the stored ones, and {NEAR:g} is "
                          "allowed.")
        return seconds

    def _seconds(self, inputs: dict[str, np.ndarray]) -> float:
        """The shortest of some answers to the same question."""
        found = []
        for _ in range(5):
            began = time.perf_counter()
            self.ask(inputs)
            found.append(time.perf_counter() - began)
        return min(found)

    @staticmethod
    def _zeros(given) -> np.ndarray:
        shape = [size if isinstance(size, int) else 1 for size in given.shape]
        return np.zeros(shape, TYPES.get(given.type, object)) if given.type in TYPES else np.full(shape, "", object)


def _array(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4")
