"""How a net is trained: reproducibly, with a one-cycle learning rate and averaged weights."""

import copy
import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mnist.augment import Augmentation
from mnist.data import Split
from mnist.evaluation import Predictions
from nbproof.notebook import progress

LOSS = "cross-entropy [nats]"
CHARTS = {LOSS: ["train_loss", "validation_loss"], "validation accuracy": ["validation_accuracy"]}


def prepare(seed: int, threads: int, device: str) -> torch.device:
    """Make training deterministic and return the device: `auto` is cuda, else mps, else cpu.

    `threads` shapes results: sums over another number of them are rounded differently.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS varies
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    # As use_deterministic_algorithms(True), which would import a compiler.
    torch.set_deterministic_debug_mode("error")
    torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads such memory
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = False, False
    nn.Linear.forward = linear
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    return torch.device(device)


def linear(layer: nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """Compute what `nn.Linear` does: values [N, in] to [N, out]; in training on a CPU, by oneDNN.

    PyTorch uses MKL, whose one mode that rounds alike on all processors takes twice as long.
    """
    onednn = torch.backends.mkldnn.is_available() and values.device.type == "cpu"
    if onednn and layer.training:
        return F.linear(values.to_mkldnn(), layer.weight, layer.bias).to_dense()
    return F.linear(values, layer.weight, layer.bias)


@torch.no_grad()
def predict(net: nn.Module, split: Split, batch: int = 250) -> Predictions:
    """Return the predictions of `net` for `split`; the net is in evaluation mode afterwards."""
    if not isinstance(net, torch.fx.GraphModule):  # an exported program has no other mode
        net.eval()
    batches = torch.arange(len(split), device=split.labels.device).split(batch)
    logits = torch.cat([net(split.normalised(chosen)) for chosen in batches])
    return Predictions(logits.float().softmax(1).cpu(), split.labels.cpu())


def moving_average(averages: list, newest: list, steps: torch.Tensor) -> None:
    """Move averaged weights towards the newest: over about 50 steps, or fewer at the start."""
    get_ema_multi_avg_fn(min(0.98, (1 + int(steps)) / (10 + int(steps))))(averages, newest, steps)


class DataSubset:
    """The images that each epoch sees: all, or the given fraction of them, in whole batches.

    The first epoch and the last two see all images. The others see those whose last loss was above
    the mean, and easier ones at random. (After InfoBatch, Z. Qin et al., arXiv:2303.04947; it also
    weights easier images up, without which the validation loss was lower here.)
    """

    def __init__(self, images: int, epochs: int, batch: int, fraction: float, device: torch.device):
        self.batch = min(batch, images)
        self.losses = torch.full((images,), math.nan, device=device)  # the last loss of each image
        few = max(1, round(fraction * images) // self.batch)
        complete = (1, epochs - 1, epochs)
        self.steps = [images // self.batch if epoch in complete else few
                      for epoch in range(1, epochs + 1)]

    def images(self, epoch: int, generator: torch.Generator) -> torch.Tensor:
        """Return the indices of the images of an epoch (from 1), in random order."""
        order = torch.randperm(len(self.losses), generator=generator)
        count = self.steps[epoch - 1] * self.batch
        if self.steps[epoch - 1] == self.steps[0]:
            return order[:count]
        is_easy = (self.losses <= self.losses.nanmean()).cpu()[order]  # without a loss: not easy
        chosen = torch.cat([order[~is_easy], order[is_easy]])[:count]
        return chosen[torch.randperm(count, generator=generator)]


def optimization(net: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple:
    """Return AdamW and its one-cycle schedule (L. Smith, N. Topin, arXiv:1708.07120)."""
    optimizer = torch.optim.AdamW(  # fused: other code takes roots by MKL, which differ by vendor
        net.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    climb = min(0.9, max(0.1, 2 / steps))  # OneCycleLR divides by the steps of the climb minus one
    return optimizer, OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=climb)


def fit(
    net: nn.Module, train: Split, validation: Split, *, epochs: int, batch: int, lr: float,
    seed: int, weight_decay: float = 0.0, augment: Augmentation = lambda images, generator: images,
    fraction: float = 1.0, on_epoch: Callable[[int, dict], None] = lambda epoch, metrics: None,
) -> list[dict]:
    """Train `net` in place by the loop that the notebook `linear` shows; return a row an epoch.

    `augment` changes the images of each batch; most epochs see only `fraction` of the images, see
    DataSubset. The validation metrics, and the net in the end, are of averaged weights.
    """
    device = train.images.device
    net.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions
    averaged = AveragedModel(net, multi_avg_fn=moving_average, use_buffers=True)
    generator = torch.Generator().manual_seed(seed)
    subset = DataSubset(len(train), epochs, batch, fraction, device)
    optimizer, schedule = optimization(net, lr, weight_decay, sum(subset.steps))
    history = []
    with progress.follow(epochs, subset.steps, charts=CHARTS, logarithmic={LOSS}) as follower:
        for epoch in range(1, epochs + 1):
            net.train()
            for chosen in subset.images(epoch, generator).to(device).split(subset.batch):
                images = augment(train.normalised(chosen), generator)
                images = images.contiguous(memory_format=torch.channels_last)
                losses = F.cross_entropy(net(images), train.labels[chosen], reduction="none")
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
                schedule.step()
                averaged.update_parameters(net)
                subset.losses[chosen] = losses.detach()
                follower.part()
            found = predict(averaged.module, validation)
            metrics = {"train_loss": subset.losses.nanmean().item(), "validation_loss": found.loss,
                       "validation_accuracy": found.accuracy}
            history.append({"epoch": epoch, **metrics})
            on_epoch(epoch, metrics)
            follower.step(metrics)  # last, because a sweep may stop the training after it
    net.load_state_dict(copy.deepcopy(averaged.module.state_dict()))
    net.eval()
    return history
