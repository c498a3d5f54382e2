"""A drawn digit as the models see it, what they say of it, and the training digits nearest to it; the board to draw on.

A drawing is a list of strokes, a stroke a list of points (x, y) on a square board of SIDE pixels.
"""

import base64
import io
import time

import torch
from matplotlib import image as png
from torch import nn

from mnist import ask, data, models
from mnist.data import Dataset
from nbproof.notebook import section
from nbproof.notebook.files import root

SIDE, PEN = 280, 20  # pixels: the board, and the width of the pen
EVERY = 0.1  # seconds between two answers while a stroke is being drawn
COLOURS = ["#4486d6", "#e07b39", "#3a9e6c", "#b65fa8", "#c9a227", "#5bb3c4"]
Strokes = list[list[tuple[float, float]]]


def rasterised(strokes: Strokes, side: int = SIDE, pen: float = PEN) -> torch.Tensor:
    """The drawing as ink between 0 and 1, float32 [side / 2, side / 2], with smooth edges."""
    ink = torch.zeros(side // 2, side // 2)
    places = torch.arange(side // 2) * 2 + 1.0
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    for stroke in strokes:
        points = torch.tensor([*stroke, stroke[-1]], dtype=torch.float32)  # a single point is a dot
        for (x, y), (to_x, to_y) in zip(points[:-1], points[1:]):
            along_x, along_y = to_x - x, to_y - y
            length = (along_x**2 + along_y**2).clamp_min(1e-6)
            place = (((columns - x) * along_x + (rows - y) * along_y) / length).clamp(0, 1)
            far = torch.hypot(columns - x - place * along_x, rows - y - place * along_y)
            ink = torch.maximum(ink, ((pen / 2 - far) / 2 + 0.5).clamp(0, 1))
    return ink


def normalised(ink: torch.Tensor) -> torch.Tensor:
    """Ink [H, W] as the models met their images, float32 [1, 1, 28, 28]: centred, and normalised as those are."""
    _, facts = data.restore(data.TRAIN)
    image = torch.from_numpy(ask.centred(ink.numpy())).float()
    return ((image - facts["mean"]) / facts["deviation"])[None, None]


def stored_models() -> dict[str, nn.Module]:
    """Every model of params.yaml that has been trained, by name; FileNotFoundError says how to make one."""
    named = list(vars(section("models")))
    trained = [name for name in named if (root() / "models" / name).exists()]
    return {name: models.load(name) for name in trained or named}


@torch.no_grad()
def probabilities(nets: dict[str, nn.Module], image: torch.Tensor) -> dict[str, torch.Tensor]:
    """For each model the probabilities [10] that it gives for a normalised image [1, 1, 28, 28]."""
    return {name: net(image).float().softmax(1)[0].cpu() for name, net in nets.items()}


def nearest(images: torch.Tensor, image: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the `count` images [N, 1, 28, 28] nearest to `image` [1, 1, 28, 28], nearest first.

    The distance is the Euclidean one over all pixels.
    """
    return (images - image).flatten(1).norm(dim=1).topk(count, largest=False).indices


def as_picture(image: torch.Tensor, size: int) -> str:
    """An image [28, 28], dark where it is high, as an HTML picture of `size` pixels."""
    spread = (image.max() - image.min()).clamp_min(1e-6)
    file = io.BytesIO()
    png.imsave(file, 1 - ((image - image.min()) / spread).numpy(), cmap="gray", vmin=0, vmax=1, format="png")
    encoded = base64.b64encode(file.getvalue()).decode()
    style = "image-rendering: pixelated; border-radius: 4px"
    return f'<img src="data:image/png;base64,{encoded}" width="{size}" height="{size}" style="{style}">'


def as_bars(said: dict[str, torch.Tensor]) -> str:
    """Probabilities as HTML: a row a model, a bar a digit, the answer in words."""
    rows = []
    for (name, values), colour in zip(said.items(), COLOURS * len(said)):
        best = values.argmax()
        bars = "".join(_bar(digit, value, colour, digit == best) for digit, value in enumerate(values.tolist()))
        rows.append(
            f'<div class="probabilities" data-model="{name}" data-answer="{best}" '
            'style="display: flex; gap: 4px; align-items: flex-end; margin-bottom: 10px">'
            f'<div style="width: 4.5em; font-weight: 600; color: {colour}">{name}</div>{bars}'
            f'<div style="margin-left: 10px">{ask.in_words(values.numpy())}</div></div>'
        )
    return "".join(rows)


def _bar(digit: int, value: float, colour: str, strong: bool) -> str:
    height = f"{max(1, 60 * value):.0f}px"
    return (
        f'<div style="width: 26px; text-align: center; opacity: {1 if strong else 0.55}">'
        '<div style="height: 60px; display: flex; align-items: flex-end">'
        f'<div style="width: 100%; height: {height}; background: {colour}; border-radius: 2px 2px 0 0"></div></div>'
        f"{digit}</div>"
    )


def as_neighbours(image: torch.Tensor, dataset: Dataset) -> str:
    """The drawn image [1, 1, 28, 28] and beside it the eight nearest training images with their labels, as HTML."""
    train = dataset.train
    pictures = [("yours", image)]
    pictures += [(int(train.labels[i]), train.images[i : i + 1]) for i in nearest(train.images, image, 8).tolist()]
    yours, *others = (
        f'<div style="text-align: center">{as_picture(each[0, 0], 56)}<br>{title}</div>' for title, each in pictures
    )
    sign = '<div style="align-self: center; font-size: 20px; padding-bottom: 18px">≈</div>'
    row = "display: flex; gap: 8px; align-items: flex-start"
    return f'<div class="nearest" style="{row}">{yours}{sign}{"".join(others)}</div>'


class Board:
    """A board to draw on with the mouse, beside it what `nets` say, below it the nearest images of `dataset`."""

    def __init__(self, dataset: Dataset, nets: dict[str, nn.Module]):
        from ipycanvas import Canvas
        from ipywidgets import HTML, Button, HBox, Layout, VBox

        self.dataset, self.nets = dataset, nets
        self.strokes: Strokes = []
        self.drawing, self.answered = False, 0.0
        side = f"{SIDE}px"
        frame = Layout(border="1px solid #757a82", width=side, height=side)
        self.canvas = Canvas(width=SIDE, height=SIDE, layout=frame)
        self.said, self.near = HTML(), HTML()
        clear = Button(description="Clear", layout=Layout(width=side))
        self.canvas.on_mouse_down(self.down)
        self.canvas.on_mouse_move(self.move)
        self.canvas.on_mouse_up(self.up)
        self.canvas.on_mouse_out(self.up)
        clear.on_click(lambda _: self.clear())
        self.clear()
        answers = VBox([self.said], layout=Layout(margin="0 0 0 24px"))
        self.widget = VBox([HBox([VBox([self.canvas, clear]), answers]), self.near])

    def clear(self) -> None:
        """Make the board white."""
        self.strokes.clear()
        self.canvas.fill_style = "white"
        self.canvas.fill_rect(0, 0, SIDE, SIDE)
        self.canvas.stroke_style = self.canvas.fill_style = "#1d2733"
        self.canvas.line_width, self.canvas.line_cap = PEN, "round"
        self.said.value, self.near.value = "<i>Draw a digit with the mouse.</i>", ""

    def down(self, x: float, y: float) -> None:
        """The mouse button is pressed."""
        self.drawing = True
        self.strokes.append([(x, y)])
        self.canvas.fill_circle(x, y, PEN / 2)

    def move(self, x: float, y: float) -> None:
        """The mouse is moved."""
        if self.drawing:
            self.canvas.stroke_line(*self.strokes[-1][-1], x, y)
            self.strokes[-1].append((x, y))
            if time.monotonic() - self.answered > EVERY:
                self.answer()

    def up(self, x: float, y: float) -> None:
        """The mouse button is released, or the mouse leaves the board."""
        if self.drawing:
            self.drawing = False
            self.answer()

    def answer(self) -> None:
        """Show what the models say of the drawing, and its neighbours."""
        image = normalised(rasterised(self.strokes))
        self.said.value = as_bars(probabilities(self.nets, image))
        self.near.value = as_neighbours(image, self.dataset)
        self.answered = time.monotonic()


def board(dataset: Dataset, nets: dict[str, nn.Module]):
    """The widget of a new Board."""
    return Board(dataset, nets).widget
