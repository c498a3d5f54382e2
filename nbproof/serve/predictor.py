"""From a request's inputs to predictions that are logged; the challenger gets them afterwards."""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException

from nbproof.notebook.errors import UserError, trace
from nbproof.pipeline import config
from nbproof.serve import metrics
from nbproof.serve.follow import Follower, Pair
from nbproof.serve.log import ANSWER, SHADOW
from nbproof.serve.model import OnnxModel
from nbproof.serve.options import Options

ROWS = 64  # cases that are computed at once; a longer request takes turns with others
SHADOWS = 32  # requests that may wait for the challenger
Image.MAX_IMAGE_PIXELS = 25_000_000  # of a picture that a hook opens; Pillow refuses twice as many


class Predictor:
    """Computes predictions in threads. `log` has `put`, as nbproof.serve.log.Log."""

    def __init__(self, follower: Follower, log, options: Options):
        self.follower, self.log, self.log_inputs = follower, log, options.images
        self.hook = config.load().hook("prepare")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        # onnxruntime releases Python's lock. A pool's own queue is the limit, and what is given
        # up while it waits there is never computed.
        self.pool = ThreadPoolExecutor(max(1, cores // options.threads), "predict")
        self.preparing = ThreadPoolExecutor(1, "prepare")  # a hook need not be thread-safe
        self.shadowing = ThreadPoolExecutor(1, "shadow")
        self.shadows: set[asyncio.Task] = set()

    async def predict(self, pair: Pair, inputs: dict, began: float,
                      keep: bool = True) -> tuple[np.ndarray, list[dict]]:
        """Return the champion's outputs [N, ...] and a row of the log for each case, and log them.

        `began` is the time of the request.
        """
        outputs, rows = await _run(self.pool, pair.champion, inputs, self.log_inputs)
        version, milliseconds = pair.champion.version, 1000 * (time.time() - began)
        for row in rows:
            row |= {"time": began, "milliseconds": milliseconds, "version": version.version,
                    "model": version.model}
            metrics.answers(version.version, str(row["answer"] is not None).lower()).inc()
        if keep:
            self.log.put(ANSWER, rows)
        return outputs, rows

    async def prepare(self, model: OnnxModel, files: list) -> dict[str, np.ndarray]:
        """Return what the hook `prepare` makes of files: the model's one input."""
        loop = asyncio.get_running_loop()
        # One file at a time: others take their turn, and what is given up ends with its file.
        arrays = [await loop.run_in_executor(self.preparing, self._prepare, model, file)
                  for file in files]
        return {model.inputs[0].name: np.concatenate(arrays)}

    def _prepare(self, model: OnnxModel, file) -> np.ndarray:
        file.seek(0)
        try:
            return np.asarray(self.hook([file], model.metadata))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Exception:  # of anybody's hook on anybody's bytes
            trace()
            raise HTTPException(422, "This file cannot be read.") from None

    async def shadow(self, pair: Pair, inputs: dict, rows: list, files: list) -> None:
        """Let the challenger predict the same, for the log alone; called after the reply."""
        if pair.challenger and len(self.shadows) < SHADOWS:
            # A task of its own: the request's limits are over.
            task = asyncio.create_task(self._shadow(pair, inputs, rows, files))
            self.shadows.add(task)
            task.add_done_callback(self.shadows.discard)

    async def _shadow(self, pair: Pair, inputs: dict, rows: list, files: list) -> None:
        model = pair.challenger
        try:
            if files and model.metadata != pair.champion.metadata:
                inputs = await self.prepare(model, files)
            _, own = await _run(self.shadowing, model, inputs, False)
        except Exception:  # of the challenger's library: its predictions are missing in the log
            trace()
            return
        self.log.put(SHADOW, [
            {"id": other["id"], "version": model.version.version, "answer": row["answer"]}
            for row, other in zip(own, rows)])


async def _run(pool: ThreadPoolExecutor, model: OnnxModel, inputs: dict,
               log_inputs: bool) -> tuple[np.ndarray, list[dict]]:
    """Return the outputs for all cases, and a row of the log for each."""
    loop, outputs, rows = asyncio.get_running_loop(), [], []
    for start in range(0, len(next(iter(inputs.values()))), ROWS):
        part = {name: values[start : start + ROWS] for name, values in inputs.items()}
        found, cases = await loop.run_in_executor(pool, _predict, model, part, log_inputs)
        outputs.append(found)
        rows += cases
    return np.concatenate(outputs), rows


def _predict(model: OnnxModel, inputs: dict, log_inputs: bool) -> tuple[np.ndarray, list[dict]]:
    """Return the outputs, and a row of the log for each: an `answer` of None is to abstain."""
    predictions, rows = model.run(inputs), []
    values = next(iter(inputs.values())) if log_inputs else None
    for number, output in enumerate(predictions.outputs):
        named = model.named(output)
        best = max(named, key=named.get)
        score = None if predictions.ood_scores is None else float(predictions.ood_scores[number])
        rows.append({
            "id": os.urandom(16).hex(), "answer": None if model.abstains(score) else best,
            "best": best, "probability": named[best], "probabilities": named, "ood_score": score,
            "features": _bytes(predictions.features, number), "input": _bytes(values, number)})
    return predictions.outputs, rows


def _bytes(values: np.ndarray | None, row: int) -> bytes | None:
    is_number = values is not None and values.dtype.kind in "fiub"
    return np.asarray(values[row], "<f4").tobytes() if is_number else None
