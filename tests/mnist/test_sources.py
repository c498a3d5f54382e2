"""Downloads from mirrors on loopback. Of Fashion-MNIST and KMNIST only small files of the same
format were seen, never the real ones."""

import functools
import gzip
import hashlib
import http.server
import os
import socket
import socketserver
import struct
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from projects import ROOT

from mnist import sources
from mnist.sources import FILES, SOURCES
from nbproof.notebook import Fallback

REAL = Path(os.environ.get("MNIST_FILES") or ROOT.parent / "shared" / "mnist")
DEAD = "http://127.0.0.1:9/"


@pytest.fixture
def made(tmp_path, monkeypatch) -> Path:
    """A folder with the four files: small ones of the format, right for each source."""
    folder, sums = tmp_path / "made", []
    folder.mkdir()
    for number, name in enumerate(FILES):
        shape = (30, 28, 28) if "images" in name else (30,)
        values = bytes((number + i) % 10 for i in range(torch.Size(shape).numel()))
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        (folder / name).write_bytes(gzip.compress(header + values, mtime=0))
        sums.append(hashlib.md5((folder / name).read_bytes()).hexdigest())
    for name in ("mnist", "fashion", "kmnist"):
        monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], md5=sums))
    return folder


@pytest.fixture
def fetch(monkeypatch):
    """A function that fetches a source from given mirrors."""
    def run(name: str, *mirrors: object) -> dict[str, torch.Tensor]:
        monkeypatch.setenv(f"{name.upper()}_MIRRORS", " ".join(map(str, mirrors)))
        return sources.fetch(name)

    return run


@pytest.fixture
def served():
    """A function that serves a folder, or the same bytes to everybody, and returns its address."""
    with ExitStack() as stack:
        def start(what: Path | bytes) -> str:
            class Raw(socketserver.BaseRequestHandler):
                def handle(self):
                    self.request.recv(10_000)
                    self.request.sendall(what)

            folder = functools.partial(http.server.SimpleHTTPRequestHandler, directory=what)
            handler = Raw if isinstance(what, bytes) else folder
            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield start


@pytest.mark.parametrize("name", ["mnist", "fashion", "kmnist"])
def test_four_files_become_tensors(made, fetch, served, name):
    tensors = fetch(name, served(made))
    assert tensors["train_images"].shape == (30, 28, 28)
    assert tensors["train_images"].dtype == torch.uint8
    assert tensors["test_labels"].tolist() == [(3 + i) % 10 for i in range(30)]
    assert tensors["test_labels"].dtype == torch.int64
    fetch(name, DEAD)  # what is there and intact is not downloaded again


@pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here (MNIST_FILES)")
def test_the_real_mnist(fetch):
    tensors = fetch("mnist", REAL)
    assert torch.bincount(tensors["train_labels"]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert len(tensors["test_images"]) == 10_000 and tensors["train_images"].max() == 255


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_damaged_file_is_refused_and_replaced(made, fetch, served, events, as_folder, project):
    whole, mirror = (made / FILES[1]).read_bytes(), made if as_folder else served(made)
    (made / FILES[1]).write_bytes(whole[:-1] + b"?")
    with pytest.raises(Fallback, match="its checksum is wrong") as failure:
        fetch("mnist", mirror)
    text = str(failure.value)
    assert str(mirror) in text and "MNIST_MIRRORS" in text and "to digits" in text
    assert events[-1]["fallback"] == {
        "parameter": "data.source", "value": "digits", "message": text}
    ours = project / "scratch" / "download" / "mnist" / FILES[1]
    assert not ours.exists()
    ours.write_bytes(b"part")
    (made / FILES[1]).write_bytes(whole)
    assert fetch("mnist", mirror)["train_labels"].tolist() == [(1 + i) % 10 for i in range(30)]


def test_what_is_no_mirror_is_passed_over(made, fetch, served, monkeypatch):
    """Of some kinds; one never answers. No password is repeated."""
    monkeypatch.setattr(sources, "TIMEOUT", 0.5)
    silent = socket.create_server(("127.0.0.1", 0))
    plain = [DEAD, "/no/such/folder", "gopher://127.0.0.1/", served(b"SSH-2.0-OpenSSH_9.2\r\n"),
             served(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc"),
             f"http://127.0.0.1:{silent.getsockname()[1]}"]
    secret = ["http://someone:hunter2@127.0.0.1:9/", "http://someone:hun@ter2@127.0.0.1:port/"]
    with silent, pytest.raises(Fallback) as failure:
        fetch("mnist", *plain, *secret)
    assert all(mirror in str(failure.value) for mirror in plain)
    assert not [word for word in ("hun", "ter2", "someone") if word in str(failure.value)]
    assert len(fetch("mnist", *secret, served(made))["test_labels"]) == 30


def test_small_digits_have_the_form_of_mnist():
    tensors = sources.fetch("digits")
    images = tensors["train_images"]
    assert images.shape == (1437, 28, 28) and len(tensors["test_labels"]) == 360
    assert images.dtype == torch.uint8 and images.max() > 200 and images[:, :4].max() == 0
    assert torch.bincount(tensors["train_labels"]).min() > 100
