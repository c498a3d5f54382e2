"""What a server answers, and what it refuses: a real one, asked over HTTP."""

import base64
import io
import json
import re
import socket
import sqlite3
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from portable_models import portable
from serving import ZERO, Served, environment_of_servers

FLAT = np.zeros((2, 784)).tolist()


def png(side: int = 280, mode: str = "L") -> bytes:
    """A seven, drawn."""
    image = Image.new(mode, (side, side), "white")
    ImageDraw.Draw(image).line([(0.3 * side, 0.2 * side), (0.7 * side, 0.2 * side), (0.45 * side, 0.85 * side)],
                               fill="black", width=max(1, side // 14))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory, nets):
    """A server that tests of this file share: it says 7, its shadow says 3."""
    project = Served(tmp_path_factory.mktemp("shared") / "project")
    project.register(nets[7], git_commit="abc", dvc_lock="def")
    project.register(nets[3], "other", "challenger")
    started = project.start("--images", "--body", "2")
    started.project = project
    yield started
    started.stop(9)


def rows(project, question: str) -> list[tuple]:
    with sqlite3.connect(f"file:{project.root / 'served' / 'log.sqlite'}?mode=ro", uri=True) as database:
        return database.execute(question).fetchall()


def test_it_is_up_within_five_seconds(served, nets):
    served.register(nets[7])
    started = time.monotonic()
    assert served.start().says() == "7"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("content", [
    {"inputs": ZERO * 2}, {"instances": ZERO * 2}, {"inputs": {"images": ZERO * 2}},
    {"instances": [{"images": ZERO[0]}, {"images": ZERO[0]}]},
    {"dataframe_split": {"columns": list(range(784)), "data": FLAT}},
    {"dataframe_records": [{str(place): 0 for place in range(784)}] * 2},
], ids=["inputs", "instances", "named", "objects", "split", "records"])
def test_the_scoring_protocol(server, content):
    status, answer = server.ask("/invocations", content)
    assert status == 200, answer
    assert np.shape(answer["predictions"]) == (2, 10) and answer["answers"] == ["7", "7"]
    assert np.isclose(answer["predictions"][1][7], 0.9, atol=1e-5) and len(set(answer["ids"])) == 2


def test_a_table_as_csv(server):
    text = ",".join(map(str, range(784))) + "\n" + ",".join(["0.5"] * 784) + "\n"
    assert server.ask("/invocations", text.encode(), kind="text/csv; charset=utf-8")[1]["answers"] == ["7"]


def table(path: Path) -> Path:
    """A model of one input [N, 3]: units, tens and hundreds."""
    weights = numpy_helper.from_array(np.array([[1], [10], [100]], np.float32), "weights")
    shapes = {"x": ["N", 3], "y": ["N", 1]}
    given, said = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    product = helper.make_node("MatMul", ["x", "weights"], ["y"])
    graph = helper.make_graph([product], "table", [given], [said], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_columns_that_the_signature_names_come_in_any_order(served, tmp_path, monkeypatch):
    columns = json.dumps([{"type": "double", "name": name, "required": True} for name in ("one", "two", "three")])
    monkeypatch.setattr("serving.MLMODEL", f"signature: {{inputs: '{columns}'}}\nmetadata: {{}}\n")
    served.register(table(tmp_path / "table.onnx"))
    server = served.start()
    for content in ({"dataframe_records": [{"one": 1, "two": 2, "three": 3}]},
                    {"dataframe_records": [{"three": 3, "one": 1, "two": 2}]},
                    {"dataframe_split": {"columns": ["two", "three", "one"], "data": [[2, 3, 1]]}},
                    {"dataframe_split": {"data": [[1, 2, 3]]}}, {"inputs": [[1, 2, 3]]}):
        assert server.ask("/invocations", content)[1]["predictions"] == [[321]], content
    told = server.ask("/invocations", b"three,one,two\n3,1,2\n", kind="text/csv")[1]
    assert told["predictions"] == [[321]]
    status, told = server.ask("/invocations", {"dataframe_records": [{"one": 1, "two": 2, "four": 3}]})
    assert status == 400 and told["message"] == "The model's columns are one, two, three; found one, two, four.", told


@pytest.mark.parametrize("body, told", [
    (b"", "cannot be read"), (b"[1]", "must be a JSON object"), (b"{", "cannot be read"),
    (b"\xff\xfe{}", "cannot be read"),
    (b"{}", "must hold exactly one of"), (b'{"inputs": [], "instances": []}', "must hold exactly one of"),
    (b'{"inputs": [1], "more": 1}', "unknown key 'more'"), (b'{"inputs": []}', "no case"),
    (b'{"inputs": 3}', "must be a list"), (b'{"inputs": "abc"}', "must be a list"),
    (b'{"inputs": null}', "must be a list"), (b'{"inputs": {"wrong": [1]}}', "inputs are images; found wrong"),
    (b'{"inputs": [[1, 2], [3]]}', "all cases alike"),
    (b'{"inputs": [[1, 2, 3]]}', "1 x 28 x 28 a case, found 3"), (b'{"inputs": [[NaN]]}', "cannot be read"),
    (b'{"inputs": [["a"]]}', "found text"), (b'{"inputs": [[true]]}', "found true or false"),
    (b'{"inputs": [[{}]]}', "something else"), (b'{"inputs": [[null]]}', "something else"),
    (b'{"dataframe_split": {"columns": [1], "data": [[1, 2]]}}', "a value for each of its columns"),
    (b'{"dataframe_split": [1]}', "must be an object with a list"), (b'{"dataframe_records": [1]}', "list of objects"),
    (b'{"dataframe_records": [{"a": 1}, {"b": 1}]}', "Record 2 must have the keys"),
    (b"[" * 100_000, "cannot be read"), (b'{"inputs": [[' + b"1e300," * 783 + b"1]]}", "finite numbers"),
    (b'{"inputs": [[' + b"9" * 5000 + b"]]}", "cannot be read"),
], ids=str)
def test_wrong_questions_get_one_sentence(server, body, told):
    status, answer = server.ask("/invocations", body)
    assert status == 400 and set(answer) == {"error_code", "message"}, answer
    assert told in answer["message"] and answer["message"].endswith(".") and len(answer["message"]) < 300


@pytest.mark.parametrize("method, path, kind, status", [
    ("POST", "/invocations", "text/plain", 415), ("GET", "/invocations", "", 405), ("GET", "/none", "", 404),
    ("POST", "/predict", "text/html", 415), ("POST", "/label", "text/plain", 415), ("GET", "/../project.yaml", "", 404),
    ("GET", "/ask.py", "", 404), ("GET", "/draw.js/..", "", 404),
])
def test_wrong_ways_get_one_sentence(server, method, path, kind, status):
    got, answer = server.ask(path, b"x" if method == "POST" else None, kind=kind, method=method)
    assert got == status and set(answer) == {"error_code", "message"}, answer
    assert "default-src 'none'" in server.headers["Content-Security-Policy"]


def test_pictures(server):
    status, answer = server.ask("/predict?details=1", png(), kind="image/png")
    assert status == 200, answer
    [first] = answer["answers"]
    assert first["answer"] == first["best"] == "7" and np.shape(first["prepared"]) == (1, 28, 28)
    assert np.max(first["prepared"]) == pytest.approx((1 - 0.13) / 0.31, abs=0.02)  # the bright ink of MNIST
    assert answer["shadow"]["answers"][0]["answer"] == "3" and answer["shadow"]["model"] == "other"
    several = [base64.b64encode(png(side)).decode() for side in (28, 100, 300)]
    assert len(server.ask("/predict", {"files": several})[1]["answers"]) == 3
    file = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png() + b"\r\n"
    told = server.ask("/predict", 2 * file + b"--x--\r\n", kind="multipart/form-data; boundary=x")[1]
    assert [each["answer"] for each in told["answers"]] == ["7", "7"]


def test_a_picture_is_read_as_browsers_show_it(server):
    """A phone notes how it was held, and turns nothing."""
    image, content = Image.open(io.BytesIO(png())).convert("RGB"), io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(content, "JPEG", quality=100, exif=turned)
    upright, lying = (server.ask("/predict?details=1", each, kind=kind)[1]["answers"][0]["prepared"]
                      for each, kind in ((png(), "image/png"), (content.getvalue(), "image/jpeg")))
    assert np.abs(np.subtract(upright, lying)).max() < 0.3


def bomb(width: int, height: int) -> bytes:
    """A PNG of that many white pixels in a few KB."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packed = zlib.compressobj(9)
    line = b"\0" + b"\xff" * (width // 8 + 1)
    content = b"".join(packed.compress(line) for _ in range(height)) + packed.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [
    bomb(30_000, 30_000), bomb(12_000, 12_000), bomb(100_000, 1), b"GIF89a" + b"\0" * 50,
    png()[:200], b"<svg onload='alert(1)'/>", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, png(1),
    b"P6 1 1 255 abc", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
], ids=["bomb", "small bomb", "line", "gif", "cut", "svg", "pdf", "zeros", "pixel", "ppm", "postscript"])
def test_hostile_pictures(server, content):
    before = memory(server)
    status, answer = server.ask("/predict", content, kind="image/png")
    assert status == 422 and set(answer) == {"error_code", "message"}, answer
    assert memory(server) - before < 100 and server.says() == "7"


def memory(server) -> float:
    """The most memory that the server ever had, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1000


@pytest.mark.parametrize("body", [{}, {"files": []}, {"files": ["?"]}, {"files": "a"}, {"files": [""]}, {"files": [1]}])
def test_wrong_files(server, body):
    assert server.ask("/predict", body)[0] == 400
    assert server.ask("/predict", {"files": ["aGk="] * 65})[0] == 413


def test_a_label_is_kept(server):
    id = server.ask("/predict", png(), kind="image/png")[1]["answers"][0]["id"]
    assert server.ask("/label", {"id": id, "label": "7"})[0] == 200
    assert rows(server.project, f"SELECT label FROM labels WHERE id = '{id}'") == [("7",)]
    [kept] = rows(server.project, "SELECT version, model, answer, best, probability, shadow_version, shadow_answer, "
                                  f"features, input FROM answers WHERE id = '{id}'")
    assert kept[:4] == ("1", "net", "7", "7") and kept[4] == pytest.approx(0.9) and kept[5:7] == ("2", "3")
    assert np.frombuffer(kept[7], "<f4").shape == (4,) and np.frombuffer(kept[8], "<f4").shape == (784,)
    for wrong, status in (
        ({"id": id, "label": "x"}, 400), ({"id": "no", "label": "7"}, 404), ({"id": 1, "label": "7"}, 400),
        ({"id": id}, 400), ([], 400), ({"id": id, "label": ""}, 400),
    ):
        assert server.ask("/label", wrong)[0] == status, wrong


def test_a_look_leaves_no_trace(server):
    server.ask("/predict", png(), kind="image/png")
    time.sleep(0.5)
    before = rows(server.project, "SELECT COUNT(*) FROM answers")
    answer = server.ask("/predict?keep=0&details=1", png(), kind="image/png")[1]
    time.sleep(0.5)
    assert "id" not in answer["answers"][0] and rows(server.project, "SELECT COUNT(*) FROM answers") == before
    assert server.ask("/predict?keep=2", png(), kind="image/png")[0] == 400


def test_what_it_says_of_itself(server):
    status, facts = server.ask("/version")
    assert [facts["champion"][key] for key in ("version", "commit", "dvc_lock")] == ["1", "abc", "def"]
    assert facts["shadow"]["model"] == "other" and facts["arithmetic"].startswith("onnxruntime ")
    assert server.ask("/health")[0] == server.ask("/ready")[0] == server.ask("/ping")[0] == 200
    paths = server.ask("/openapi.json")[1]["paths"]
    assert {"/invocations", "/predict", "/label", "/health", "/ready", "/version", "/metrics"} <= set(paths)
    server.says()
    time.sleep(0.2)
    counted = server.ask("/metrics")[1].decode()
    assert re.search(r'nbproof_answers_total\{known="true",version="1"\} [1-9]', counted)
    assert re.search(r'nbproof_shadow_total\{agrees="false"\} [1-9]', counted)
    assert 'nbproof_model_info{model="net",shadow="other",shadow_version="2",version="1"} 1.0' in counted


def test_i_do_not_know(served, tmp_path):
    served.register(portable(tmp_path / "strict.onnx", 7, limit=0.5))
    server = served.start()
    far = (np.zeros((1, 1, 28, 28)) + 0.6).tolist()
    answer = server.ask("/invocations", {"inputs": ZERO + far})[1]
    assert answer["answers"] == ["7", None]
    server.stop()
    assert sorted(rows(served, "SELECT answer, best FROM answers"), key=str) == [("7", "7"), (None, "7")]


def test_a_body_that_is_too_large(server):
    status, answer = server.ask("/invocations", b"x" * 2_000_001)
    assert status == 413 and "2,000,000 bytes" in answer["message"]
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:  # one that does not say how long it is
        raw.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            raw.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert b"413" in raw.recv(100)
    assert server.says() == "7"


def test_a_name_of_another_machine(server):
    assert server.ask("/version", Host="evil.example")[0] == 421
    assert server.ask("/version", Host="localhost:99")[0] == 200


def test_a_page_of_another_address_may_not_ask(server):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert server.ask("/invocations", {"inputs": ZERO}, **{"Sec-Fetch-Site": site})[0] == status, site
    assert server.ask("/", **{"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link leads here


def test_limits(served, nets):
    served.register(nets[7])
    server = served.start("--rate", "5", "--concurrent", "3", "--seconds", "1.5")
    found = [server.ask("/version")[0] for _ in range(20)]
    assert found[:5] == [200] * 5 and found[-1] == 429 and server.headers["Retry-After"] == "1"
    assert server.ask("/health")[0] == 200
    time.sleep(2)
    host, port = server.address.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(3)]
    for raw in held:  # bodies that never come
        raw.sendall(b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
    time.sleep(0.3)
    assert server.ask("/version")[0] == 503
    said = b""
    while b"}" not in said:
        said += held[0].recv(4096)
    assert b"503" in said.splitlines()[0] and b"longer than 1.5 s" in said, said
    for raw in held:
        raw.close()
    assert server.ask("/health")[0] == 200


def test_another_address_needs_a_token(served, nets):
    served.register(nets[7])
    server = served.start("--host", "0.0.0.0", ready=False)
    assert server.process.wait(60) == 2 and "NBPROOF_TOKEN" in server.text() and "Traceback" not in server.text()
    short = served.start(ready=False, NBPROOF_TOKEN="short")
    assert short.process.wait(60) == 2 and "at least 16 characters" in short.text()
    server = served.start("--host", "0.0.0.0", NBPROOF_TOKEN="0123456789abcdef")
    server.address = server.address.replace("0.0.0.0", "127.0.0.1")
    assert server.ask("/version")[0] == 401 and server.ask("/invocations", {"inputs": ZERO})[0] == 401
    assert server.ask("/version", Authorization="Bearer 0123456789abcdeg")[0] == 401
    assert server.ask("/version", Authorization="Bearer 0123456789abcdef")[0] == 200
    assert server.ask("/health")[0] == 200 and server.ask("/")[0] == 200


def test_a_port_that_is_taken(served, nets):
    served.register(nets[7])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = served.start("--port", str(taken.getsockname()[1]), ready=False)
        assert server.process.wait(60) == 2 and "cannot be taken" in server.text()


def test_its_environment_is_small():
    files = {(file.lstat().st_ino, file.lstat().st_size) for file in environment_of_servers().rglob("*")}
    size = sum(size for _, size in files)
    assert size < 400e6 and not list(environment_of_servers().rglob("site-packages/torch")), size
    assert not list(environment_of_servers().rglob("site-packages/mlflow*"))


def test_its_words_on_the_terminal_hold_no_input(server):
    server.ask("/predict", png(), kind="image/png")
    assert len(server.text()) < 1000 and json.dumps(ZERO)[:30] not in server.text(), server.text()
    assert (server.project.root / "served" / "log.sqlite").stat().st_mode & 0o077 == 0
