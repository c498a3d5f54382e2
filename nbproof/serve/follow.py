"""The pair of models that the registry's aliases name, and the thread that follows them."""

import sys
import threading
import time
from dataclasses import dataclass

from nbproof.notebook.errors import UserError, trace
from nbproof.pipeline import config
from nbproof.serve.metrics import Metrics
from nbproof.serve.model import OnnxModel, from_folder, load
from nbproof.tracking import versions
from nbproof.tracking.versions import ModelVersion, RegistryError

RETRY = 60  # seconds until a refused version is tried again: its files may have arrived


@dataclass(frozen=True, eq=False)
class Pair:
    """The models of one moment; a request keeps the pair that it began with."""

    champion: OnnxModel
    challenger: OnnxModel | None = None


class Follower:
    """Holds the current pair. `registry` has `current` and `read` as nbproof.tracking.versions."""

    def __init__(self, metrics: Metrics, threads: int = 1, registry=versions):
        self.metrics, self.threads = metrics, threads
        self.current, self.read = registry.current, registry.read
        self.pair: Pair | None = None
        self.since = time.time()
        self.refused: dict[str, dict] = {}  # by alias: what was refused, and why
        self.problem = ""  # with the registry, in a sentence
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="registry", daemon=True)

    def start(self) -> None:
        """Load the first pair, else this folder's champion; UserError where there is neither."""
        self.look()
        if self.pair is None:
            name = config.load().compared().get("champion", "")
            try:
                self._swap(Pair(load(from_folder(name), self.threads)))
            except UserError as error:
                refused = self.refused.get("champion", {}).get("why")
                raise UserError(f"There is nothing to serve. {refused or self.problem} Nor is the "
                                f"champion of this folder's comparison: {error}") from None
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def look(self) -> None:
        """Follow the aliases once; whatever fails, the current pair stays."""
        self._problem = ""
        try:
            champion, challenger = map(self.current, ("champion", "challenger"))
            if champion:
                self._follow(champion, challenger)
            else:
                self._problem = "The registry names no champion; the models stay."
        except RegistryError as error:
            self._problem = f"The registry does not respond ({error}); the models stay."
        except Exception as error:  # the thread must outlive whatever the registry holds
            trace()
            self._problem = f"The registry cannot be followed ({error}); the models stay."
        if self._problem and self._problem != self.problem:
            print(self._problem, file=sys.stderr, flush=True)
        self.problem = self._problem
        self.metrics.registry.set(not self.problem)

    def _follow(self, champion: ModelVersion, challenger: ModelVersion | None) -> None:
        """Load what is new and swap both models at once."""
        old = self.pair or Pair(None)
        first = self._loaded("champion", champion, old.champion) or old.champion
        if first is None:
            return
        is_other = challenger and challenger.version != first.version.version
        second = self._loaded("challenger", challenger if is_other else None, old.challenger)
        if (first, second) != (old.champion, old.challenger):
            self._swap(Pair(first, second))

    def _loaded(self, alias: str, wanted: ModelVersion | None,
                now: OnnxModel | None) -> OnnxModel | None:
        """Return the model of `wanted`, None if it is refused; `now` where it cannot be had yet."""
        refused = self.refused.get(alias)
        if refused and wanted and refused["version"] == wanted.version and (
                refused["until"] > time.time()):
            return None
        self.refused.pop(alias, None)
        if wanted is None or now and now.version == wanted:
            return wanted and now
        try:
            return load(wanted, self.threads, self.read)
        except RegistryError as error:
            self._problem = (f"The registry does not send {wanted.model} ({wanted.version}): "
                             f"{error}.")
            return now
        except Exception as error:  # whatever a file of anybody's does, the old model stays
            trace()
            why, moment = " ".join(str(error).split()), time.time()
            self.refused[alias] = {"version": wanted.version, "model": wanted.model, "why": why,
                                   "time": moment, "until": moment + RETRY}
            self.metrics.refused.labels(alias).inc()
            print(f"Refused as {alias}: {why}", file=sys.stderr, flush=True)
            return None

    def _swap(self, pair: Pair) -> None:
        old, self.pair, self.since = self.pair, pair, time.time()
        shadow = f", {pair.challenger} in shadow" if pair.challenger else ""
        print(f"{pair.champion} is served{' now' if old else ''}{shadow}.", file=sys.stderr,
              flush=True)

    def _watch(self) -> None:
        while not self._stop.wait(1 if versions.is_local() else 3):
            self.look()
