"""Marked secrets are planted wherever one can stand; then every file and every recorded request is searched for them."""

import base64
import subprocess
import urllib.parse

import servers
from test_cycle import ACCOUNT, edit, small_project

MIRROR, KEY, SECRET, URI = "planted-mirror-password", "planted-aws-key", "planted-aws-secret", "planted-uri-password"


def forms(secret: str) -> list[bytes]:
    """How `secret` could stand somewhere: as it is, quoted for an address, and in base64 at each of the three offsets."""
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
    secrets = [servers.PASSWORD, http_store.password, MIRROR, KEY, SECRET, URI]
    planted = ACCOUNT | {
        "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "MNIST_MIRRORS": f"http://someone:{MIRROR}@127.0.0.1:{servers.free_port()}/mnist",
    }
    with servers.mlflow_server(server_folder) as server, servers.proxied(server) as proxy:
        project = small_project(tmp_path / "project", planted)
        edit(project.root / "params.yaml", "source: digits", "source: mnist")  # so that the mirror, with its password, is tried and named
        project.pipeline("remote", "--tracking", proxy.address, "--data", http_store.address, code=None)
        for key, value in (("auth", "basic"), ("user", servers.USER), ("password", http_store.password)):
            project.dvc("remote", "modify", "--local", "origin", key, value)
        said = [project.pipeline("remote"), project.pipeline("run")]
        assert "Going on with data.source: digits" in said[1] and "is the registered champion now" in said[1]
        said.append(project.pipeline("push"))
        notebook = project.root / "notebooks/linear.ipynb"
        whole = notebook.read_bytes()
        edit(notebook, '"processor = training', '"raise RuntimeError(\'on purpose\')\\n",\n    "processor = training')
        said.append(project.pipeline("run", code=1))
        assert "on purpose" in said[-1]
        notebook.write_bytes(whole)
        edit(project.root / "params.yaml", "epochs: 12", "epochs: 11")
        dead = f"http://someone:{URI}@127.0.0.1:{servers.free_port()}"  # a store that keeps nothing: its address must not be told either
        said.append(project.pipeline("run", MLFLOW_TRACKING_URI=dead))
        assert "kept in unsent/" in said[-1] and "was not changed" in said[-1]
        said.append(project.pipeline("push", code=None))
        said.append(project.pipeline("sync"))
        said.append(project.pipeline("secrets"))
        said.append(project.pipeline("predict", "nothing.png", code=2))
        project.commit("everything")

    for words in said:
        assert found(words.encode(), secrets) == [], words
    assert len(proxy.requests) > 50
    assert len(http_store.requests) > 20
    for line, headers, body in [*proxy.requests, *((line, headers, b"") for line, headers in http_store.requests)]:
        rest = {name: value for name, value in headers.items() if name != "Authorization"}  # where a password belongs
        assert found(f"{line} {rest}".encode() + body, secrets) == [], line
    searched = 0
    for root, left_out in ((project.root, {"config.local", "objects"}), (server_folder / "artifacts", set()), (http_store.folder, set())):
        for path in root.rglob("*"):
            if path.is_file() and not left_out & set(path.relative_to(root).parts):
                searched += 1
                assert found(path.read_bytes(), secrets) == [], path
    assert searched > 100
    assert found((server_folder / "store.db").read_bytes(), secrets) == []
    objects = subprocess.check_output(["git", "cat-file", "--batch-all-objects", "--batch"], cwd=project.root)
    assert len(objects) > 100_000 and found(objects, secrets) == []
