"""A board to draw on in JupyterLab: what the models predict for a drawing, and its neighbours.

A drawing is a list of strokes, a stroke a list of points (x, y) on a square board of SIDE pixels.
"""

import base64
import io
import time

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import nn

from mnist import models
from mnist.data import Dataset
from nbproof.notebook import section
from nbproof.notebook.files import root
from production import preprocessing

SIDE, PEN = 280, 20  # pixels: the board, and the width of the pen
EVERY = 0.1  # seconds between two predictions while a stroke is drawn
Strokes = list[list[tuple[float, float]]]


def rasterised(strokes: Strokes, pen: float = PEN) -> np.ndarray:
    """Return the drawing as ink from 0 to 1, [140, 140], drawn four times as large and reduced."""
    page = Image.new("L", (2 * SIDE, 2 * SIDE))
    draw, radius = ImageDraw.Draw(page), pen
    for stroke in strokes:
        points = [(2 * x, 2 * y) for x, y in stroke]
        draw.line(points, fill=255, width=round(2 * pen))
        for x, y in points:  # round ends and joints
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(page.reduce(4), dtype=np.float64) / 255


def normalised(ink: np.ndarray, dataset: Dataset) -> torch.Tensor:
    """Return ink [H, W] as the models' input, float32 [1, 1, 28, 28]."""
    image, split = torch.from_numpy(preprocessing.centred(ink)).float(), dataset.train
    return ((image - split.mean) / split.deviation)[None, None]


def stored_models() -> dict[str, nn.Module]:
    """Return every model of params.yaml that is trained, by name; FileNotFoundError without any."""
    names = list(vars(section("models")))
    trained = [name for name in names if (root() / "models" / name).exists()]
    return {name: models.load(name) for name in trained or names}


@torch.no_grad()
def probabilities(nets: dict[str, nn.Module], image: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the probabilities [10] of each model for a normalised image [1, 1, 28, 28]."""
    return {name: net(image).float().softmax(1)[0].numpy() for name, net in nets.items()}


def nearest(images: torch.Tensor, image: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices of those of the images uint8 [N, 1, 28, 28] that are nearest to `image`.

    The distance is the Euclidean one over all pixels.
    """
    parts = images.flatten(1).split(5000)
    distances = [(part.float() - image.flatten().float()).norm(dim=1) for part in parts]
    return torch.cat(distances).topk(count, largest=False).indices


def picture(image: torch.Tensor, caption: str) -> str:
    """Return an image uint8 [1, 28, 28] as HTML, dark ink on white, with a caption."""
    file = io.BytesIO()
    Image.fromarray(255 - image[0].numpy()).save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    return (f'<div style="text-align: center"><img src="data:image/png;base64,{encoded}" '
            f'width="56" style="image-rendering: pixelated"><br>{caption}</div>')


def bars(predicted: dict[str, np.ndarray]) -> str:
    """Return probabilities as an HTML table: a row for each model, a bar for each digit."""
    table = pd.DataFrame.from_dict(predicted, orient="index")
    table["prediction"] = [preprocessing.best(values) for values in predicted.values()]
    style = table.style.format("{:.0%}", subset=list(range(10)))
    return style.bar(subset=list(range(10)), vmin=0, vmax=1, color="#a9c7ee").to_html()


def neighbours(image: torch.Tensor, dataset: Dataset) -> str:
    """Return an image uint8 [1, 28, 28] and the nearest training images, with labels, as HTML."""
    train = dataset.train
    rows = nearest(train.images, image, 8).tolist()
    pictures = [picture(image, "yours"), *(picture(train.images[row], str(int(train.labels[row])))
                                           for row in rows)]
    return f'<div class="nearest" style="display: flex; gap: 8px">{"".join(pictures)}</div>'


class Board:
    """A board to draw on with the mouse; beside it predictions, below it the nearest images."""

    def __init__(self, dataset: Dataset, nets: dict[str, nn.Module]):
        from ipycanvas import Canvas
        from ipywidgets import HTML, Button, HBox, Layout, VBox

        self.dataset, self.nets = dataset, nets
        self.strokes: Strokes = []
        self.is_drawing, self.predicted_at = False, 0.0
        side = f"{SIDE}px"
        frame = Layout(border="1px solid #757a82", width=side, height=side)
        self.canvas = Canvas(width=SIDE, height=SIDE, layout=frame)
        self.predictions, self.neighbours = HTML(), HTML()
        clear = Button(description="Clear", layout=Layout(width=side))
        self.canvas.on_mouse_down(self.down)
        self.canvas.on_mouse_move(self.move)
        self.canvas.on_mouse_up(self.up)
        self.canvas.on_mouse_out(self.up)
        clear.on_click(lambda _: self.clear())
        self.clear()
        beside = VBox([self.predictions], layout=Layout(margin="0 0 0 24px"))
        self.widget = VBox([HBox([VBox([self.canvas, clear]), beside]), self.neighbours])

    def clear(self) -> None:
        """Empty the board."""
        self.strokes.clear()
        self.canvas.fill_style = "white"
        self.canvas.fill_rect(0, 0, SIDE, SIDE)
        self.canvas.stroke_style = self.canvas.fill_style = "#1d2733"
        self.canvas.line_width, self.canvas.line_cap = PEN, "round"
        self.predictions.value = "<i>Draw a digit with the mouse.</i>"
        self.neighbours.value = ""

    def down(self, x: float, y: float) -> None:
        """Begin a stroke."""
        self.is_drawing = True
        self.strokes.append([(x, y)])
        self.canvas.fill_circle(x, y, PEN / 2)

    def move(self, x: float, y: float) -> None:
        """Continue the stroke while the mouse button is down."""
        if self.is_drawing:
            self.canvas.stroke_line(*self.strokes[-1][-1], x, y)
            self.strokes[-1].append((x, y))
            if time.monotonic() - self.predicted_at > EVERY:
                self.predict()

    def up(self, x: float, y: float) -> None:
        """End the stroke."""
        if self.is_drawing:
            self.is_drawing = False
            self.predict()

    def predict(self) -> None:
        """Show the models' predictions for the drawing, and its neighbours."""
        image = normalised(rasterised(self.strokes), self.dataset)
        split = self.dataset.train
        ink = ((image[0] * split.deviation + split.mean) * 255).round().clamp(0, 255).byte()
        self.predictions.value = bars(probabilities(self.nets, image))
        self.neighbours.value = neighbours(ink, self.dataset)
        self.predicted_at = time.monotonic()
