"""MNIST by torchvision's own download, from mirrors on loopback; the small digits from scikit-learn."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import shutil
import socket
import socketserver
import struct
import threading
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from mnist import sources
from nbproof.notebook import Fallback

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MNIST_FILES") or ROOT.parent / "shared" / "mnist")
NAMES = [name for name, _ in MNIST.resources]


@pytest.fixture(scope="module", params=["real", "made"])
def files(request, tmp_path_factory):
    """A folder with the four files: the real ones where they are on this machine, and small ones of the same format."""
    if request.param == "real":
        if not all((SHARED / name).exists() for name in NAMES):
            pytest.skip("the real MNIST files are not here (MNIST_FILES names their folder); small ones are tested")
        yield SHARED
        return
    folder = tmp_path_factory.mktemp("made")
    generator, sums = torch.Generator().manual_seed(0), []
    for name in NAMES:
        count = 30 if name.startswith("train") else 10
        shape = (count, 28, 28) if "images" in name else (count,)
        values = torch.randint(0, 10, shape, generator=generator, dtype=torch.uint8).numpy().tobytes()
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        (folder / name).write_bytes(gzip.compress(header + values, mtime=0))
        sums.append((name, hashlib.md5((folder / name).read_bytes()).hexdigest()))
    before, MNIST.resources = MNIST.resources, sums
    yield folder
    MNIST.resources = before


@pytest.fixture
def mirror(tmp_path):
    """A function that serves a folder on loopback and returns its address."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    def serve(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def damaged(files, tmp_path):
    """The four files, one of them with its last bytes changed."""
    folder = tmp_path / "damaged"
    shutil.copytree(files, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    content = (folder / NAMES[0]).read_bytes()
    (folder / NAMES[0]).write_bytes(content[:-4] + b"oops")
    return folder


def fetch(monkeypatch, tmp_path, *mirrors: str) -> dict[str, torch.Tensor]:
    monkeypatch.setenv("MNIST_MIRRORS", " ".join(mirrors))
    return sources.mnist(tmp_path / "download")


def is_whole(tensors: dict[str, torch.Tensor]) -> bool:
    images = tensors["train_images"]
    counts = [len(tensors[f"{split}_{kind}"]) for split in ("train", "test") for kind in ("images", "labels")]
    whole = counts in ([60000, 60000, 10000, 10000], [30, 30, 10, 10])
    return whole and images.shape[1:] == (28, 28) and images.dtype == torch.uint8


def test_whole(files, mirror, monkeypatch, tmp_path, capsys):
    assert is_whole(fetch(monkeypatch, tmp_path, mirror(files)))
    assert is_whole(fetch(monkeypatch, tmp_path, "http://127.0.0.1:9/"))  # what is there and right is not fetched again
    assert capsys.readouterr() == ("", "")


def test_a_folder_serves_as_it_is(files, monkeypatch, tmp_path):
    before = sorted(files.iterdir())
    assert is_whole(fetch(monkeypatch, tmp_path, str(files))) and sorted(files.iterdir()) == before


@pytest.mark.parametrize("as_folder", [True, False])
def test_one_file_damaged_is_refused(damaged, mirror, monkeypatch, tmp_path, events, as_folder):
    where = str(damaged) if as_folder else mirror(damaged)
    with pytest.raises(Fallback) as refused:
        fetch(monkeypatch, tmp_path, where)
    assert all(each in str(refused.value) for each in (where, "MNIST_MIRRORS", "data.source to digits"))
    assert not (tmp_path / "download" / "MNIST" / "raw" / NAMES[0][:-3]).exists()
    assert events[-1]["fallback"] == {"parameter": "data.source", "value": "digits", "message": str(refused.value)}


def test_the_second_mirror_is_asked(files, damaged, mirror, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    served = [mirror(folder) for folder in (tmp_path / "empty", damaged, files)]
    assert is_whole(fetch(monkeypatch, tmp_path, "http://127.0.0.1:9/", *served))


def test_a_damaged_file_of_ours_is_replaced(files, mirror, monkeypatch, tmp_path):
    first = fetch(monkeypatch, tmp_path, str(files))
    raw = tmp_path / "download" / "MNIST" / "raw"
    (raw / NAMES[1]).chmod(0o644)
    (raw / NAMES[1]).write_bytes(b"part")
    (raw / NAMES[0][:-3]).write_bytes(b"an unpacked file that torchvision would trust")
    again = fetch(monkeypatch, tmp_path, mirror(files))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_mirror_that_never_answers_is_given_up(files, monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(sources, "ANSWER_WITHIN", 1)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert is_whole(fetch(monkeypatch, tmp_path, address, str(files)))
    assert socket.getdefaulttimeout() is None


def test_all_dead(monkeypatch, tmp_path):
    with pytest.raises(Fallback) as refused:
        fetch(monkeypatch, tmp_path, "http://127.0.0.1:9/a", "http://127.0.0.1:9/b", "/no/such/folder")
    tried = ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/", "/no/such/folder")
    assert all(each in str(refused.value) for each in tried)


def test_what_is_no_mirror_is_passed_over(files, monkeypatch, tmp_path):
    """Something that speaks no HTTP, or breaks off in the middle, or has no address; no password is ever repeated."""
    answers = {"other": b"SSH-2.0-OpenSSH_9.2\r\n", "short": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc"}
    with contextlib.ExitStack() as stack:
        addresses = ["gopher://127.0.0.1/", "http://someone:hunter2@127.0.0.1:9/", "http://someone:hun@ter2@127.0.0.1:port/"]
        for answer in answers.values():
            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), answering(answer)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            addresses.append(f"http://127.0.0.1:{server.server_address[1]}/")
        with pytest.raises(Fallback) as refused:
            fetch(monkeypatch, tmp_path, *addresses)
        said = str(refused.value)
        assert not [secret for secret in ("hun", "ter2", "someone") if secret in said]
        assert all(each in said for each in addresses if "@" not in each)
        assert is_whole(fetch(monkeypatch, tmp_path, *addresses, str(files)))


def answering(content: bytes) -> type:
    """A handler that says `content` to whoever asks, and hangs up."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(10_000)
            self.request.sendall(content)

    return Answer


def test_torchvisions_mirrors_are_the_default(monkeypatch):
    monkeypatch.delenv("MNIST_MIRRORS", raising=False)
    assert sources.mirrors() == MNIST.mirrors


def test_small_digits_have_the_form_of_mnist():
    tensors = sources.fetch("digits")
    assert len(tensors["train_labels"]) + len(tensors["test_labels"]) == 1797 and len(tensors["test_labels"]) == 360
    images = tensors["train_images"]
    assert images.shape == (1437, 28, 28) and images.max() > 200 and images[:, :4].max() == 0
    assert images.dtype == torch.uint8 and tensors["train_labels"].dtype == torch.int64
    assert torch.bincount(tensors["train_labels"]).min() > 100
