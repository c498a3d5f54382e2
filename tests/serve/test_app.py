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


def net(path, graph: str):
    """A model in ONNX's own language: its inputs, outputs, constants and nodes."""
    onnx.save(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> net {graph}'), path)
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
    served.put(net(tmp_path / "table.onnx", "(float[N,3] x) => (float[N,1] y) "
                   "<float[3,1] w = {1,10,100}> { y = MatMul(x, w) }"),
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
    (b"{}", "with one of"), (b'{"inputs": []}', "from 1 to"), (b'{"inputs": 1}', "a list of"),
    (b'{"inputs": {"wrong": [1]}}', "inputs are images; found wrong"),
    (b'{"inputs": [[1, 2], [3]]}', "cannot be read"), (b'{"inputs": [[NaN]]}', "be read"),
    (b'{"inputs": [[1, 2, 3]]}', "(1,1,28,28)"), (b'{"inputs": [1]}', "Expected: 4"),
    (b'{"inputs": [["a"]]}', "cannot be read"), (b'{"inputs": [{"a": 1}]}', "cannot be read"),
    (b'{"inputs": [[' + b"null," * 783 + b"1]]}", "finite numbers"),
    (b"[" * 100_000, "cannot be read"),
    (b'{"dataframe_split": {"columns": [1], "data": [[1, 2]]}}', "value for each of the columns"),
    (b'{"dataframe_split": [1]}', "dataframe_split: {columns"),
    (b'{"dataframe_records": [{"a": 1}, {"b": 1}]}', "objects with the same keys"),
    (b'{"inputs": [[' + b"1e300," * 783 + b"1]]}", "finite numbers"),
]
ADDRESSES = [  # method, path, content type, status
    ("POST", "/invocations", "text/plain", 415), ("GET", "/invocations", "", 405),
    ("GET", "/none", "", 404), ("POST", "/predict", "text/html", 422),
    ("GET", "/preprocessing.py", "", 404), ("POST", "/predict?keep=2", "image/png", 400)]


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
    answer = client.post("/predict?details=1", content=png(), headers=PNG).json()
    [case] = answer["answers"]
    assert case["answer"] == case["best"] == "7" and np.shape(case["prepared"]) == (1, 28, 28)
    form = [("file", ("a.png", png(side), "image/png")) for side in (28, 100, 300)]
    assert len(client.post("/predict", files=form).json()["answers"]) == 3
    assert "id" not in client.post("/predict?keep=0", files=form).json()["answers"][0]
    assert client.post("/predict", files=form * 30).status_code == 400
    for label, status in (
            ({"id": case["id"], "label": "7"}, 200), ({"id": case["id"], "label": "x"}, 400),
            ({"id": "no", "label": "7"}, 404), ({"id": 1, "label": "7"}, 400), ([], 400)):
        assert client.post("/label", json=label).status_code == status, label
    logged = reader.served()
    assert len(logged["id"]) == 4, "what keep=0 asked for leaves no trace"
    row = logged["id"].index(case["id"])
    assert logged["label"][row] == "7" and logged["input"][row].shape == (784,)


@pytest.mark.parametrize("content, status", [
    (png(7100), 422), (png()[:200], 422), (png(1), 422), (b"<svg onload='alert(1)'/>", 422),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n", 422), (b"", 400)],
    ids=["large", "half", "empty", "svg", "eps", "nothing"])
def test_hostile_pictures(client, content, status):
    answer = client.post("/predict", content=content, headers=PNG)
    assert answer.status_code == status and set(answer.json()) == {"error_code", "message"}


def test_many_large_pictures_let_others_in(served, nets, started):
    client = started(served.put(nets[7]), seconds=3)
    form = [("file", ("a.png", png(5000), "image/png"))] * 40

    def other():
        time.sleep(0.5)
        return client.post("/predict", content=png(), headers=PNG)

    answers = in_threads(lambda: client.post("/predict", files=form), other)
    assert [answer.status_code for answer in answers] == [503, 200]


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
    client = started(served.put(net(tmp_path / "gather.onnx", "(int64[N] x) => (float[N] y) "
                                    "<float[3] v = {1,2,3}> { y = Gather(v, x) }")))
    answers = in_threads(*[lambda place=place: client.post(
        "/invocations", json={"inputs": [place]}) for place in (0, 99, 1, 99, 2)])
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400, 200]


def test_a_prediction_that_is_not_finite_is_an_error_and_counted_as_one(served, started, tmp_path):
    client = started(served.put(net(
        tmp_path / "root.onnx", "(float[N,3] x) => (float[N,3] y) { y = Sqrt(x) }")))

    def counts(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    names = ('nbproof_requests_total{path="/invocations",status="500"}', "nbproof_answers_total")
    before = [*map(counts, names)]
    assert client.post("/invocations", json={"inputs": [[-1, 0, 1]]}).status_code == 500
    assert [*map(counts, names)] == [before[0] + 1, before[1]]


def test_the_challenger_never_delays_the_reply(client, nets, inside, served, monkeypatch):
    other = model.load(model.ModelVersion("2", "net", {}, ""))
    client.follower.pair = Pair(client.follower.pair.champion, other)
    run = model.OnnxModel.run
    monkeypatch.setattr(model.OnnxModel, "run", lambda self, inputs: (
        time.sleep(2 * (self is other)), run(self, inputs))[1])
    started = time.monotonic()
    answer = client.post("/predict?details=1", content=png(), headers=PNG).json()
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
    other_page = {"sec-fetch-site": "cross-site"}
    assert client.post("/label", json={}, headers=sent | other_page).status_code == 403
    time.sleep(2.1)  # the window of the rate
    wrong = [client.get("/version", headers={"authorization": "Bearer wrong"}).status_code
             for _ in range(10)]
    assert wrong == [401] * 8 + [429] * 2, "wrong tokens are limited, too"
    assert client.get("/version", headers=sent).status_code == 429
    assert client.get("/health").status_code == 200
