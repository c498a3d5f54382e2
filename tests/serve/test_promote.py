"""`nbproof promote`, `rollback` and the challenger, on a real store, and a server that follows them."""

import os
import shutil
import subprocess
import sys
import time

from portable_models import portable
from serving import MLMODEL, ZERO

LOCK = """\
schema: '2.0'
stages:
""" + "".join(f"""\
  train@{name}:
    cmd: nbproof stage
    deps: [{{path: data/table, md5: abc}}]
    outs: [{{path: models/{name}, md5: '{name}'}}, {{path: metrics/{name}.json, md5: '{name}'}}]
""" for name in ("one", "two"))
CALL = "import sys; from nbproof.tracking.registry import promote, rollback; sys.exit({})"


def trained(served) -> None:
    """Two models in the folder as a run leaves them: `one` says 3 and is the comparison's champion, `two` says 7."""
    for name, says in (("one", 3), ("two", 7)):
        portable(served.root / "models" / f"{name}.onnx", says)
        (served.root / "models" / name).mkdir()
        (served.root / "models" / name / "MLmodel").write_text(MLMODEL.replace("'[]'", "'[1]'") + f"name: {name}\n")
        (served.root / "metrics").mkdir(exist_ok=True)
        (served.root / "metrics" / f"{name}.json").write_text('{"validation_accuracy": 0.9}')
    (served.root / "metrics" / "compare.json").write_text('{"champion": "one", "validation_accuracy": 0.9}')
    (served.root / "dvc.lock").write_text(LOCK)


def call(served, what: str, code: int = 0) -> str:
    command = [sys.executable, "-c", CALL.format(what)] if "(" in what else [sys.executable, "-m", "nbproof", what]
    done = subprocess.run(command, cwd=served.root, env=os.environ | served.variables, capture_output=True, text=True)
    assert done.returncode == code and (code or "Traceback" not in done.stderr), done.stderr
    return done.stdout + done.stderr


def test_promote_rollback_and_a_challenger(served):
    trained(served)
    assert "There is no champion before this one" in call(served, "rollback", 2)
    assert "one is the registered champion now" in call(served, "promote()")
    server = served.start()
    assert server.says() == "3" and server.ask("/version")[1]["champion"]["dvc_lock"]
    assert "two is the challenger now" in call(served, 'promote("two", True)')
    server.until(lambda: (server.ask("/version")[1]["shadow"] or {}).get("model") == "two", 60)
    assert server.says() == "3"
    assert "two is the registered champion now" in call(served, 'promote("two")')
    server.until(lambda: server.says() == "7", 60)
    assert server.ask("/version")[1]["shadow"] is None  # it is the champion now
    assert "one, version 1 is the registered champion again (before: two, version 2)" in call(served, "rollback")
    server.until(lambda: server.says() == "3", 60)
    call(served, "rollback")
    server.until(lambda: server.says() == "7", 60)


def test_another_portable_form_of_the_same_model_is_another_version(served):
    """What it says it does not know is in the ONNX file, and not in the model."""
    trained(served)
    assert "one is the registered champion now (version 1)" in call(served, "promote()")
    assert "one is the registered champion already (version 1)" in call(served, "promote()")
    portable(served.root / "models" / "one.onnx", 3, limit=1.0)
    assert "one is the registered champion now (version 2, before: version 1, " in call(served, "promote()")
    told = served.start().ask("/version")[1]
    assert told["champion"]["version"] == "2" and told["champion"]["limit"] == 1.0 and not told["refused"], told


def test_evidence(served):
    """One that people's labels favour is promoted, and none without enough of them."""
    trained(served)
    (served.root / "project.yaml").write_text(
        (served.root / "project.yaml").read_text().replace("hooks: {", "hooks: {better: mnist.judge:better, "))
    (served.root / "params.yaml").write_text("compare: {confidence: 0.95}\n")
    call(served, "promote()")
    call(served, 'promote("two", True)')
    server = served.start()
    assert server.ask("/version")[1]["shadow"]["model"] == "two"

    def label(times: int, right: str) -> None:
        for _ in range(times):
            [id] = server.ask("/invocations", {"inputs": ZERO})[1]["ids"]
            assert server.ask("/label", {"id": id, "label": right})[0] == 200

    label(2, "7")
    time.sleep(1)  # until the shadow's answers are written, too
    said = call(served, 'promote("two", evidence=True)', 1)
    assert "stays: Of 2 images, 2 are newly right" in said
    label(8, "7")
    time.sleep(1)
    assert "two is the registered champion now" in call(served, 'promote("two", evidence=True)')


def test_what_is_registered_is_served_after_the_folder_is_gone(served):
    trained(served)
    call(served, "promote()")
    shutil.rmtree(served.root / "models")
    assert served.start().says() == "3"
