"""`make bench-serve`: the server against `mlflow models serve` and a bare FastAPI app, on the same model, in one call.

wrk asks (Debian's package wrk), each server has one processor core and wrk another. Then models move under load.
Usage: bench_serve.py [--model cnn] [--seconds 5] [--rounds 3] [--moving 120]
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "serve"))
import serving  # noqa: E402 - the project to serve that the tests use

from nbproof.workspace import bootstrap  # noqa: E402

CONNECTIONS = (1, 8, 32)
SCRIPT = 'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nlocal file = io.open("{body}")\n' \
         'wrk.body = file:read("*a")\nfile:close()\n'


def wrk(port: int, script: Path, connections: int, seconds: float) -> dict:
    """Requests a second, p50 and p99 in milliseconds, all requests and how many of them failed."""
    command = ["taskset", "-c", "1", "wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds:g}s", "--latency",
               "--timeout", "20s", "-s", str(script), f"http://127.0.0.1:{port}/invocations"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    units = {"us": 0.001, "ms": 1, "s": 1000}
    shares = re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", said)
    found = {share: float(value) * units[unit] for share, value, unit in shares}
    failed = "".join(re.findall(r"(?:Non-2xx or 3xx responses|Socket errors): .*", said))
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1)), "p50": found["50"],
            "p99": found["99"], "all": int(re.search(r"(\d+) requests in", said).group(1)),
            "bad": sum(map(int, re.findall(r"(?<!-)(?<!\d)\d+(?!xx)\b", failed.replace("3xx", ""))))}


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(command: list, port: int, folder: Path, **variables: str) -> subprocess.Popen:
    """A server on core 0, which answers at /health, /ping or /docs."""
    said = (folder / f"said-{port}.txt").open("wb")
    process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], cwd=folder, stdout=said, stderr=said,
                               env=os.environ | variables)
    ends = time.monotonic() + 120
    while time.monotonic() < ends and process.poll() is None:
        for path in ("ping", "docs"):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=1).close()
                return process
            except OSError:
                time.sleep(0.1)
    raise SystemExit(f"{command} did not start:\n{Path(said.name).read_text()[-2000:]}")


def memory(process: subprocess.Popen) -> float:
    """MB of a server with its children."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return sum(each.memory_info().rss for each in tree) / 1e6


def project(folder: Path, model: str) -> Path:
    """A project to serve with the files of `model`, and no registry."""
    serving.Served(folder)
    for name in ("models", "metrics"):
        (folder / name).mkdir()
    shutil.copytree(ROOT / "models" / model, folder / "models" / model)
    shutil.copy(ROOT / "models" / f"{model}.onnx", folder / "models")
    (folder / "metrics" / "compare.json").write_text(json.dumps({"champion": model}))
    return folder


def servers(folder: Path, model: str) -> dict[str, tuple[list, dict]]:
    """How each server is started, by name; PORT is put in later."""
    small = serving.environment_of_servers() / bootstrap.PYTHON
    file = folder / "models" / f"{model}.onnx"
    return {
        "nbproof serve": ([small, "-m", "nbproof", "serve", "--port", "PORT"], {"PYTHONPATH": str(ROOT)}),
        "bare FastAPI": ([small, "-m", "uvicorn", "bare:app", "--port", "PORT", "--no-access-log"],
                         {"PYTHONPATH": str(ROOT / "benchmarks"), "MODEL": str(file)}),
        "mlflow models serve": (
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", folder / "models" / model, "--port", "PORT",
             "--env-manager", "local", "--workers", "1"],
            {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
             "MLFLOW_DISABLE_TELEMETRY": "true"}),
    }


def compare(folder: Path, model: str, script: Path, rounds: int, seconds: float) -> None:
    """Each server in turn, several rounds; medians."""
    found: dict[tuple[str, int], list[dict]] = {}
    used: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, (command, variables) in servers(folder, model).items():
            port, began = free_port(), time.monotonic()
            process = started([str(port) if word == "PORT" else word for word in command], port, folder, **variables)
            up = time.monotonic() - began
            try:
                wrk(port, script, 8, 1)
                for connections in CONNECTIONS:
                    found.setdefault((name, connections), []).append(wrk(port, script, connections, seconds))
                used[name] = (up, memory(process))
            finally:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.terminate()
                process.terminate()
                process.wait(30)
    print("| server | connections | requests/s | p50 ms | p99 ms | failed |\n|:--|--:|--:|--:|--:|--:|")
    medians = {key: {each: statistics.median(run[each] for run in runs) for each in runs[0]}
               for key, runs in found.items()}
    for (name, connections), run in sorted(medians.items(), key=lambda each: each[0][1]):
        times = f"{run['rate']:,.0f} | {run['p50']:.2f} | {run['p99']:.2f}"
        print(f"| {name} | {connections} | {times} | {run['bad']:.0f} |")
    print("\n| server | up after s | MB |\n|:--|--:|--:|")
    for name, (up, size) in used.items():
        print(f"| {name} | {up:.1f} | {size:.0f} |")
    print("\n| connections | times `mlflow models serve` | wanted | p99 to the bare app's | wanted |")
    print("|--:|--:|:--|--:|:--|")
    for connections in CONNECTIONS:
        ours, bare, other = (medians[name, connections] for name in servers(folder, model))
        times, late = ours["rate"] / other["rate"], ours["p99"] / bare["p99"]
        print(f"| {connections} | {times:.1f} | >= 3 | {late:.2f} | <= 1.15 |", flush=True)


def moving(folder: Path, models: list[str], script: Path, seconds: float) -> None:
    """The alias moves every five seconds under load; each answer of a client that looks is that of a whole model."""
    served = serving.Served(folder)
    versions = [served.register(ROOT / "models" / f"{model}.onnx", model) for model in models]
    server = served.start("--concurrent", "128")
    subprocess.run(["taskset", "-pc", "0", str(server.process.pid)], check=True, capture_output=True)
    body = json.loads(Path(script.with_suffix(".json")).read_text())
    expected, wrong, looked, ends = {}, [], 0, threading.Event()

    def look() -> None:
        nonlocal looked
        while not ends.is_set():
            status, said = server.ask("/invocations", body)
            looked += 1
            if status != 200 or not np.allclose(expected.setdefault(said["version"], said["predictions"]),
                                                said["predictions"], atol=1e-5):
                wrong.append(said)

    def move() -> None:
        turn = 0
        while not ends.wait(5):
            served.move("champion", versions[turn % len(versions)])
            turn += 1

    threads = [threading.Thread(target=each) for each in (look, move)]
    for thread in threads:
        thread.start()
    port = int(server.address.rpartition(":")[2])
    run = wrk(port, script, 8, seconds)
    ends.set()
    for thread in threads:
        thread.join()
    swaps = re.search(r"\nnbproof_swaps_total (\d+)", server.ask("/metrics")[1].decode()).group(1)
    size = memory(server.process)
    server.stop()
    answers = {tuple(np.round(values[0], 3)) for values in expected.values()}
    print(f"\n{run['all']:,} requests in {seconds:g} s under {swaps} swaps of {' and '.join(models)}: {run['bad']} "
          f"failed, p99 {run['p99']:.1f} ms, {size:.0f} MB; {looked:,} answers of {len(answers)} versions looked at, "
          f"{len(wrong)} wrong.")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--other", default="mlp")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--moving", type=float, default=120)
    given = parser.parse_args()
    if not shutil.which("wrk") or not shutil.which("taskset"):
        raise SystemExit("wrk and taskset are needed: on Debian, apt install wrk util-linux.")
    for name in (given.model, given.other):
        if not (ROOT / "models" / f"{name}.onnx").exists():
            raise SystemExit(f"models/{name}.onnx is not there yet: make run makes it.")
    with tempfile.TemporaryDirectory() as temporary:
        folder, script = Path(temporary), Path(temporary) / "ask.lua"
        inputs = np.random.default_rng(0).normal(size=(1, 1, 28, 28)).round(4).tolist()
        (folder / "ask.json").write_text(json.dumps({"inputs": inputs}))
        script.write_text(SCRIPT.format(body=folder / "ask.json"))
        if given.rounds:
            compare(project(folder / "here", given.model), given.model, script, given.rounds, given.seconds)
        if given.moving:
            moving(folder / "moving", [given.model, given.other], script, given.moving)
    return 0


if __name__ == "__main__":
    sys.exit(main())
