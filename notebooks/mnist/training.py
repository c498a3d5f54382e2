"""One training loop for every net: reproducible, on whole tensors, with a one-cycle schedule and averaged weights."""

import copy
import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist.augment import Draw, unmoved
from mnist.data import Dataset, Split
from mnist.evaluation import Evaluation
from nbproof.notebook import progress

LOSS = "cross-entropy [nats]"
CHARTS = {LOSS: ["train_loss", "validation_loss"], "validation accuracy": ["validation_accuracy"]}


def prepare(seed: int, threads: int, device: str) -> torch.device:
    """Fix everything that could make two runs differ, and choose the device: `"auto"` is cuda, else mps, else cpu.

    `threads` is part of the result: a sum over another number of threads is rounded in another way.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports a compiler for it
    torch.utils.deterministic.fill_uninitialized_memory = False  # no operation here reads what it did not write
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = False, False  # whole floats, as on a processor
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(device)


@torch.no_grad()
def evaluate(net: nn.Module, split: Split, batch: int = 250) -> Evaluation:
    """The answers of `net` for every image of `split`; a module with an evaluation mode is put into it."""
    if not isinstance(net, torch.fx.GraphModule):  # an exported program is in evaluation mode already
        net.eval()
    logits = torch.cat([net(images) for images in split.images.split(batch)])
    return Evaluation(logits.float().softmax(1).cpu(), split.labels.cpu())


def _average(averaged: list[torch.Tensor], newest: list[torch.Tensor], seen: torch.Tensor) -> None:
    """Move the averages towards the newest values: over about the last 50 steps, or fewer at the start."""
    get_ema_multi_avg_fn(min(0.98, (1 + int(seen)) / (10 + int(seen))))(averaged, newest, seen)


def _optimizer(net: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    """AdamW with its one-cycle schedule over `steps` steps."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    climb = min(0.9, max(0.1, 2 / steps))  # two steps at least: OneCycleLR divides by the steps of the climb less one
    return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=climb)


class Lessons:
    """Which images each epoch sees: all of them, or the part `share`, in whole batches.

    With a `share` below 1, the first epoch and the last two see all images. In each of the others, those with a loss
    above the mean when they were last seen are there, and as many of the easier ones as there is room for, drawn anew.
    (After InfoBatch, Z. Qin et al., arXiv:2303.04947, which also weights the easier ones up, so that the expected
    gradient stays the same; here they count as they come, which left a lower loss on the validation images.)
    """

    def __init__(self, images: int, epochs: int, batch: int, share: float, device: torch.device):
        self.batch = min(batch, images)
        self.losses = torch.full((images,), math.nan, device=device)  # of each image, when it was last seen
        few = max(1, round(share * images) // self.batch)
        whole = (1, epochs - 1, epochs)  # the epochs that see all
        self.steps = [images // self.batch if epoch in whole else few for epoch in range(1, epochs + 1)]

    def of(self, epoch: int, generator: torch.Generator) -> torch.Tensor:
        """The images of an epoch (from 1) in the order in which it sees them."""
        order = torch.randperm(len(self.losses), generator=generator)
        count = self.steps[epoch - 1] * self.batch
        if self.steps[epoch - 1] == self.steps[0]:
            return order[:count]
        is_easy = (self.losses <= self.losses.nanmean()).cpu()[order]  # one that was not seen yet is not
        chosen = torch.cat([order[~is_easy], order[is_easy]])[:count]
        return chosen[torch.randperm(count, generator=generator)]

    @property
    def loss(self) -> float:
        """The mean loss, each image when it was last seen."""
        return self.losses.nanmean().item()


def fit(
    net: nn.Module, train: Split, validation: Split, *, epochs: int, batch: int, lr: float, seed: int,
    weight_decay: float = 0.0, draw: Draw | None = None, share: float = 1.0,
    on_epoch: Callable[[int, dict], None] = lambda epoch, metrics: None,
) -> list[dict]:
    """Train `net` in place; one row an epoch: epoch, train_loss, validation_loss, validation_accuracy.

    AdamW on mini-batches under a one-cycle learning rate with peak `lr` (L. Smith, N. Topin, Super-Convergence,
    arXiv:1708.07120). What is evaluated, and left in `net`, is an exponential average of the weights, which is better
    than the newest ones while the rate is high (B. Polyak, A. Juditsky, Acceleration of stochastic approximation by
    averaging, 1992). `draw` (see augment) makes the batches, by default from the images as they are; `share` is the
    part of the images that an epoch sees (see Lessons); `on_epoch(epoch, metrics)` is called after every epoch.
    """
    draw = draw or unmoved(train.images)
    net.to(train.images.device, memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    averaged = AveragedModel(net, multi_avg_fn=_average, use_buffers=True)
    generator = torch.Generator().manual_seed(seed)
    lessons = Lessons(len(train), epochs, batch, share, train.images.device)
    optimizer, schedule = _optimizer(net, lr, weight_decay, sum(lessons.steps))
    history = []
    with progress.follow(epochs, lessons.steps, unit="epoch", charts=CHARTS, logarithmic={LOSS}) as follower:
        for epoch in range(1, epochs + 1):
            order = lessons.of(epoch, generator)
            _epoch(net, train, draw, generator, lessons, order, optimizer, schedule, averaged, follower.part)
            judged = evaluate(averaged.module, validation)
            metrics = {
                "train_loss": lessons.loss, "validation_loss": judged.loss, "validation_accuracy": judged.accuracy,
            }
            history.append({"epoch": epoch, **metrics})
            on_epoch(epoch, metrics)
            follower.step(metrics)  # last: whoever follows may stop the training as soon as this is said
    net.load_state_dict(copy.deepcopy(averaged.module.state_dict()))
    net.eval()
    return history


def _epoch(net, train: Split, draw: Draw, generator, lessons, order, optimizer, schedule, averaged, on_step) -> None:
    """One pass over the training images of `order`, batch by batch; `lessons` notes the loss of each."""
    net.train()
    for chosen in order.to(train.images.device).split(lessons.batch):
        images = draw(chosen, generator).contiguous(memory_format=torch.channels_last)
        losses = F.cross_entropy(net(images), train.labels[chosen], reduction="none")
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        schedule.step()
        averaged.update_parameters(net)
        lessons.losses[chosen] = losses.detach()
        on_step()


def fresh(net: nn.Module, seed: int) -> nn.Module:
    """`net` before any training, its start weights drawn by `seed`."""
    torch.manual_seed(seed)
    untrained = copy.deepcopy(net)
    for layer in untrained.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return untrained


def by_size(
    net: nn.Module, dataset: Dataset, *, steps: int, batch: int, lr: float, seed: int, weight_decay: float = 0.0,
    draw: Callable[[torch.Tensor], Draw] = unmoved, parts: tuple[int, ...] = (8, 4, 2, 1),
) -> list[dict]:
    """Train `net` from new, for about `steps` steps each, on an eighth, a quarter ... of the training images.

    An eighth is seen eight times as often, so that all parts have as many steps. One row a part: its images and the
    validation_accuracy reached. The parts are drawn by `seed`, each inside the next.
    """
    train = dataset.train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).to(train.labels.device)
    rows, epochs = [], max(1, round(steps / max(1, len(order) // batch)))
    with progress.hushed():
        for part in parts:
            chosen = order[: len(order) // part]
            some = Split(train.images[chosen], train.labels[chosen])
            history = fit(
                fresh(net, seed), some, dataset.validation, epochs=epochs * part, batch=batch, lr=lr, seed=seed,
                weight_decay=weight_decay, draw=draw(some.images),
            )
            rows.append({"images": len(some), "validation_accuracy": history[-1]["validation_accuracy"]})
    return rows
