"""What the application responds, and what it refuses: in this process, by its ASGI interface."""

import io
import json
import threading
import time

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image, ImageDraw
from serving import TOKEN, ZERO

from nbproof.notebook import served as reader
from nbproof.serve import model, predictor
from nbproof.serve.follow import Pair

PNG = {"content-type": "image/png"}
LONG = {"inputs": ZERO * (30 * predictor.ROWS)}
TABLE = ("one", "two", "three")


@pytest.fixture
def client(served, nets, started):
    return started(served.put(nets[7]), images=True)


@pytest.fixture
def of_graph(served, started, tmp_path):
    """`of_graph(text)` is a client of a model in ONNX's own language: inputs, outputs, nodes."""
    def start(graph: str):
        parsed = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> net {graph}')
        onnx.save(parsed, tmp_path / "net.onnx")
        columns = json.dumps([{"type": "double", "name": name} for name in TABLE])
        return started(served.put(tmp_path / "net.onnx", f"signature: {{inputs: '{columns}'}}\n"))

    return start


@pytest.fixture
def slow(monkeypatch) -> list:
    """Let each run of a model take 0.1 s; return the list that the runs grow."""
    run, runs = model.OnnxModel.run, []
    monkeypatch.setattr(model.OnnxModel, "run",
                        lambda *words: (time.sleep(0.1), runs.append(1), run(*words))[2])
    return runs


def png(side: int = 280) -> bytes:
    """A drawn seven."""
    image, content = Image.new("L", (side, side), "white"), io.BytesIO()
    corners = [(0.3 * side, 0.2 * side), (0.7 * side, 0.2 * side), (0.45 * side, 0.85 * side)]
    ImageDraw.Draw(image).line(corners, fill="black", width=max(1, side // 14))
    image.save(content, "PNG")
    return content.getvalue()


def in_threads(*calls) -> list:
    """The results of calls, each half a second after the one before it."""
    results: list = [None] * len(calls)

    def run(number: int) -> None:
        time.sleep(number / 2)
        results[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_the_scoring_protocol(client, of_graph):
    for content in ({"inputs": ZERO * 2}, {"inputs": {"images": ZERO * 2}}):
        answer = client.post("/invocations", json=content).json()
        assert np.shape(answer["predictions"]) == (2, 10) and answer["answers"] == ["7", "7"]
        assert answer["predictions"][1][7] == pytest.approx(0.9) and len(set(answer["ids"])) == 2
    table = of_graph("(float[N,3] x) => (float[N,1] y) "
                     "<float[3,1] w = {1,10,100}> { y = MatMul(x, w) }")
    for content in ({"inputs": [[1, 2, 3]]},
                    {"dataframe_records": [{"three": 3, "one": 1, "two": 2}]},
                    {"dataframe_split": {"columns": ["two", "three", "one"], "data": [[2, 3, 1]]}}):
        assert table.post("/invocations", json=content).json()["predictions"] == [[321]], content
    wrong = table.post("/invocations", json={"dataframe_records": [{"one": 1, "four": 3}]}).json()
    assert wrong["message"] == "The model's columns are one, two, three; found one, four."


WRONG = [
    (b"", "cannot be read"), (b"[1]", "must be a JSON object"), (b"\xff\xfe{}", "cannot be read"),
    (b"{}", "with one of"), (b'{"inputs": []}', "from 1 to"),
    (b'{"inputs": 1}', "a list of"), (b'{"inputs": [1.0]}', "Expected: 4"),
    (b'{"inputs": {"wrong": [1]}}', "inputs are images; found wrong"),
    (b'{"inputs": [[1, 2], [3]]}', "cannot be read"), (b'{"inputs": [[NaN]]}', "be read"),
    (b'{"inputs": [[1, 2, 3]]}', "Expected: 4"), (b'{"inputs": [["a"]]}', "list of numbers"),
    (b'{"inputs": [{"a": 1}]}', "list of numbers"), (b'{"inputs": [[null]]}', "list of numbers"),
    (b'{"inputs": [[1e300]]}', "finite numbers"), (b"[" * 100_000, "cannot be read"),
    (b'{"inputs": [' + b"1," * 10_000 + b"1]}", "from 1 to 10000"),
    (b'{"dataframe_split": {"columns": [1], "data": [[1, 2]]}}', "cannot be read"),
    (b'{"dataframe_split": [1]}', "dataframe_split: {columns"),
    (b'{"dataframe_records": [{"a": 1}, {"b": 1}]}', "cannot be read"),
]
ADDRESSES = [  # method, path, content type, status
    ("POST", "/invocations", "text/plain", 415), ("GET", "/invocations", "", 405),
    ("GET", "/none", "", 404), ("GET", "/preprocessing.py", "", 404),
    ("POST", "/predict", "text/html", 422), ("POST", "/predict?keep=2", "image/png", 400)]
PICTURES = {"large": png(7100), "half": png()[:200], "small": png(1), "eps": b"%!PS-Adobe-3.0\n",
            "svg": b"<svg onload='alert(1)'/>"}


def test_what_is_wrong_gets_one_sentence(client):
    def refuses(answer, status: int, message: str = "") -> None:
        content = answer.json()
        assert answer.status_code == status and {*content} == {"error_code", "message"}, content
        assert message in content["message"] and len(content["message"]) < 300, content

    for body, message in WRONG:
        kind = {"content-type": "application/json"}
        refuses(client.post("/invocations", content=body, headers=kind), 400, message)
    for method, path, kind, status in ADDRESSES:
        refuses(client.request(method, path, content=b"x", headers={"content-type": kind}), status)
    for content in PICTURES.values():
        refuses(client.post("/predict", content=content, headers=PNG), 422)
    refuses(client.post("/predict", content=b"", headers=PNG), 400)


def test_pictures_and_labels(client):
    answer = client.post("/predict?details=1", content=png(), headers=PNG).json()
    [case] = answer["answers"]
    assert case["answer"] == case["best"] == "7" and np.shape(case["prepared"]) == (1, 28, 28)
    form = [("file", ("a.png", png(side), "image/png")) for side in (28, 100, 300)]
    assert len(client.post("/predict", files=form).json()["answers"]) == 3
    client.post("/predict?keep=0", files=form)
    assert client.post("/predict", files=form * 30).status_code == 400
    for label, status in (
            ({"id": case["id"], "label": "7"}, 200), ({"id": case["id"], "label": ""}, 400),
            ({"id": "no", "label": "7"}, 400), ({"id": 1, "label": "7"}, 400), ([], 400)):
        assert client.post("/label", json=label).status_code == status, label
    logged = reader.served()
    assert len(logged["id"]) == 4, "what keep=0 asked for leaves no trace"
    row = logged["id"].index(case["id"])
    assert logged["label"][row] == "7" and logged["input"][row].shape == (784,)


def test_a_long_request_lets_others_in_and_ends_with_its_time(served, nets, started, slow):
    client = started(served.put(nets[7]), seconds=1.5, concurrent=2)
    long, short, busy, probe = in_threads(
        lambda: client.post("/invocations", json=LONG),
        lambda: client.post("/predict", content=png(), headers=PNG),
        lambda: in_threads(*[lambda: client.post("/invocations", json=LONG)] * 2)[1],
        lambda: client.get("/health"))
    assert [long.status_code, short.status_code, busy.status_code, probe.status_code] == [
        503, 200, 503, 200]
    before = len(slow)
    time.sleep(1)
    assert len(slow) < before + 10, "what is given up ends"


def test_many_large_pictures_let_others_in(served, nets, started):
    client = started(served.put(nets[7]), seconds=1)
    form = [("file", ("a.png", png(5000), "image/png"))] * 40
    answers = in_threads(lambda: client.post("/predict", files=form),
                         lambda: client.post("/predict", content=png(), headers=PNG))
    assert [answer.status_code for answer in answers] == [503, 200]


def test_a_failing_input_fails_its_own_request_alone(of_graph):
    client = of_graph("(int64[N] x) => (float[N] y) <float[3] v = {1,2,3}> { y = Gather(v, x) }")
    answers = in_threads(*[lambda place=place: client.post(
        "/invocations", json={"inputs": [place]}) for place in (0, 99, 1, 1.5)])
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400]


def test_a_prediction_that_is_not_finite_is_an_error_and_counted_as_one(of_graph):
    client = of_graph("(float[N,3] x) => (float[N,3] y) { y = Sqrt(x) }")

    def counts(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = ('nbproof_requests_total{path="/invocations",status="500"}', "nbproof_answers_total")
    before = [*map(counts, names)]
    assert client.post("/invocations", json={"inputs": [[-1, 0, 1]]}).status_code == 500
    assert [*map(counts, names)] == [before[0] + 1, before[1]]


def test_the_challenger_never_delays_the_reply(client, monkeypatch):
    other = model.load(model.ModelVersion("2", "net", {}, ""))
    client.follower.pair = Pair(client.follower.pair.champion, other)
    run = model.OnnxModel.run
    monkeypatch.setattr(model.OnnxModel, "run", lambda self, inputs: (
        time.sleep(2 * (self is other)), run(self, inputs))[1])
    started = time.monotonic()
    client.post("/predict?details=1", content=png(), headers=PNG)
    assert time.monotonic() - started < 1.5
    time.sleep(2.8)
    assert reader.served()["shadow_answer"] == ["7"]


def test_what_it_tells_of_itself(client):
    facts = client.get("/version").json()
    assert facts["champion"]["source"] == "models/net.onnx" and facts["registry"] != "ok"
    assert "uncommitted_changes" in facts["champion"] and facts["refused"] == {}
    for path in ("/health", "/ready", "/docs", "/", "/draw.js", "/metrics"):
        assert client.get(path).status_code == 200, path
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/invocations", "/predict", "/label", "/version", "/metrics"} <= set(paths)


def test_who_may_send_and_how_much(served, nets, started, monkeypatch):
    monkeypatch.setenv("NBPROOF_TOKEN", TOKEN)
    client = started(served.put(nets[7]), body=0.01, concurrent=2)
    sent = {"authorization": f"Bearer {TOKEN}"}
    for content, status in ((b"x" * 10_001, 413), (iter([b"x" * 6000] * 2), 411)):
        assert client.post("/invocations", content=content, headers=sent).status_code == status
    assert client.get("/version", headers=sent | {"host": "evil.example"}).status_code == 400
    other = sent | PNG | {"sec-fetch-site": "cross-site"}
    assert client.post("/predict", content=b"x", headers=other).status_code == 403
    began = time.monotonic()
    threads = [threading.Thread(target=client.get, args=("/version",), kwargs={
        "headers": {"authorization": "Bearer wrong"}}) for _ in range(21)]
    for thread in threads:
        thread.start()
    assert client.get("/version").status_code == 401 and client.get("/").status_code == 200
    assert client.get("/version", headers=sent).status_code == 200
    assert time.monotonic() - began < 1, "who does not guess does not wait"
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 3, "ten guesses a second, of all clients"
