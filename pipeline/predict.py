"""Asks the registered champion about one image. Needs the tracking store, and nothing of the code that trained the model."""

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline import Refused
from pipeline.tracking import address, client, without_credentials

NAME = "digits"


def predict(path: Path) -> int:
    """Print the class of the image at `path` and the probability of each."""
    model, place = _champion()
    inputs, expects = model.metadata.get_input_schema().inputs[0], model.metadata.metadata
    image = prepared(_read(path), inputs.shape[-1], expects)
    with contextlib.redirect_stderr(io.StringIO()):
        scores = np.asarray(model.predict(image.astype(np.float32)[None, None]))[0].astype(np.float64)
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    print(f"{chances.argmax()}, sure to {chances.max():.1%} (by the champion, {place})")
    for label, chance in enumerate(chances):
        print(f"{label}  {chance:6.1%}  {'#' * round(40 * chance)}")
    return 0


def _champion():
    """The registered model with the alias `champion`, or the run with that tag where the server has no registry; and where it was."""
    known = client()
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(address())
    mlflow.set_registry_uri(address())
    try:
        try:
            version = known.get_model_version_by_alias(NAME, "champion")
            source, place = f"models:/{NAME}@champion", f"version {version.version}: {version.tags.get('model')}"
        except MlflowException:
            experiments = [each.experiment_id for each in known.search_experiments()]
            (run,) = known.search_runs(experiments, "tags.champion = 'champion'", max_results=1)
            source, place = f"runs:/{run.info.run_id}/model", f"run {run.info.run_id}: {run.data.tags.get('model')}"
        with contextlib.redirect_stderr(io.StringIO()):
            return mlflow.pyfunc.load_model(source), place
    except ValueError:
        raise Refused(f"MLflow at {without_credentials(address())} has no champion yet: make run (or make promote) registers one.") from None
    except (MlflowException, OSError) as error:
        raise Refused(f"MLflow at {without_credentials(address())} does not give the champion: {without_credentials(str(error))}") from None


def _read(path: Path) -> np.ndarray:
    """The image as grey values [H, W] from 0 to 1; what is transparent is white."""
    try:
        with Image.open(path) as image:
            layers = image.convert("RGBA")
    except FileNotFoundError:
        raise Refused(f"There is no image {path} (make predict IMAGE=digit.png).") from None
    except (UnidentifiedImageError, OSError) as error:
        raise Refused(f"{path} cannot be read as an image: {error}") from None
    return np.asarray(Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("L"), dtype=np.float64) / 255


def prepared(grey: np.ndarray, side: int, expects: dict) -> np.ndarray:
    """Grey values [H, W] as the model expects them [side, side]: its colour of ink, scaled and centred as its images are, normalised.

    Which of dark and bright is the paper, the image's rim tells.
    """
    rim = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = 1 - grey if np.median(rim) > 0.5 else grey
    if ink.max() - ink.min() < 0.1:
        raise Refused("The image is of one colour: there is nothing drawn on it.")
    if grey.shape != (side, side):
        ink = _centred(ink, side, expects["ink_side"])
    if expects["ink"] != "bright":
        ink = 1 - ink
    return (ink - expects["mean"]) / expects["deviation"]


def _centred(ink: np.ndarray, side: int, longer: int) -> np.ndarray:
    """The drawn part, its longer side `longer` pixels, its centre of mass in the middle of [side, side]."""
    ink = np.clip((ink - np.median(ink)) / (ink.max() - np.median(ink)), 0, 1)
    rows, columns = (np.flatnonzero((ink > 0.2).any(axis)) for axis in (1, 0))
    drawn = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = longer / max(drawn.shape)
    height, width = (max(1, round(length * scale)) for length in drawn.shape)
    small = np.asarray(Image.fromarray((drawn * 255).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS), dtype=np.float64) / 255
    middle = [float((small.sum(1 - axis) * np.arange(small.shape[axis])).sum() / small.sum()) for axis in (0, 1)]
    top, left = (min(max(0, round((side - 1) / 2 - at)), side - length) for at, length in zip(middle, small.shape))
    page = np.zeros((side, side))
    page[top : top + height, left : left + width] = small
    return page
