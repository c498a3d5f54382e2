"""From a request's inputs to predictions that are logged; the challenger gets them afterwards."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException

from nbproof.notebook.errors import UserError, trace
from nbproof.pipeline import config
from nbproof.serve.follow import Follower, Pair
from nbproof.serve.log import ANSWER, SHADOW
from nbproof.serve.metrics import Metrics
from nbproof.serve.model import OnnxModel

ROWS = 64  # cases that are computed at once; a longer request takes turns with others
MAX_PIXELS = 50_000_000  # of all pictures of one request
MAX_WAITING = 64_000_000  # bytes of inputs that may wait for the challenger
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


class Verdict(NamedTuple):
    """A prediction in words: `answer` is the best label, None if the model abstains."""

    answer: str | None
    best: str
    probability: float
    strangeness: float | None


class Reply(NamedTuple):
    """The model's outputs [N, ...], and for each case the id in the log and the verdict."""

    outputs: np.ndarray
    ids: list[str]
    verdicts: list[Verdict]
    milliseconds: float


class Predictor:
    """Computes predictions in threads. `log` has `put`, as nbproof.serve.log.Log."""

    def __init__(self, follower: Follower, log, metrics: Metrics, threads: int, log_inputs: bool):
        self.follower, self.log, self.metrics, self.log_inputs = follower, log, metrics, log_inputs
        self.hook = config.load().hook("prepare")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        # onnxruntime releases Python's lock. A pool's own queue is the limit, and what is given
        # up while it waits there is never computed.
        self.pool = ThreadPoolExecutor(max(1, cores // threads), "predict")
        self.preparing = ThreadPoolExecutor(1, "prepare")  # a hook need not be thread-safe
        self.shadowing = ThreadPoolExecutor(1, "shadow")
        self.waiting, self.tasks = 0, set()

    async def predict(self, pair: Pair, inputs: dict, began: float, keep: bool = True,
                      files: list | None = None) -> Reply:
        """Return the champion's predictions and log them; `began` is the request's time."""
        parts = await self._run(self.pool, pair.champion, inputs)
        milliseconds, ids, start = 1000 * (time.time() - began), [], 0
        values = next(iter(inputs.values()))
        for predictions, verdicts in parts:
            new = [os.urandom(16).hex() for _ in verdicts]
            for verdict in verdicts:
                known = str(verdict.answer is not None).lower()
                self.metrics.answers(pair.champion.version.version, known).inc()
            if keep:
                self.log.put(ANSWER, [
                    {"id": id, "time": began, "milliseconds": milliseconds,
                     "version": pair.champion.version.version, "model": pair.champion.version.model,
                     **verdict._asdict(), "features": _bytes(predictions.features, row),
                     "input": _bytes(values, start + row) if self.log_inputs else None}
                    for row, (id, verdict) in enumerate(zip(new, verdicts))])
            ids, start = ids + new, start + len(new)
            if len(parts) > 1:
                await asyncio.sleep(0)  # others take their turn
        outputs = [predictions.outputs for predictions, _ in parts]
        verdicts = [verdict for _, some in parts for verdict in some]
        outputs = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        return Reply(outputs, ids, verdicts, milliseconds)

    async def prepare(self, model: OnnxModel, files: list) -> dict[str, np.ndarray]:
        """Return what the hook `prepare` makes of files: the model's one input."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.preparing, check_pixels, files)
        # One file at a time: others take their turn, and what is given up ends with its file.
        rows = [await loop.run_in_executor(self.preparing, self._prepare, model, file)
                for file in files]
        values = np.concatenate(rows)
        return {model.inputs[0].name: np.ascontiguousarray(values, dtype=model.dtype)}

    def _prepare(self, model: OnnxModel, file) -> np.ndarray:
        file.seek(0)
        try:
            return np.asarray(self.hook([file], model.metadata))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Exception:  # of anybody's hook on anybody's bytes
            trace()
            raise HTTPException(422, "This file cannot be read.") from None

    async def shadow(self, pair: Pair, inputs: dict, reply: Reply, files: list | None) -> None:
        """Let the challenger predict the same, for the log alone; called after the reply."""
        size = sum(values.nbytes for values in inputs.values())
        if self.waiting + size > MAX_WAITING:
            self.metrics.shadow_missed.inc()
            return
        self.waiting += size
        task = asyncio.create_task(self._shadow(pair, inputs, reply, files))
        self.tasks.add(task)  # asyncio itself holds tasks weakly
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: setattr(self, "waiting", self.waiting - size))

    async def _shadow(self, pair: Pair, inputs: dict, reply: Reply, files: list | None) -> None:
        model = pair.challenger
        try:
            if files and model.metadata != pair.champion.metadata:
                inputs = await self.prepare(model, files)
            parts = await self._run(self.shadowing, model, inputs)
        except Exception:  # of the challenger's library: nobody but the counter needs to know
            trace()
            self.metrics.shadow_failed.inc()
            return
        verdicts = [verdict for _, some in parts for verdict in some]
        for verdict, other in zip(verdicts, reply.verdicts):
            self.metrics.shadow.labels(str(verdict.best == other.best).lower()).inc()
        self.log.put(SHADOW, [
            {"id": id, "version": model.version.version, "answer": verdict.answer}
            for id, verdict in zip(reply.ids, verdicts)])

    async def _run(self, pool: ThreadPoolExecutor, model: OnnxModel, inputs: dict) -> list:
        """Return predictions and verdicts, in parts of at most ROWS cases."""
        loop, parts = asyncio.get_running_loop(), []
        for start in range(0, len(next(iter(inputs.values()))), ROWS):
            part = {name: values[start : start + ROWS] for name, values in inputs.items()}
            parts.append(await loop.run_in_executor(pool, _predict, model, part))
        return parts

    def close(self) -> None:
        """Let the threads end."""
        for pool in (self.pool, self.preparing, self.shadowing):
            pool.shutdown(cancel_futures=True)


def _predict(model: OnnxModel, inputs: dict):
    predictions = model.run(inputs)
    verdicts = []
    for row, output in enumerate(predictions.outputs):
        best, probability = model.best(output)
        strangeness = predictions.strangeness
        strangeness = None if strangeness is None else float(strangeness[row])
        answer = None if model.abstains(strangeness) else best
        verdicts.append(Verdict(answer, best, probability, strangeness))
    return predictions, verdicts


def _bytes(values: np.ndarray | None, row: int) -> bytes | None:
    is_number = values is not None and values.dtype.kind in "fiub"
    return np.asarray(values[row], "<f4").tobytes() if is_number else None


def check_pixels(files: list) -> None:
    """Raise HTTPException where the pictures among `files` have too many pixels in all."""
    pixels = 0
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as image:  # reads the size and no pixel
                pixels += image.width * image.height
        except Image.DecompressionBombError:
            pixels += MAX_PIXELS + 1
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            continue  # no picture: the hook decides
    if pixels > MAX_PIXELS:
        raise HTTPException(413, f"The pictures of a request may have {MAX_PIXELS:,} pixels.")
