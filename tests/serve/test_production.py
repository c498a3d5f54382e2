"""docs/production: the files that the image copies are enough."""

import re
import shutil
import subprocess
import sys

from serving import ROOT, Server

PRODUCTION = ROOT / "docs" / "production"


def test_the_files_of_the_image_are_enough(tmp_path, nets):
    """What the Dockerfile copies, in an empty folder: its set-up and its command, on loopback."""
    text, app = (PRODUCTION / "Dockerfile").read_text(), tmp_path / "app"
    for name in ("models/net", "metrics"):
        (app / name).mkdir(parents=True)
    for line in re.findall(r"^COPY (.+)$", text, re.M):
        *names, target = line.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, app / target)
            else:
                shutil.copy(ROOT / name, app)
    set_up = re.search(r"RUN python (\S+bootstrap.py .*?) &&", text)[1].split()
    subprocess.run([sys.executable, *set_up], cwd=app, check=True)
    (app / "metrics/compare.json").write_text('{"champion": "net"}')
    shutil.copy(nets[7], app / "models/net.onnx")
    (app / "models/net/MLmodel").write_text("metadata: {}\n")
    python, *words = re.findall(r'"([^"]+)"', re.search(r"^CMD (.+)$", text, re.M)[1])
    words = [{"0.0.0.0": "127.0.0.1", "8000": "0"}.get(word, word) for word in words]
    server = Server([app / python, *words], app, {"PATH": "/usr/bin"})
    try:
        server.listens()
        assert server.predicts() == "7" and server.ask("/")[0] == 200
    finally:
        server.stop(9)
