"""Models that are swapped while requests come in: no request fails, and what is not right is not served."""

import json
import os
import pickle
import re
import shutil
import time

from portable_models import portable
from serving import ZERO, Load, Server


def test_the_alias_moves_under_load(served, nets):
    one, two = served.register(nets[3]), served.register(nets[7])
    server = served.start()
    with Load(server) as load:
        for turn in range(8):
            served.move("champion", (one, two)[turn % 2])
            time.sleep(1.2)
    assert load.wrong == [] and load.count > 200
    assert load.seen == {(one, "3", 0.9), (two, "7", 0.9)}
    assert load.slowest < 1, load.slowest
    swaps = re.search(r"nbproof_swaps_total (\d+)", server.ask("/metrics")[1].decode())
    assert int(swaps.group(1)) >= 6


def refused(server: Server, alias: str = "champion") -> str:
    server.until(lambda: alias in server.ask("/version")[1]["refused"])
    why = server.ask("/version")[1]["refused"][alias]["why"]
    counted = server.ask("/metrics")[1].decode()
    assert why in server.text() and f'nbproof_refused_total{{alias="{alias}"}} 1.0' in counted
    return why


def test_what_is_damaged_is_refused(served, nets):
    served.register(nets[7])
    server = served.start()
    version = served.register(nets[3])
    file = served.file_of(version)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    assert "is damaged" in refused(server) and server.says() == "7"


def test_what_fails_its_check_is_refused(served, nets, tmp_path):
    served.register(nets[7])
    server = served.start()
    served.register(portable(tmp_path / "wrong.onnx", 3, right=False))
    assert "its answers are 0.8" in refused(server) and server.says() == "7"
    served.register(nets[3])
    server.until(lambda: server.says() == "3")  # the next good one is taken
    assert server.ask("/version")[1]["refused"] == {}


def test_what_is_no_model_is_refused(served, nets, tmp_path):
    served.register(nets[7])
    server = served.start()
    (tmp_path / "text.onnx").write_bytes(b"no model")
    served.register(tmp_path / "text.onnx", alias="challenger")
    assert "cannot be loaded" in refused(server, "challenger") and server.says() == "7"


class Bait:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_pickle_is_never_loaded(served, nets, tmp_path):
    served.register(nets[7])
    server = served.start()
    served.register(None, pickled=pickle.dumps(Bait(tmp_path / "ran")))
    assert "registered without an ONNX file" in refused(server) and server.says() == "7"
    (tmp_path / "pickle.onnx").write_bytes(pickle.dumps(Bait(tmp_path / "ran")))
    served.register(tmp_path / "pickle.onnx", alias="challenger")
    assert "cannot be loaded" in refused(server, "challenger")
    assert not (tmp_path / "ran").exists()


def test_a_name_that_is_a_path_reads_nothing(served, nets):
    served.register(nets[7])
    server = served.start()
    version = served.register(None, alias="other")
    served.client.set_model_version_tag("drawn", version, "model", "../../../../etc/passwd")
    served.move("champion", 2)
    assert "without an ONNX file" in refused(server) and server.says() == "7"


def test_the_registry_goes_and_comes_back(served, nets):
    served.register(nets[7])
    server = served.start()
    store = served.root / "mlflow.db"
    store.rename(store.with_name("away"))
    server.until(lambda: server.ask("/version")[1]["registry"] != "ok")
    assert server.says() == "7" and "names no champion" in server.text()
    store.write_bytes(b"no database" * 1000)
    server.wait_for("does not answer")
    assert server.says() == "7" and "nbproof_registry_up 0.0" in server.ask("/metrics")[1].decode()
    store.with_name("away").replace(store)
    served.move("champion", 1)
    server.until(lambda: server.ask("/version")[1]["registry"] == "ok")


def test_without_a_registry_the_files_of_the_folder_are_served(served, nets):
    server = served.start(ready=False)
    assert server.process.wait(60) == 2
    assert "There is nothing to serve" in server.text() and "Traceback" not in server.text()
    (served.root / "metrics").mkdir()
    (served.root / "metrics" / "compare.json").write_text('{"champion": "net"}')
    (served.root / "models").mkdir()
    shutil.copy(nets[7], served.root / "models" / "net.onnx")
    server = served.start()
    assert server.says() == "7" and server.ask("/version")[1]["champion"]["source"] == "models/net.onnx"


def test_a_project_that_was_moved(served, nets):
    served.register(nets[7])
    moved = served.root.rename(served.root.with_name("moved"))
    served.root = moved
    assert served.start().says() == "7"


def test_the_shadow_is_unheard(served, nets, tmp_path):
    served.register(nets[7])
    server = served.start()
    served.register(nets[3], "other", "challenger")
    server.until(lambda: server.ask("/version")[1]["shadow"])
    assert "other" not in json.dumps(server.ask("/invocations", {"inputs": ZERO})[1])
    served.client.delete_registered_model_alias("drawn", "challenger")
    server.until(lambda: server.ask("/version")[1]["shadow"] is None)
    assert server.says() == "7"
