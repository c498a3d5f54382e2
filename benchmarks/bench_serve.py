"""`make bench-serve`: the server against a bare FastAPI app and `mlflow models serve`, in one call.

Each server has one processor and wrk (Debian's package wrk) another. Then models are swapped under
load; then a cluster of Ray on loopback: two replicas against one, and a node that is killed.
"""

import contextlib
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
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("serve", "sweep")]
import serving  # noqa: E402 - the projects that the tests serve
from cluster import cluster  # noqa: E402

from nbproof.serve import cli  # noqa: E402
from nbproof.workspace import bootstrap  # noqa: E402

CONNECTIONS, ROUNDS, SECONDS, SWAPPING = (1, 8, 32), 3, 5, 60
MODEL, OTHER = "cnn", "mlp"
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open("{body}"):read("*a")
"""


def wrk(address: str, script: Path, connections: int, seconds: float, cpu: str = "1") -> dict:
    """Return requests a second, p50 and p99 in milliseconds, and how many requests failed."""
    command = ["taskset", "-c", cpu, "wrk", "-t", "1", "-c", str(connections), "-d",
               f"{seconds:g}s", "--latency", "--timeout", "20s", "-s", script,
               f"{address}/invocations"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    units = {"us": 0.001, "ms": 1, "s": 1000}
    times = {share: float(value) * units[unit]
             for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", text)}
    lost = re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", text)
    return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), "p50": times["50"],
            "p99": times["99"], "failed": sum(map(int, lost)),
            "all": int(re.search(r"(\d+) requests in", text)[1])}


@contextlib.contextmanager
def started(command: list, folder: Path, **variables: str):
    """Run a server on processor 0 for the block; yield its address."""
    port = serving.free_port()
    words = ["taskset", "-c", "0", *[str(word).replace("PORT", str(port)) for word in command]]
    with (folder / "output.txt").open("wb") as file:
        process = subprocess.Popen(words, cwd=folder, stdout=file, stderr=file,
                                   env=os.environ | variables)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            with contextlib.suppress(OSError):
                # The path that all three have.
                urllib.request.urlopen(f"{address}/openapi.json", timeout=1).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "output.txt").read_text()[-2000:])
            time.sleep(0.1)
        yield address
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait(30)


def servers(folder: Path) -> dict[str, tuple[list, dict]]:
    """Return how each server is started, and its environment."""
    python = bootstrap.set_up(ROOT, cli.SMALL, cli.LOCKS[cli.SMALL])
    python = python / bootstrap.PYTHON
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        "nbproof serve": ([python, "-m", "nbproof", "serve", "--port", "PORT"],
                          {"PYTHONPATH": str(ROOT)}),
        "bare app": ([python, "-m", "uvicorn", "bare:app", "--port", "PORT", "--no-access-log"],
                     {"PYTHONPATH": str(ROOT / "benchmarks"),
                      "MODEL": str(folder / f"models/{MODEL}.onnx")}),
        "mlflow models serve": (
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", folder / "models" / MODEL,
             "--port", "PORT", "--env-manager", "local", "--workers", "1"],
            {"PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}),
    }


def compare(folder: Path, script: Path) -> None:
    """Measure each server in turn, in several rounds; print medians and what was wanted."""
    serving.Served(folder)
    (folder / "metrics").mkdir()
    (folder / "metrics/compare.json").write_text(json.dumps({"champion": MODEL}))
    shutil.copytree(ROOT / "models" / MODEL, folder / "models" / MODEL)
    shutil.copy(ROOT / "models" / f"{MODEL}.onnx", folder / "models")
    found: dict[tuple[int, str], list[dict]] = {}
    for _ in range(ROUNDS):
        for name, (command, variables) in servers(folder).items():
            with started(command, folder, **variables) as address:
                wrk(address, script, 8, 1)
                for connections in CONNECTIONS:
                    run = wrk(address, script, connections, SECONDS)
                    found.setdefault((connections, name), []).append(run)
    print("| connections | server | requests/s | p50 ms | p99 ms | failed |\n" + "|--:" * 6 + "|")
    medians = {}
    for (connections, name), runs in found.items():
        run = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        medians[connections, name] = run
        print(f"| {connections} | {name} | {run['rate']:,.0f} | {run['p50']:.2f} | "
              f"{run['p99']:.2f} | {run['failed']:.0f} |")
    print("\n| connections | rate to the bare app's (>= 0.95) | p99 to its (<= 1.3) | rate to "
          "mlflow's (>= 4) |\n" + "|--:" * 4 + "|")
    for connections in CONNECTIONS:
        ours, bare, mlflow = (medians[connections, name] for name in servers(folder))
        print(f"| {connections} | {ours['rate'] / bare['rate']:.2f} | "
              f"{ours['p99'] / bare['p99']:.2f} | {ours['rate'] / mlflow['rate']:.1f} |",
              flush=True)


def swap(folder: Path, script: Path) -> None:
    """Move the alias every five seconds under load; check all predictions of the clients."""
    served = serving.Served(folder)
    versions = [served.register(ROOT / "models" / f"{name}.onnx", name) for name in (MODEL, OTHER)]
    server = served.start()
    with serving.load(server, clients=8) as found:
        for turn in range(SWAPPING // 5):
            time.sleep(5)
            served.move("champion", versions[turn % 2])
    server.stop()
    failed = sum(len(what) == 1 for what in found)
    seen = {what for what in found if len(what) > 1}  # the same input: one prediction a version
    print(f"\n{len(found):,} requests in {SWAPPING} s under swaps: {failed} failed, "
          f"{max(0, len(seen) - len(versions))} other predictions than the {len(versions)} of the "
          "versions.", flush=True)


def on_ray(folder: Path, script: Path) -> None:
    """Measure one replica and two on a cluster of three nodes, then kill a node under load."""
    python = bootstrap.set_up(ROOT, cli.RAY, cli.LOCKS[cli.RAY])
    python = python / bootstrap.PYTHON
    rates = {}
    with cluster(3, cpus=2, head_cpus=0, python=python) as nodes:
        nodes.variables["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        served = serving.Served(folder, python)
        served.register(ROOT / "models" / f"{MODEL}.onnx", MODEL)
        for replicas in (1, 2):
            words = ("--port", str(serving.free_port()), "--replicas", *2 * [str(replicas)])
            server = served.start(*words, ready=False, **nodes.variables)
            server.listens(200)
            wrk(server.address, script, 8, 2, "0-1")
            rates[replicas] = wrk(server.address, script, 8, SECONDS, "0-1")
            if replicas == 1:
                server.stop()
        threading.Timer(3, nodes.kill, (1,)).start()
        killed = wrk(server.address, script, 8, 15, "0-1")
        server.stop()
    one, two = rates[1]["rate"], rates[2]["rate"]
    print(f"\nOn Ray: one replica {one:.0f} requests/s, two {two:.0f}, {two / one:.2f} times "
          f"(>= 1.6); a node killed: {killed['failed']} of {killed['all']:,} requests failed.")


def main() -> int:
    missing = [name for name in ("wrk", "taskset") if not shutil.which(name)]
    missing += [name for name in (MODEL, OTHER) if not (ROOT / f"models/{name}.onnx").exists()]
    if missing:
        raise SystemExit(f"Missing: {', '.join(missing)}. apt install wrk util-linux; make run.")
    with tempfile.TemporaryDirectory() as temporary:
        folder, script = Path(temporary), Path(temporary) / "request.lua"
        inputs = np.random.default_rng(0).normal(size=(1, 1, 28, 28)).round(4).tolist()
        script.with_suffix(".json").write_text(json.dumps({"inputs": inputs}))
        script.write_text(SCRIPT.format(body=script.with_suffix(".json")))
        for part in (compare, swap, on_ray):
            if part.__name__ in (sys.argv[1:] or [part.__name__]):
                part(folder / part.__name__, script)
    return 0


if __name__ == "__main__":
    sys.exit(main())
