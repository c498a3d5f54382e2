"""What the actions of the workflows do, in a folder instead of on GitHub: `python3 standin.py ACTION`."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

HERE, INPUTS = Path(os.environ["STANDIN"]), json.loads(os.environ["INPUTS"])
WORKSPACE, SERVER = Path(os.environ["GITHUB_WORKSPACE"]), "https://github.com/owner/name"


def artifact(run: str, name: str) -> Path:
    return HERE / "artifacts" / run / name


def output(**values: str) -> None:
    with Path(os.environ["GITHUB_OUTPUT"]).open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())


def checkout() -> None:
    place = WORKSPACE / INPUTS.get("path", "")
    for words in (("init", "-q"), ("remote", "add", "origin", str(HERE / "origin.git")), ("fetch", "-q", "origin"),
                  ("fetch", "-q", "origin", "+refs/pull/*:refs/remotes/pull/*"),
                  ("checkout", "-q", INPUTS.get("ref") or os.environ["GITHUB_SHA"])):
        subprocess.run(["git", *words], cwd=place, check=True)
    if mutation := json.loads(os.environ.get("MUTATION", "null")):
        path, old, new = mutation
        (place / path).write_text((place / path).read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def upload_artifact() -> None:
    run, zipped = os.environ["GITHUB_RUN_ID"], INPUTS.get("archive") != "false"
    found = sorted(WORKSPACE.glob(INPUTS["path"]))
    if not found or not any(each.is_file() or any(each.iterdir()) for each in found):
        sys.exit(f"No files were found with the provided path: {INPUTS['path']}")
    if not zipped and (len(found) > 1 or found[0].is_dir()):
        sys.exit("When 'archive' is set to false, only a single file can be uploaded.")
    target = artifact(run, INPUTS["name"] if zipped else found[0].name)
    if target.match(os.environ.get("REFUSED_ARTIFACTS") or "-"):
        sys.exit(f"The artifact {target.name} was refused: quota")
    if target.exists() and INPUTS.get("overwrite") != "true":
        sys.exit(f"Conflict: an artifact with the name {target.name} already exists on this run")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for each in found:
        shutil.copytree(each, target, dirs_exist_ok=True) if each.is_dir() else shutil.copy(each, target)
    (target.parent / f"{target.name}.kind").write_text("zip" if zipped else "file")
    number = zlib.crc32(target.name.encode()) % 1000
    output(**{"artifact-id": number, "artifact-url": f"{SERVER}/actions/runs/{run}/artifacts/{number}"})


def deploy_pages() -> None:
    with tarfile.open(artifact(os.environ["GITHUB_RUN_ID"], "github-pages") / "artifact.tar") as packed:
        packed.extractall(HERE / "site", filter="data")


def download_artifact() -> None:
    if pattern := INPUTS.get("pattern"):
        for found in (each for each in artifact(os.environ["GITHUB_RUN_ID"], "").glob(pattern) if each.is_dir()):
            shutil.copytree(found, Path(INPUTS["path"]) / found.name)
        return
    found = artifact(INPUTS.get("run-id") or os.environ["GITHUB_RUN_ID"], INPUTS["name"])
    if not found.is_dir():
        sys.exit(f"Unable to download artifact(s): Artifact not found for name: {INPUTS['name']}")
    shutil.copytree(found, INPUTS["path"], dirs_exist_ok=True)


def cache_save() -> None:
    target = HERE / "caches" / INPUTS["key"]
    if not target.exists():
        target.mkdir(parents=True)
        paths = [each for each in INPUTS["path"].split() if (WORKSPACE / each).exists()]
        for each in paths:
            shutil.copytree(WORKSPACE / each, target / each)


def cache_restore() -> None:
    for key in [INPUTS["key"], *INPUTS.get("restore-keys", "").split()]:
        found = sorted((HERE / "caches").glob(f"{key}*"), key=lambda each: each.stat().st_mtime)
        if found:
            shutil.copytree(found[-1], WORKSPACE, dirs_exist_ok=True)
            output(**{"cache-hit": str(found[-1].name == INPUTS["key"]).lower()})
            break


def setup_python() -> None:
    print("The Python that runs the tests.")


def create_github_app_token() -> None:
    assert INPUTS["client-id"] and INPUTS["private-key"] and INPUTS["permission-contents"] == "write"
    output(token="app")


globals()[sys.argv[1]]()
