"""A drawn digit as the models see it, what they say of it, and the training digits nearest to it; and the board to draw on.

A drawing is a list of strokes, a stroke a list of points (x, y) on a square board of SIDE pixels.
"""

import base64
import io
import time

import torch
import torch.nn.functional as F
from matplotlib import image as png
from torch import nn

from digits import data, models, params, paths
from digits.data import Digits

SIDE, PEN = 280, 20  # pixels: the board, and the width of the pen
EVERY = 0.1  # seconds between two looks at a stroke that is still being drawn
COLOURS = ["#4486d6", "#e07b39", "#3a9e6c", "#b65fa8", "#c9a227", "#5bb3c4"]


def rasterised(strokes: list[list[tuple[float, float]]], side: int = SIDE, pen: float = PEN) -> torch.Tensor:
    """The drawing as ink between 0 and 1, float32 [side / 2, side / 2], with smooth edges."""
    ink = torch.zeros(side // 2, side // 2)
    rows, columns = torch.meshgrid(torch.arange(side // 2) * 2 + 1.0, torch.arange(side // 2) * 2 + 1.0, indexing="ij")
    for stroke in strokes:
        points = torch.tensor([*stroke, stroke[-1]], dtype=torch.float32)  # a single point is a dot
        for (x, y), (to_x, to_y) in zip(points[:-1], points[1:]):
            along_x, along_y = to_x - x, to_y - y
            place = (((columns - x) * along_x + (rows - y) * along_y) / (along_x**2 + along_y**2).clamp_min(1e-6)).clamp(0, 1)
            far = torch.hypot(columns - x - place * along_x, rows - y - place * along_y)
            ink = torch.maximum(ink, ((pen / 2 - far) / 2 + 0.5).clamp(0, 1))
    return ink


def centred(ink: torch.Tensor) -> torch.Tensor:
    """Ink [H, W] as MNIST holds its digits, float32 [28, 28]: the longer side brought to 20 pixels, the centre of mass to the middle.

    Y. LeCun, C. Cortes, C. Burges, The MNIST database: size-normalised in a 20 x 20 box, centred by mass in 28 x 28. No ink, no digit: zeros.
    """
    whole = torch.zeros(28, 28)
    rows, columns = (ink.amax(1) > 0.05).nonzero()[:, 0], (ink.amax(0) > 0.05).nonzero()[:, 0]
    if not len(rows):
        return whole
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = [max(1, round(20 * length / max(box.shape))) for length in box.shape]
    small = F.interpolate(box[None, None], size=size, mode="bilinear", antialias=True, align_corners=False)[0, 0].clamp(0, 1)
    starts = []
    for axis, length in enumerate(size):
        mass = small.sum(1 - axis)
        middle = float((mass * torch.arange(length)).sum() / mass.sum())
        starts.append(min(max(round(13.5 - middle), 0), 28 - length))
    whole[starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]] = small
    return whole


def normalised(image: torch.Tensor) -> torch.Tensor:
    """An image [28, 28] between 0 and 1 as the models met theirs in training, [1, 1, 28, 28]."""
    _, facts = data.restore(data.TRAIN)
    return ((image - facts["mean"]) / facts["deviation"])[None, None]


def stored_models() -> dict[str, nn.Module]:
    """Every model of params.yaml that has been trained, by name; FileNotFoundError says how to make one."""
    named = list(vars(params.section("models")))
    return {name: models.load(name) for name in [name for name in named if (paths.ROOT / f"models/{name}.pt2").exists()] or named}


@torch.no_grad()
def probabilities(nets: dict[str, nn.Module], image: torch.Tensor) -> dict[str, torch.Tensor]:
    """For each model the probabilities [10] that it gives a normalised image [1, 1, 28, 28]."""
    return {name: net(image).float().softmax(1)[0].cpu() for name, net in nets.items()}


def nearest(images: torch.Tensor, image: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the `count` training images [N, 1, 28, 28] nearest to `image` [1, 1, 28, 28] by Euclidean distance over pixels, nearest first."""
    return (images - image).flatten(1).norm(dim=1).topk(count, largest=False).indices


def as_picture(image: torch.Tensor, size: int) -> str:
    """An image [28, 28], dark where it is high, as an HTML picture of `size` pixels."""
    spread = (image.max() - image.min()).clamp_min(1e-6)
    file = io.BytesIO()
    png.imsave(file, 1 - ((image - image.min()) / spread).numpy(), cmap="gray", vmin=0, vmax=1, format="png")
    encoded = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{encoded}" width="{size}" height="{size}" style="image-rendering: pixelated; border-radius: 4px">'


def as_bars(said: dict[str, torch.Tensor]) -> str:
    """Probabilities as HTML: a row a model, a bar a digit, the answer in words."""
    rows = []
    for (name, values), colour in zip(said.items(), COLOURS * len(said)):
        bars = "".join(
            f'<div style="width: 26px; text-align: center; opacity: {1 if digit == values.argmax() else 0.55}">'
            f'<div style="height: 60px; display: flex; align-items: flex-end"><div style="width: 100%; height: {max(1, 60 * value):.0f}px; '
            f'background: {colour}; border-radius: 2px 2px 0 0"></div></div>{digit}</div>'
            for digit, value in enumerate(values.tolist())
        )
        verdict = f"<b>{values.argmax()}</b>, sure to {values.max():.0%}"
        rows.append(
            f'<div class="probabilities" data-model="{name}" data-answer="{values.argmax()}" '
            f'style="display: flex; gap: 4px; align-items: flex-end; margin-bottom: 10px">'
            f'<div style="width: 4.5em; font-weight: 600; color: {colour}">{name}</div>{bars}<div style="margin-left: 10px">{verdict}</div></div>'
        )
    return "".join(rows)


def board(digits: Digits, nets: dict[str, nn.Module]):
    """The widget: a board to draw on with the mouse, beside it what `nets` say, below the nearest training images of `digits`."""
    from ipycanvas import Canvas
    from ipywidgets import HTML, Button, HBox, Layout, VBox

    canvas = Canvas(width=SIDE, height=SIDE, layout=Layout(border="1px solid #757a82", width=f"{SIDE}px", height=f"{SIDE}px"))
    clear, said, near = Button(description="Clear", layout=Layout(width=f"{SIDE}px")), HTML(), HTML()
    strokes: list[list[tuple[float, float]]] = []
    state = {"down": False, "looked": 0.0}

    def blank() -> None:
        strokes.clear()
        canvas.fill_style = "white"
        canvas.fill_rect(0, 0, SIDE, SIDE)
        canvas.stroke_style = canvas.fill_style = "#1d2733"
        canvas.line_width, canvas.line_cap = PEN, "round"
        said.value, near.value = "<i>Draw a digit with the mouse.</i>", ""

    def look() -> None:
        image = normalised(centred(rasterised(strokes)))
        said.value = as_bars(probabilities(nets, image))
        found = nearest(digits.train.images, image, 8)
        pictures = "".join(
            f'<div style="text-align: center">{as_picture(digits.train.images[i, 0], 56)}<br>{int(digits.train.labels[i])}</div>' for i in found.tolist()
        )
        near.value = (
            f'<div class="nearest" style="display: flex; gap: 8px; align-items: flex-start">'
            f'<div style="text-align: center">{as_picture(image[0, 0], 56)}<br>yours</div>'
            f'<div style="align-self: center; font-size: 20px; padding-bottom: 18px">≈</div>{pictures}</div>'
        )
        state["looked"] = time.monotonic()

    def down(x: float, y: float) -> None:
        state["down"] = True
        strokes.append([(x, y)])
        canvas.fill_circle(x, y, PEN / 2)

    def move(x: float, y: float) -> None:
        if state["down"]:
            canvas.stroke_line(*strokes[-1][-1], x, y)
            strokes[-1].append((x, y))
            if time.monotonic() - state["looked"] > EVERY:
                look()

    def up(x: float, y: float) -> None:
        if state["down"]:
            state["down"] = False
            look()

    canvas.on_mouse_down(down)
    canvas.on_mouse_move(move)
    canvas.on_mouse_up(up)
    canvas.on_mouse_out(up)
    clear.on_click(lambda _: blank())
    blank()
    return VBox([HBox([VBox([canvas, clear]), VBox([said], layout=Layout(margin="0 0 0 24px"))]), near])
