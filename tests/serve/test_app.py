"""What the application responds, and what it refuses: in this process, by its ASGI interface."""

import base64
import io
import json
import struct
import threading
import time
import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from serving import ZERO

from nbproof.notebook import served as reader
from nbproof.serve import model, predictor
from nbproof.serve.follow import Pair

TOKEN = "0123456789abcdef"


@pytest.fixture
def client(served, nets, started):
    return started(served.put(nets[7]), images=True)


def png(side: int = 280) -> bytes:
    """A drawn seven."""
    image, content = Image.new("L", (side, side), "white"), io.BytesIO()
    corners = [(0.3 * side, 0.2 * side), (0.7 * side, 0.2 * side), (0.45 * side, 0.85 * side)]
    ImageDraw.Draw(image).line(corners, fill="black", width=max(1, side // 14))
    image.save(content, "PNG")
    return content.getvalue()


def white(width: int, height: int) -> bytes:
    """A PNG of that many white pixels in a few KB."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    packed, line = zlib.compressobj(9), b"\0" + b"\xff" * (width // 8 + 1)
    content = b"".join(packed.compress(line) for _ in range(height)) + packed.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", head), (b"IDAT", content), (b"IEND", b"")))


def net(path, operator: str, *constants: np.ndarray, shape=("N", 3), kind=TensorProto.FLOAT):
    """A model of one node that gets the input x and constants."""
    names = [f"c{number}" for number in range(len(constants))]
    node = helper.make_node(operator, ["x", *names] if operator != "Gather" else [*names, "x"],
                            ["y"])
    tensors = [numpy_helper.from_array(values, name) for name, values in zip(names, constants)]
    graph = helper.make_graph([node], "net", [helper.make_tensor_value_info("x", kind, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              tensors)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_the_scoring_protocol(client):
    for content in (
        {"inputs": ZERO * 2}, {"instances": ZERO * 2}, {"inputs": {"images": ZERO * 2}},
        {"instances": [{"images": ZERO[0]}, {"images": ZERO[0]}]},
        {"dataframe_split": {"columns": list(range(784)), "data": [[0] * 784] * 2}},
        {"dataframe_records": [{str(place): 0 for place in range(784)}] * 2},
        ",".join(map(str, range(784))) + "\n" + 2 * (",".join(["0.5"] * 784) + "\n"),
    ):
        csv = isinstance(content, str)
        body = content if csv else json.dumps(content)
        kind = "text/csv; charset=utf-8" if csv else "application/json"
        answer = client.post("/invocations", content=body, headers={"content-type": kind}).json()
        assert np.shape(answer["predictions"]) == (2, 10) and answer["answers"] == ["7", "7"]
        assert answer["predictions"][1][7] == pytest.approx(0.9) and len(set(answer["ids"])) == 2


def test_columns_come_in_any_order_and_texts_stay_texts(served, started, tmp_path):
    names = ("one", "two", "three")
    columns = json.dumps([{"type": "double", "name": name} for name in names])
    weights = np.array([[1], [10], [100]], np.float32)
    served.put(net(tmp_path / "table.onnx", "MatMul", weights),
               f"signature: {{inputs: '{columns}'}}\n")
    client = started(served)
    for content in ({"dataframe_records": [{"three": 3, "one": 1, "two": 2}]},
                    {"dataframe_split": {"columns": ["two", "three", "one"], "data": [[2, 3, 1]]}},
                    {"dataframe_split": {"data": [[1, 2, 3]]}}, {"inputs": [[1, 2, 3]]}):
        assert client.post("/invocations", json=content).json()["predictions"] == [[321]], content
    wrong = client.post("/invocations",
                        json={"dataframe_records": [{"one": 1, "two": 2, "four": 3}]}).json()
    assert wrong["message"] == "The model's columns are one, two, three; found one, two, four."


WRONG = [
    (b"", "cannot be read"), (b"[1]", "must be a JSON object"), (b"\xff\xfe{}", "cannot be read"),
    (b"{}", "exactly one of"), (b'{"inputs": [1], "more": 1}', "unknown key 'more'"),
    (b'{"inputs": []}', "at least one"), (b'{"inputs": "abc"}', "must be a list"),
    (b'{"inputs": {"wrong": [1]}}', "inputs are images; found wrong"),
    (b'{"inputs": [[1, 2], [3]]}', "cannot be read"), (b'{"inputs": [[NaN]]}', "be read"),
    (b'{"inputs": [[1, 2, 3]]}', "1 x 28 x 28 a case, found 3"),
    (b'{"inputs": [["a"]]}', "1 x 28 x 28 a case"), (b'{"inputs": [[true]]}', "must be numbers"),
    (b'{"inputs": [[null]]}', "must be numbers"), (b"[" * 100_000, "cannot be read"),
    (b'{"dataframe_split": {"columns": [1], "data": [[1, 2]]}}', "value for each of the columns"),
    (b'{"dataframe_split": [1]}', "must be {columns"),
    (b'{"dataframe_records": [{"a": 1}, {"b": 1}]}', "must have the keys of the first"),
    (b'{"inputs": [[' + b"1e300," * 783 + b"1]]}", "finite numbers"),
]
ADDRESSES = [  # method, path, content type, status
    ("POST", "/invocations", "text/plain", 415), ("GET", "/invocations", "", 405),
    ("GET", "/none", "", 404), ("POST", "/predict", "text/html", 415),
    ("POST", "/label", "text/plain", 400), ("GET", "/preprocessing.py", "", 404),
    ("POST", "/predict?keep=2", "image/png", 400)]


def test_what_is_wrong_gets_one_sentence(client):
    for body, message in WRONG:
        answer = client.post("/invocations", content=body)
        content = answer.json()
        assert answer.status_code == 400 and set(content) == {"error_code", "message"}, content
        assert message in content["message"] and len(content["message"]) < 300, content
    for method, path, kind, status in ADDRESSES:
        answer = client.request(method, path, content=b"x", headers={"content-type": kind})
        assert answer.status_code == status and set(answer.json()) == {"error_code", "message"}
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_pictures_and_labels(client):
    answer = client.post("/predict?details=1", content=png(),
                         headers={"content-type": "image/png"}).json()
    [case] = answer["answers"]
    assert case["answer"] == case["best"] == "7" and np.shape(case["prepared"]) == (1, 28, 28)
    files = [base64.b64encode(png(side)).decode() for side in (28, 100, 300)]
    assert len(client.post("/predict", json={"files": files}).json()["answers"]) == 3
    form = [("file", ("a.png", png(), "image/png"))] * 2
    assert len(client.post("/predict?keep=0", files=form).json()["answers"]) == 2
    assert client.post("/label", json={"id": case["id"], "label": "7"}).status_code == 200
    for label, status in (
            ({"id": case["id"], "label": "x"}, 400), ({"id": "no", "label": "7"}, 404),
            ({"id": case["id"]}, 400), ({"id": 1, "label": "7"}, 400), ([], 400)):
        assert client.post("/label", json=label).status_code == status, label
    logged = reader.served()
    assert len(logged["id"]) == 4, "what keep=0 asked for leaves no trace"
    row = logged["id"].index(case["id"])
    assert logged["label"][row] == "7" and logged["input"][row].shape == (784,)


def test_hostile_pictures(client):
    for content, status in (
        (white(30_000, 30_000), 413), (white(100_000, 1), 422), (png()[:200], 422), (png(1), 422),
        (b"<svg onload='alert(1)'/>", 422), (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422), (b"", 400),
    ):
        answer = client.post("/predict", content=content, headers={"content-type": "image/png"})
        assert answer.status_code == status and set(answer.json()) == {"error_code", "message"}
    large = base64.b64encode(white(5000, 5000)).decode()
    answer = client.post("/predict", json={"files": [large] * 64})
    assert answer.status_code == 413 and "50,000,000 pixels" in answer.json()["message"]
    assert client.post("/predict", json={"files": ["aGk="] * 65}).status_code == 413


def in_threads(*calls) -> list:
    results: list = [None] * len(calls)

    def run(number: int) -> None:
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def slow(monkeypatch) -> list:
    """Let each run of a model take 0.1 s; return the list that the runs grow."""
    run, runs = model.OnnxModel.run, []
    monkeypatch.setattr(model.OnnxModel, "run",
                        lambda *words: (time.sleep(0.1), runs.append(1), run(*words))[2])
    return runs


def test_a_long_request_lets_others_in_and_ends_with_its_time(served, nets, started, slow):
    client, short = started(served.put(nets[7]), seconds=1), []

    def other() -> None:
        time.sleep(0.3)
        assert client.post("/invocations", json={"inputs": ZERO}).status_code == 200
        short.append(len(slow))

    many = {"inputs": ZERO * (30 * predictor.ROWS)}
    answer, _ = in_threads(lambda: client.post("/invocations", json=many), other)
    assert answer.status_code == 503 and answer.json()["message"] == "Timed out after 1 s."
    assert short[0] < 12, "it was computed before the long one's end"
    time.sleep(0.3)
    assert len(slow) < 20, "what is given up ends"


def test_a_failing_input_fails_its_own_request_alone(served, started, tmp_path):
    values = np.array([1, 2, 3], np.float32)
    client = started(served.put(net(tmp_path / "gather.onnx", "Gather", values, shape=["N"],
                                    kind=TensorProto.INT64)))
    answers = in_threads(*[lambda place=place: client.post(
        "/invocations", json={"inputs": [place]}) for place in (0, 99, 1, 99, 2)])
    assert [answer.status_code for answer in answers] == [200, 500, 200, 500, 200]


def test_a_prediction_that_is_not_finite_is_an_error_and_counted_as_one(served, started, tmp_path):
    client = started(served.put(net(tmp_path / "log.onnx", "Sqrt")))
    assert client.post("/invocations", json={"inputs": [[-1, 0, 1]]}).status_code == 500
    counts = client.get("/metrics").text
    assert 'nbproof_requests_total{path="/invocations",status="500"} 1.0' in counts
    assert 'nbproof_answers_total{' not in counts


def test_the_challenger_never_delays_the_reply(client, nets, inside, served, monkeypatch):
    other = model.load(model.ModelVersion("2", "net", {}, ""))
    client.follower.pair = Pair(client.follower.pair.champion, other)
    run = model.OnnxModel.run
    monkeypatch.setattr(model.OnnxModel, "run", lambda self, inputs: (
        time.sleep(2 * (self is other)), run(self, inputs))[1])
    started = time.monotonic()
    answer = client.post("/predict?details=1", content=png(),
                         headers={"content-type": "image/png"}).json()
    assert time.monotonic() - started < 1.5 and "shadow" not in answer
    time.sleep(2.8)
    assert reader.served()["shadow_answer"] == ["7"]


def test_what_it_tells_of_itself(client):
    facts = client.get("/version").json()
    assert facts["champion"]["source"] == "models/net.onnx" and facts["registry"] != "ok"
    assert "uncommitted_changes" in facts["champion"] and facts["refused"] == {}
    for path in ("/health", "/ping", "/ready", "/docs", "/", "/draw.js", "/metrics"):
        assert client.get(path).status_code == 200, path
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/invocations", "/predict", "/label", "/version", "/metrics"} <= set(paths)
    assert "cdn.jsdelivr.net" in client.get("/docs").headers["content-security-policy"]


def test_probes_respond_where_all_others_are_refused(served, nets, started, slow):
    client = started(served.put(nets[7]), concurrent=1)
    long = {"inputs": ZERO * (10 * predictor.ROWS)}

    def late(path: str):
        time.sleep(0.4)
        return client.get(path)

    _, busy, probe = in_threads(lambda: client.post("/invocations", json=long),
                                lambda: late("/version"), lambda: late("/health"))
    assert busy.status_code == 503 and probe.status_code == 200


def test_who_may_send_and_how_much(served, nets, started, monkeypatch):
    monkeypatch.setenv("NBPROOF_TOKEN", TOKEN)
    client = started(served.put(nets[7]), body=0.01, rate=4)
    sent = {"authorization": f"Bearer {TOKEN}"}
    large = client.post("/invocations", content=b"x" * 10_001, headers=sent)
    chunks = client.post("/invocations", content=iter([b"x" * 6000] * 2), headers=sent)
    assert large.status_code == chunks.status_code == 413
    assert client.get("/version", headers=sent | {"host": "evil.example"}).status_code == 421
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        assert client.post("/label", json={}, headers=sent | headers).status_code == 403
    time.sleep(2.1)  # the window of the rate
    wrong = [client.get("/version", headers={"authorization": "Bearer wrong"}).status_code
             for _ in range(10)]
    assert wrong == [401] * 8 + [429] * 2, "wrong tokens are limited, too"
    assert client.get("/version", headers=sent).status_code == 429
    assert client.get("/health").status_code == 200
