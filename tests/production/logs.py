"""A log as the server writes it, of images that a model really answers."""

import time
from pathlib import Path

import numpy as np

from nbproof.serve.log import ANSWER, SHADOW, Log

DIGITS = [str(digit) for digit in range(10)]


def write(folder: Path, model, images: np.ndarray, labels: dict[int, str] | None = None, *,
          keep: bool = True, shadow: int | None = None, milliseconds: float = 2.0) -> None:
    """Add the answers of `model` for normalised images [N, 1, 28, 28] to the log.

    `labels` are by the number of the image. From the image `shadow` on there is a shadow, version
    2, that always agrees.
    """
    log, began = Log(folder / "served" / "log.sqlite"), time.time()
    rows = zip(images, *model(images))
    for number, (image, probabilities, features, score) in enumerate(rows):
        best = DIGITS[probabilities.argmax()]
        answer = best if score <= model.threshold else None
        log.put(ANSWER, [{
            "id": f"{began}-{number}", "time": began + number / 1000, "version": "1",
            "model": "cnn", "answer": answer, "best": best, "ood_score": float(score),
            "probability": float(probabilities.max()), "milliseconds": milliseconds,
            "features": features.astype("<f4").tobytes(),
            "input": image.astype("<f4").tobytes() if keep else None}])
        if shadow is not None and number >= shadow:
            log.put(SHADOW, [{"id": f"{began}-{number}", "version": "2", "answer": answer}])
    for number, label in (labels or {}).items():
        log.label(f"{began}-{number}", label)
    log.close()
