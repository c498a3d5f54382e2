"""What docs/production holds: the image's files are enough to serve, and systemd takes the unit."""

import re
import shutil
import subprocess
import sys

import pytest
from serving import ROOT, Served

PRODUCTION = ROOT / "docs" / "production"


def test_the_files_of_the_image_are_enough(tmp_path, nets):
    """What the Dockerfile copies, in an empty folder: its set-up and its command, on loopback."""
    text = (PRODUCTION / "Dockerfile").read_text()
    app = tmp_path / "app"
    app.mkdir()
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        *names, place = line.split()
        for name in names:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, app / place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, app)
    set_up = re.search(r"RUN python (\S+bootstrap.py .*?) &&", text).group(1).split()
    done = subprocess.run([sys.executable, *set_up], cwd=app, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("metrics", "models"):
        (app / name).mkdir()
    (app / "metrics" / "compare.json").write_text('{"champion": "net"}')
    shutil.copy(nets[7], app / "models" / "net.onnx")
    python, *words = re.findall(r'"([^"]+)"', re.search(r"^CMD (.+)$", text, re.M).group(1))
    words = [{"0.0.0.0": "127.0.0.1", "8000": "0"}.get(word, word) for word in words]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([app / python, *words], cwd=app, stdout=said, stderr=said, env={"PATH": "/usr/bin"})
    server = Served.attached(process, tmp_path / "said")
    try:
        server.listens()
        assert server.says() == "7" and server.ask("/")[0] == 200
    finally:
        server.stop(9)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed here")
def test_the_unit_is_right(tmp_path):
    unit = tmp_path / "nbproof-serve.service"
    text = (PRODUCTION / "nbproof-serve.service").read_text()
    unit.write_text(text.replace("/srv/project/.venv-serve/bin/python", sys.executable))  # one that is here
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    wrong = subprocess.run(["systemd-analyze", "verify", PRODUCTION / "nbproof-serve.service"], capture_output=True)
    assert wrong.returncode  # and it looks
