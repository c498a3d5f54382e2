"""One training loop for every net: reproducible, on whole tensors, with a one-cycle schedule and averaged weights."""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from digits import progress
from digits.augment import Draw, unmoved
from digits.data import Split


def prepare(seed: int, threads: int, device: str) -> torch.device:
    """Fix everything that could make two runs differ, and choose the device: `"auto"` is cuda, else mps, else cpu.

    `threads` is part of the result, not of the machine: a sum over another number of threads rounds otherwise.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(device)


@dataclass(frozen=True)
class Evaluation:
    """Probabilities [N, 10] for one split with its labels [N], on the CPU."""

    probabilities: torch.Tensor
    labels: torch.Tensor

    @property
    def predictions(self) -> torch.Tensor:
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        return (self.predictions == self.labels).double().mean().item()

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return F.nll_loss(self.probabilities.double().clamp_min(1e-12).log(), self.labels).item()


@torch.no_grad()
def evaluate(net: nn.Module, split: Split, batch: int = 1000) -> Evaluation:
    """What `net` says of every image of `split`; a module that can be put into evaluation mode is."""
    if not isinstance(net, torch.fx.GraphModule):  # an exported program is in evaluation mode for good
        net.eval()
    logits = torch.cat([net(images) for images in split.images.split(batch)])
    return Evaluation(logits.float().softmax(1).cpu(), split.labels.cpu())


def _average(averaged: list[torch.Tensor], newest: list[torch.Tensor], seen: torch.Tensor) -> None:
    """Move the averages towards the newest values: over the last 50 steps or so, over fewer while there are not as many."""
    get_ema_multi_avg_fn(min(0.98, (1 + int(seen)) / (10 + int(seen))))(averaged, newest, seen)


def fit(
    net: nn.Module, train: Split, validation: Split, *, epochs: int, batch: int, lr: float, seed: int, weight_decay: float = 0.0,
    draw: Draw | None = None, on_epoch: Callable[[int, dict], None] = lambda epoch, metrics: None,
) -> list[dict]:
    """Train `net` in place and return one row an epoch: epoch, train_loss, validation_loss, validation_accuracy.

    AdamW on mini-batches under a one-cycle learning rate with peak `lr` (L. Smith, N. Topin, Super-Convergence,
    arXiv:1708.07120). What is judged, and left in `net`, is an exponential average of the weights, which is ahead of them
    while the rate is high (B. Polyak, A. Juditsky, Acceleration of stochastic approximation by averaging, 1992).
    `draw` (see augment) makes the batches, from the images as they are if it is None; `on_epoch(epoch, metrics)` is called
    after every epoch.
    """
    device, draw = train.images.device, draw or unmoved(train.images)
    net.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    averaged = AveragedModel(net, multi_avg_fn=_average, use_buffers=True)
    steps = max(1, len(train) // batch)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    climb = min(0.9, max(0.1, 2 / (epochs * steps)))  # two steps at least: OneCycleLR divides by the steps of the climb less one
    schedule = OneCycleLR(optimizer, max_lr=lr, total_steps=epochs * steps, pct_start=climb)
    generator = torch.Generator().manual_seed(seed)
    history = []
    with progress.training(epochs, steps) as follower:
        for epoch in range(1, epochs + 1):
            net.train()
            total = torch.zeros((), device=device)
            order = torch.randperm(len(train), generator=generator).to(device)
            for chosen in order[: steps * batch].split(batch):
                images = draw(chosen, generator).contiguous(memory_format=torch.channels_last)
                loss = F.cross_entropy(net(images), train.labels[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                averaged.update_parameters(net)
                total += loss.detach()
                follower.step()
            judged = evaluate(averaged.module, validation)
            metrics = {"train_loss": total.item() / steps, "validation_loss": judged.loss, "validation_accuracy": judged.accuracy}
            history.append({"epoch": epoch, **metrics})
            on_epoch(epoch, metrics)
            follower.epoch(metrics)  # last: who follows may end the training as soon as it is said
    net.load_state_dict(copy.deepcopy(averaged.module.state_dict()))
    net.eval()
    return history
