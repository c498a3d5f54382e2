"""The one handler: it asks the champion and, unheard, the shadow, and swaps both when their aliases move."""

import asyncio
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from nbproof.notebook.errors import UserError, trace
from nbproof.serve.log import Entry, Log
from nbproof.serve.metrics import Metrics
from nbproof.serve.model import Answers, Portable
from nbproof.serve.store import Store, Unreachable

BATCH = 64  # cases that are asked at once; longer questions take turns with those of others
FEW = 16  # cases that a quick model is asked at once, while the server hears nobody
SHADOWED = 500  # questions that may wait for the shadow; more go without, and are counted
AGAIN = 60.0  # seconds until a refused model is tried again: its files may have arrived


@dataclass(frozen=True, eq=False)
class Serving:
    """The models that answer now. A request keeps the pair that it began with."""

    champion: Portable
    shadow: Portable | None = None


@dataclass
class Reply:
    """What became of one question: an id, an answer and what it rests on for each case."""

    serving: Serving
    answers: Answers
    ids: list[str]
    milliseconds: float
    shadow: Answers | None = None
    time: float = field(default_factory=time.time)


@dataclass
class _Part:
    """Some cases of one question, on their way through the batches."""

    serving: Serving
    inputs: dict[str, np.ndarray]
    done: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


class Handler:
    """Answers questions. `start` it, and `close` it at the end."""

    def __init__(self, store: Store, log: Log | None, metrics: Metrics, keep_inputs: bool = False):
        self.store, self.log, self.metrics, self.keep_inputs = store, log, metrics, keep_inputs
        self.serving: Serving | None = None
        self.refused: dict[str, dict] = {}
        self.note = ""  # what is wrong with the registry, in a sentence
        self._missed = ""  # the same of the model that it names
        self.since = time.time()
        self._worker = ThreadPoolExecutor(1, "champion")
        self._behind = ThreadPoolExecutor(1, "shadow")
        self._waiting: list[_Part] = []
        self._busy, self._shadowed = False, 0
        self._ends = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="registry", daemon=True)

    # -- which models answer ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load what answers first: the registered champion, or the one of this folder. UserError if there is none."""
        self.look()
        if self.serving is None:
            here = self.store.here()
            if here is None:
                why = self.refused.get("champion", {}).get("why") or self.note or "the registry has no champion"
                raise UserError(f"There is nothing to serve: {why.rstrip('.')}; and this folder has no ONNX file of its "
                              "comparison's champion: nbproof run makes it, nbproof pull brings it.")
            self._swap(here, None)
            self.look()
        self._watcher.start()

    def close(self) -> None:
        self._ends.set()
        if self._watcher.is_alive():
            self._watcher.join(timeout=10)
        for pool in (self._worker, self._behind):
            pool.shutdown(wait=True)
        if self.log:
            self.log.close()

    def about(self) -> dict:
        """What else there is to say of where the answers come from."""
        return {}

    def look(self) -> None:
        """See what the aliases name, and swap what has moved. Whatever goes wrong, what answers stays."""
        try:
            champion, shadow = self.store.find("champion"), self.store.find("challenger")
        except Unreachable as error:
            self._say(f"The registry does not answer ({error}); the models stay as they are.")
            return
        if champion is None:
            self._say("The registry names no champion; the models stay as they are.")
            return
        self._missed = ""
        self._follow(champion, shadow)
        self._say(self._missed)

    def _follow(self, champion, shadow) -> None:
        """Swap to what the aliases name, as far as it can be had."""
        now = self.serving
        first = self._brought("champion", champion, now and now.champion)
        if first is None and now is None:
            return
        first = first or now.champion
        second = None
        if shadow and shadow.version != first.facts.version:
            second = self._brought("challenger", shadow, now and now.shadow)
        if now is None or first is not now.champion or second is not now.shadow:
            self._swap(first, second)

    def _brought(self, alias: str, wanted, now: Portable | None) -> Portable | None:
        """The model that `alias` names: the one that answers already, or loaded anew; None if it is refused."""
        if now and all(getattr(now.facts, each) == getattr(wanted, each) for each in ("version", "name", "source")):
            self.refused.pop(alias, None)
            return now
        before = self.refused.get(alias)
        same = before and (before["version"], before["source"]) == (wanted.version, wanted.source)
        if same and time.time() - before["time"] < AGAIN:
            return None
        try:
            model = self.store.load(wanted)
        except Unreachable as error:
            self._missed = f"The registry does not give {wanted.name} ({wanted.version}): {error}."
            return None
        except Exception as error:  # whatever a file of somebody else's brings about, what answers stays
            if not isinstance(error, UserError):
                trace()
            why = str(error) if isinstance(error, UserError) else f"it cannot be loaded: {' '.join(str(error).split())}"
            self.refused[alias] = {"version": wanted.version, "model": wanted.name, "source": wanted.source, "why": why,
                                   "time": time.time()}
            self.metrics.refused.labels(alias).inc()
            print(f"Refused as {alias}: {why}", file=sys.stderr, flush=True)
            return None
        self.refused.pop(alias, None)
        return model

    def _swap(self, champion: Portable, shadow: Portable | None) -> None:
        old, self.serving, self.since = self.serving, Serving(champion, shadow), time.time()
        self.metrics.serves(champion.facts, shadow and shadow.facts, bool(old))
        behind = f", {shadow} in its shadow" if shadow else ""
        print(f"{champion} answers{' now' if old else ''}{behind}.", file=sys.stderr, flush=True)

    def _say(self, note: str) -> None:
        if note != self.note and note:
            print(note, file=sys.stderr, flush=True)
        self.note = note
        self.metrics.registry.set(0 if note else 1)

    def _watch(self) -> None:
        while not self._ends.wait(self.store.every):
            try:
                self.look()
            except Exception as error:  # this thread must outlive whatever the registry holds
                trace()
                self._say(f"The registry cannot be followed ({' '.join(str(error).split())}).")

    # -- answers ---------------------------------------------------------------------------------------------------

    async def ask(self, serving: Serving, inputs: dict[str, np.ndarray], *, began: float, keep: bool = True,
                  shadow_inputs: dict[str, np.ndarray] | None = None, aloud: bool = False) -> Reply:
        """The answers to `inputs`, one array for each input of the champion of `serving`.

        `keep` writes them to the log. `aloud` waits for the shadow, whose answers are then part of the reply; else it
        is asked afterwards, for the log alone.
        """
        parts = [_Part(serving, part) for part in _parted(inputs)]
        self._waiting += parts
        self._next()
        try:
            found = [await part.done for part in parts]
        except BaseException:  # given up, as by the time limit: nobody waits for the rest
            for part in parts:
                part.done.cancel()
            self._waiting = [part for part in self._waiting if not part.done.done()]
            raise
        answers = found[0] if len(found) == 1 else _joined(found)
        ids = [uuid.uuid4().hex for _ in range(len(answers.outputs))]
        reply = Reply(serving, answers, ids, 1000 * (time.perf_counter() - began))
        if shadow_inputs is None:
            shadow_inputs = inputs
        if serving.shadow and aloud:
            loop = asyncio.get_running_loop()
            reply.shadow = await loop.run_in_executor(self._behind, self._shadow, serving.shadow, shadow_inputs)
        if keep:
            self._keep(reply, inputs)
        if serving.shadow and keep and not aloud:
            if self._shadowed >= SHADOWED:
                self.metrics.shadow_missed.inc()
            else:
                self._shadowed += 1
                self._behind.submit(self._ask_behind, reply, inputs, shadow_inputs)
        return reply

    def _next(self) -> None:
        """Have what waits answered; runs in the event loop.

        A quick model answers right there, once the other requests of this moment have come, too: to hand a question to
        a thread and back costs more than its answer. A slow one has a thread, so that the server still hears.
        """
        if self._busy or not self._waiting:
            return
        self._busy, loop = True, asyncio.get_running_loop()
        if self._waiting[0].serving.champion.quick:
            loop.call_soon(self._here)
            return
        batch = self._batch(BATCH)
        work = self._worker.submit(_run, batch)
        work.add_done_callback(lambda done: loop.call_soon_threadsafe(self._delivered, batch, done))

    def _here(self) -> None:
        if not self._waiting:  # all were given up meanwhile
            self._busy = False
            return
        batch, work = self._batch(FEW), Future()
        try:
            work.set_result(_run(batch))
        except Exception as error:  # of the model's library: those who asked are told
            work.set_exception(error)
        self._delivered(batch, work)

    def _batch(self, most: int) -> list[_Part]:
        """Take from what waits what can be asked with the first of it, at least one part."""
        first = self._waiting.pop(0)
        batch, rows, rest = [first], first.rows, []
        for part in self._waiting:
            if part.serving is first.serving and rows + part.rows <= most and _alike(part, first):
                batch.append(part)
                rows += part.rows
            else:
                rest.append(part)
        self._waiting = rest
        return batch

    def _delivered(self, batch: list[_Part], work: Future) -> None:
        self._busy = False
        error, start = work.exception(), 0
        for part in batch:
            if part.done.done():  # its request was given up
                pass
            elif error:
                part.done.set_exception(error)
            else:
                part.done.set_result(work.result()[start : start + part.rows])
            start += part.rows
        self._next()

    def _shadow(self, shadow: Portable, inputs: dict[str, np.ndarray]) -> Answers | None:
        """What the shadow says; None where it cannot answer this, which is its own affair."""
        try:
            return _joined([self._says(shadow, part) for part in _parted(inputs)])
        except Exception:  # of the model's library
            trace()
            self.metrics.shadow_failed.inc()
            return None

    def _says(self, shadow: Portable, part: dict[str, np.ndarray]) -> Answers:
        return shadow.ask(part)

    def _ask_behind(self, reply: Reply, inputs: dict, shadow_inputs: dict) -> None:
        try:
            reply.shadow = self._shadow(reply.serving.shadow, shadow_inputs)
            if reply.shadow:
                self._keep(reply, inputs, again=True)  # the log has it without the shadow, for labels that are quick
        finally:
            self._shadowed -= 1

    def _keep(self, reply: Reply, inputs: dict[str, np.ndarray], again: bool = False) -> None:
        """Count the answers and send them to the log; `again` with those of the shadow, which came later."""
        champion, shadow = reply.serving.champion, reply.serving.shadow
        inputs = next(iter(inputs.values())) if self.keep_inputs and len(inputs) == 1 else None
        for row, id in enumerate(reply.ids):
            best, probability, strangeness, known = verdict(champion, reply.answers, row)
            second = verdict(shadow, reply.shadow, row) if shadow and reply.shadow else None
            if not again:
                self.metrics.answered(champion.facts.version, known)
            if second:
                self.metrics.shadow.labels(str(second[0] == best).lower()).inc()
            if self.log is None:
                continue
            features = reply.answers.features
            self.log.put(Entry(
                id, reply.time, champion.facts.version, champion.facts.name, best if known else None, best, probability,
                strangeness, reply.milliseconds, shadow.facts.version if second else None,
                second[0] if second and second[3] else None,
                None if features is None else features[row].astype("<f4").tobytes(),
                None if inputs is None or inputs.dtype.kind not in "fiub" else inputs[row].astype("<f4").tobytes()))


def verdict(model: Portable, answers: Answers, row: int) -> tuple[str, float, float | None, bool]:
    """Of one case: the best label, its value, how strange the case is, and whether the model answers at all."""
    best, value = model.best(answers.outputs[row])
    strangeness = None if answers.strangeness is None else float(answers.strangeness[row])
    return best, value, strangeness, model.knows(strangeness)


def _run(batch: list[_Part]) -> Answers:
    return batch[0].serving.champion.ask(together(batch))


def together(batch: list[_Part]) -> dict[str, np.ndarray]:
    """The inputs of all parts of a batch."""
    if len(batch) == 1:
        return batch[0].inputs
    return {name: np.concatenate([part.inputs[name] for part in batch]) for name in batch[0].inputs}


def _alike(one: _Part, other: _Part) -> bool:
    return all(one.inputs[name].shape[1:] == each.shape[1:] for name, each in other.inputs.items())


def _parted(inputs: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """A question in parts that are asked at once."""
    rows = len(next(iter(inputs.values())))
    return [{name: each[start : start + BATCH] for name, each in inputs.items()} for start in range(0, rows, BATCH)]


def _joined(parts: Iterable[Answers]) -> Answers:
    """The answers to the parts of a question as those to all of it."""
    columns = zip(*((part.outputs, part.features, part.strangeness) for part in parts))
    return Answers(*(None if column[0] is None else np.concatenate(column) for column in columns))
