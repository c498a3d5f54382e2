"""Where the images come from: MNIST by torchvision, or the small set of digits that is part of scikit-learn."""

import contextlib
import http.client
import io
import os
import shutil
import socket
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.datasets import MNIST
from torchvision.datasets.utils import check_integrity

from nbproof.notebook import Fallback
from nbproof.notebook.files import root
from nbproof.notebook.tracking import without_credentials

ANSWER_WITHIN = 20  # seconds a mirror may stay silent


def mirrors() -> list[str | Path]:
    """Where to look, in order: what MNIST_MIRRORS names (addresses and folders), else torchvision's mirrors."""
    given = os.environ.get("MNIST_MIRRORS", "").split() or MNIST.mirrors
    return [address.rstrip("/") + "/" if "://" in address else root() / address for address in given]


def mnist(folder: Path | None = None) -> dict[str, torch.Tensor]:
    """MNIST as uint8 images [N, 28, 28] and int64 labels [N], the 60,000 `train_*` and the 10,000 `test_*`.

    The compressed files in `folder`/MNIST/raw are checked against torchvision's MD5 sums each time; what is missing or
    damaged there comes from the mirrors, each asked once for all that is still missing. Fallback when none is left.
    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document recognition, 1998.
    """
    folder = folder or root() / "data" / "download"
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_WITHIN)
    tried = []
    try:
        for mirror in mirrors():
            try:
                return _from_mirror(mirror, folder, raw)
            except (RuntimeError, OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no address
                reason = without_credentials(str(error), 10_000)[-200:]
                tried.append(without_credentials(f"{mirror} ({reason})", 1000))
    finally:
        socket.setdefaulttimeout(before)
    raise Fallback(
        f"MNIST could not be fetched; tried {'; '.join(tried)}. Two ways out: name a mirror or a folder that has the "
        "four files in MNIST_MIRRORS, or set data.source to digits in params.yaml.",
        parameter="data.source", value="digits",
    )


def _from_mirror(mirror: str | Path, folder: Path, raw: Path) -> dict[str, torch.Tensor]:
    """MNIST, with what is missing in `raw` taken from one mirror; RuntimeError or OSError where that does not do."""
    for unpacked in raw.glob("*-ubyte"):  # torchvision does not check unpacked files: have it unpack what was checked
        unpacked.unlink()
    if isinstance(mirror, Path):
        for name, md5 in MNIST.resources:
            if not check_integrity(raw / name, md5):
                if not check_integrity(mirror / name, md5):
                    raise RuntimeError(f"{name} is not there, or its checksum is wrong")
                shutil.copyfile(mirror / name, raw / name)
    asked = type("MNIST", (MNIST,), {"mirrors": [str(mirror)]})
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # progress bars
        train, test = asked(folder, train=True, download=True), asked(folder, train=False)
    return {
        "train_images": train.data, "train_labels": train.targets,
        "test_images": test.data, "test_labels": test.targets,
    }


def digits(test_share: float = 0.2) -> dict[str, torch.Tensor]:
    """scikit-learn's 1,797 digits, 8x8 brought to 28x28 by bilinear interpolation, in MNIST's form; a fifth is test.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits

    carried = load_digits()
    small = torch.from_numpy(carried.images).float()[:, None] / 16
    inner = F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)  # MNIST's digits fill 20x20 too
    images = F.pad(inner, (4, 4, 4, 4))[:, 0].mul(255).round().to(torch.uint8)
    labels = torch.from_numpy(carried.target).long()
    test = torch.arange(len(labels)) % round(1 / test_share) == 0
    return {
        "train_images": images[~test], "train_labels": labels[~test],
        "test_images": images[test], "test_labels": labels[test],
    }


def fetch(source: str) -> dict[str, torch.Tensor]:
    """The images and labels of one source, `"mnist"` or `"digits"`."""
    return {"mnist": mnist, "digits": digits}[source]()
