"""The pair of models that the registry's aliases name, and the thread that follows them."""

import sys
import threading
import time
from typing import NamedTuple

from nbproof.notebook.errors import UserError, trace
from nbproof.pipeline import config
from nbproof.serve import metrics
from nbproof.serve.model import OnnxModel, from_folder, load
from nbproof.tracking import versions
from nbproof.tracking.versions import ModelVersion, RegistryError


class Pair(NamedTuple):
    """The models of one moment; a request keeps the pair that it began with."""

    champion: OnnxModel | None = None
    challenger: OnnxModel | None = None


class Follower:
    """Holds the current pair. `registry` has `current` and `read` as nbproof.tracking.versions."""

    def __init__(self, threads: int = 1, registry=versions):
        self.threads, self.registry = threads, registry
        self.pair, self.since = Pair(), time.time()
        self.refused: dict[str, dict] = {}  # by alias: the version that was refused, and why
        self.problem = ""  # with the registry, in a sentence
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="registry", daemon=True)

    def start(self) -> None:
        """Load the first pair, else this folder's champion; UserError where there is neither."""
        self.look()
        if self.pair.champion is None:
            name = config.load().compared().get("champion", "")
            self._swap(Pair(load(from_folder(name), self.threads)))
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join(timeout=10)

    def look(self) -> None:
        """Follow the aliases once; whatever fails, the current pair stays."""
        problem = ""
        try:
            self._follow(*map(self.registry.current, ("champion", "challenger")))
        except Exception as error:  # the thread must outlive whatever the registry holds
            trace()
            problem = f"The registry cannot be followed, the models stay: {error}."
            if problem != self.problem:
                print(problem, file=sys.stderr, flush=True)
        self.problem = problem
        metrics.registry.set(not problem)

    def _follow(self, champion: ModelVersion | None, challenger: ModelVersion | None) -> None:
        """Load what is new and swap both models at once."""
        if champion is None:
            raise RegistryError("it names no champion")
        first = self._loaded("champion", champion) or self.pair.champion
        if first and challenger and challenger.version == first.version.version:
            challenger = None
        second = None
        try:
            second = self._loaded("challenger", challenger) if first else None
        finally:  # a challenger that cannot be read now holds no champion back
            if (pair := Pair(first, second)) != self.pair:
                self._swap(pair)

    def _loaded(self, alias: str, version: ModelVersion | None) -> OnnxModel | None:
        """Return the model of a version, None where it is refused. Raise RegistryError."""
        refused = self.refused.get(alias)
        if refused and version and refused["version"] == version.version:
            return None
        self.refused.pop(alias, None)
        known = {model.version: model for model in self.pair if model}
        if version is None or version in known:
            return known.get(version)
        try:
            return load(version, self.threads, self.registry.read)
        except RegistryError:
            raise
        except UserError as error:
            why = " ".join(str(error).split())
            self.refused[alias] = {"version": version.version, "model": version.model, "why": why}
            metrics.refused.labels(alias).inc()
            print(f"Refused as {alias}: {why}", file=sys.stderr, flush=True)
            return None

    def _swap(self, pair: Pair) -> None:
        self.pair, self.since = pair, time.time()
        shadow = f", {pair.challenger} in shadow" if pair.challenger else ""
        print(f"{pair.champion} is served now{shadow}.", file=sys.stderr, flush=True)

    def _watch(self) -> None:
        while not self._stop.wait(1 if versions.is_local() else 3):
            self.look()
