"""The pair of models that the registry's aliases name."""

import sys
import time
from typing import NamedTuple

from nbproof.notebook.errors import UserError, trace
from nbproof.pipeline import config
from nbproof.serve.model import OnnxModel, from_folder, load
from nbproof.tracking import versions
from nbproof.tracking.versions import ModelVersion, RegistryError

ALIASES = ("champion", "challenger")


class Pair(NamedTuple):
    """The models of one moment; a request keeps the pair that it began with."""

    champion: OnnxModel | None = None
    challenger: OnnxModel | None = None


class Follower:
    """Holds the current pair. `registry` has `current` and `read` as nbproof.tracking.versions."""

    def __init__(self, threads: int = 1, registry=versions):
        self.threads, self.registry = threads, registry
        self.pair = Pair()
        self.followed: list[ModelVersion | None] = []  # the versions that the aliases named
        self.refused: dict[str, str] = {}  # by alias: which version was refused, and why
        self.problem = ""  # with the registry, in a sentence

    def start(self) -> None:
        """Load the first pair, else this folder's champion; UserError where there is neither."""
        self.look()
        if self.pair.champion is None:
            name = config.load().compared().get("champion", "")
            self.pair = Pair(load(from_folder(name), self.threads))

    def watch(self) -> None:
        """Follow the aliases for ever, in a thread of its own."""
        while True:
            time.sleep(1 if versions.is_local() else 3)
            self.look()

    def look(self) -> None:
        """Follow the aliases once; whatever fails, the current pair stays."""
        problem = ""
        try:
            wanted = [self.registry.current(alias) for alias in ALIASES]
            if wanted != self.followed:
                self._follow(*wanted)
                self.followed = wanted
        except Exception as error:  # the thread must outlive whatever the registry holds
            trace()
            problem = f"The registry cannot be followed, the models stay: {error}."
            if problem != self.problem:
                print(problem, file=sys.stderr, flush=True)
        self.problem = problem

    def _follow(self, champion: ModelVersion | None, challenger: ModelVersion | None) -> None:
        """Load what is new and swap both models at once."""
        if champion is None:
            raise RegistryError("it names no champion")
        self.refused = {}
        first, second = self._loaded("champion", champion) or self.pair.champion, None
        if first and challenger and challenger != first.version:
            second = self._loaded("challenger", challenger)
        if (pair := Pair(first, second)) != self.pair:
            self.pair = pair
            shadow = f", {second} in shadow" if second else ""
            print(f"{first} is served now{shadow}.", file=sys.stderr, flush=True)

    def _loaded(self, alias: str, version: ModelVersion) -> OnnxModel | None:
        """Return the model of a version, None where it is refused. Raise RegistryError."""
        for model in self.pair:
            if model and model.version == version:
                return model
        try:
            return load(version, self.threads, self.registry.read)
        except RegistryError:
            raise
        except UserError as error:
            self.refused[alias] = str(error)
            print(f"Refused as {alias}: {error}", file=sys.stderr, flush=True)
            return None
