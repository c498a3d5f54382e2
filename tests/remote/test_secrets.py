"""Marked secrets are planted wherever one can stand; then every file and every request is searched for them."""

import base64
import subprocess
import sys
import urllib.parse

import servers
from small import ACCOUNT, edit, small_project

KEY, SECRET, URI = "planted-aws-key", "planted-aws-secret", "planted-uri-password"
TRACKED = """
from nbproof.notebook import tracking
run = tracking.start("near", {"factor": 1.9})
run.log(1, {"rmse": 0.5})
run.model("near")
run.finish({"seconds": 1})
"""


def forms(secret: str) -> list[bytes]:
    """How `secret` could stand somewhere: as it is, quoted for an address, and in base64 at each of three offsets."""
    encoded = [base64.b64encode(b" " * shift + secret.encode())[4 if shift else 0 : -4] for shift in range(3)]
    return [secret.encode(), urllib.parse.quote(secret, safe="").encode(), *(each[:-2] for each in encoded)]


def found(content: bytes, secrets: list[str]) -> list[str]:
    return [secret for secret in secrets if any(form in content for form in forms(secret))]


def test_the_search_finds_what_it_looks_for():
    for before in (b"user:", b"us:", b"u:"):
        assert found(base64.b64encode(before + KEY.encode()), [KEY]) == [KEY]
    assert found(b"x" + KEY.encode(), [KEY]) == [KEY]
    assert found(b"nothing here", [KEY]) == []


def test_no_secret_is_kept_anywhere(tmp_path, tmp_path_factory, http_store):
    server_folder = tmp_path_factory.mktemp("server")
    secrets = [servers.PASSWORD, http_store.password, KEY, SECRET, URI]
    planted = ACCOUNT | {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with servers.mlflow_server(server_folder) as server, servers.proxied(server) as proxy:
        project = small_project(tmp_path / "project", planted)
        stage = {"NBPROOF_OUTPUT": str(project.root)}
        project.nbproof("remote", "--tracking", proxy.address, "--data", http_store.address, code=None)
        for key, value in (("auth", "basic"), ("user", servers.USER), ("password", http_store.password)):
            project.dvc("remote", "modify", "--local", "origin", key, value)
        said = [project.nbproof("remote"), project.dvc("repro"), project.call(sys.executable, "-c", TRACKED, **stage)]
        said += [project.nbproof("promote"), project.nbproof("push")]
        assert "is the registered champion now" in said[-2]
        dead = f"http://someone:{URI}@127.0.0.1:{servers.free_port()}"  # its address must not be told either
        edit(project.root / "params.yaml", "factor: 1.9", "factor: 1.91")
        said += [project.dvc("repro"), project.call(sys.executable, "-c", TRACKED, MLFLOW_TRACKING_URI=dead, **stage)]
        said.append(project.nbproof("promote", MLFLOW_TRACKING_URI=dead, code=2))
        assert "was not changed" in said[-1] and "kept in mlflow.db" in said[-2]
        (project.root / "asked.csv").write_text("x\n1\n")
        said.append(project.nbproof("predict", "asked.csv", MLFLOW_TRACKING_URI=dead))
        said += [
            project.nbproof("sync", code=None),
            project.nbproof("secrets"),
            project.nbproof("predict", "asked.csv"),
        ]
        project.commit("everything")

    for words in said:
        assert found(words.encode(), secrets) == [], words
    assert len(proxy.requests) > 50
    assert len(http_store.requests) > 20
    for line, headers, body in [*proxy.requests, *((line, headers, b"") for line, headers in http_store.requests)]:
        rest = {name: value for name, value in headers.items() if name != "Authorization"}  # where a password belongs
        assert found(f"{line} {rest}".encode() + body, secrets) == [], line
    searched = 0
    for root, left_out in (
        (project.root, {"config.local", "objects"}),
        (server_folder / "artifacts", set()),
        (http_store.folder, set()),
    ):
        for path in root.rglob("*"):
            if path.is_file() and not left_out & set(path.relative_to(root).parts):
                searched += 1
                assert found(path.read_bytes(), secrets) == [], path
    assert searched > 50
    assert found((server_folder / "store.db").read_bytes(), secrets) == []
    objects = subprocess.check_output(["git", "cat-file", "--batch-all-objects", "--batch"], cwd=project.root)
    assert len(objects) > 5_000 and found(objects, secrets) == []
