"""The data sets that `data.source` can name; sources.yaml describes them."""

import gzip
import hashlib
import os
import struct
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import torch
import torch.nn.functional as F

from nbproof.notebook import Fallback
from nbproof.notebook.files import from_yaml, root, write_whole
from nbproof.notebook.tracking import without_credentials

FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
         "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
TIMEOUT = 20  # seconds that a mirror may be silent


@dataclass(frozen=True)
class Source:
    """A data set; sources.yaml says what each of these is."""

    name: str
    title: str
    noun: str
    classes: list[str]
    longer_side: int
    floors: dict[str, float]
    mirrors: list[str] = ()
    md5: list[str] = ()


DESCRIBED = from_yaml(Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8"))
SOURCES = {name: Source(name, **facts) for name, facts in DESCRIBED.items()}


def fetch(name: str) -> dict[str, torch.Tensor]:
    """Return images uint8 [N, 28, 28] and labels int64 [N] of one of SOURCES, by TENSORS' names.

    Files in scratch/download are checked each time. Raises Fallback where no mirror has them.
    """
    if name == "digits":
        return digits()
    folder = root() / "scratch" / "download" / name
    download(SOURCES[name], folder)
    tensors = dict(zip(TENSORS, (read_idx(folder / file) for file in FILES)))
    return {key: tensor.long() if "labels" in key else tensor for key, tensor in tensors.items()}


def download(source: Source, folder: Path) -> None:
    """Complete the four files in `folder`, each checked, from the first mirrors that have them."""
    failures, variable = [], f"{source.name.upper()}_MIRRORS"
    for mirror in os.environ.get(variable, "").split() or source.mirrors:
        base = mirror if "://" in mirror else (root() / mirror).as_uri()
        try:
            for file, md5 in zip(FILES, source.md5):
                path = folder / file
                if not path.exists() or hashlib.md5(path.read_bytes()).hexdigest() != md5:
                    with urlopen(f"{base.rstrip('/')}/{file}", timeout=TIMEOUT) as response:
                        content = response.read()
                    if hashlib.md5(content).hexdigest() != md5:
                        raise OSError(f"{file} is damaged: its checksum is wrong")
                    write_whole(path, content)
            return
        except (OSError, HTTPException, ValueError) as error:  # ValueError: not an address
            reason = without_credentials(str(error), 10_000)[-200:]
            failures.append(without_credentials(f"{mirror} ({reason})", 1000))
    raise Fallback(
        f"{source.title} could not be downloaded from {'; '.join(failures)}. Either set "
        f"{variable} to the address of a mirror, or to a folder that has the four files, or set "
        "data.source to digits in params.yaml.", parameter="data.source", value="digits")


def read_idx(path: Path) -> torch.Tensor:
    """Return the uint8 array in a compressed IDX file: four bytes, its shape, its values."""
    content = gzip.decompress(path.read_bytes())
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    start = 4 + 4 * len(shape)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def digits() -> dict[str, torch.Tensor]:
    """Return scikit-learn's 1,797 digits, 8 x 8, in MNIST's format; every fifth is for testing."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    small = torch.from_numpy(bundled.images).float()[:, None] / 16
    inner = F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(inner, (4, 4, 4, 4))[:, 0].mul(255).round().to(torch.uint8)
    labels = torch.from_numpy(bundled.target).long()
    test = torch.arange(len(labels)) % 5 == 0
    return dict(zip(TENSORS, (images[~test], labels[~test], images[test], labels[test])))
