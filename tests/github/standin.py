"""What the actions of the workflows do, in a folder instead of on GitHub: `standin.py ACTION`."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

HERE, INPUTS = Path(os.environ["STANDIN"]), json.loads(os.environ["INPUTS"])
WORKSPACE, RUN = Path(os.environ["GITHUB_WORKSPACE"]), os.environ["GITHUB_RUN_ID"]


def output(**values: object) -> None:
    with Path(os.environ["GITHUB_OUTPUT"]).open("a") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())


def checkout() -> None:
    folder = WORKSPACE / INPUTS.get("path", "")
    folder.mkdir(exist_ok=True)
    for words in (("init", "-q"), ("remote", "add", "origin", str(HERE / "origin.git")),
                  ("fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*",
                   "+refs/pull/*:refs/remotes/pull/*"),
                  ("checkout", "-q", INPUTS.get("ref") or os.environ["GITHUB_SHA"])):
        subprocess.run(["git", *words], cwd=folder, check=True)


def upload_artifact() -> None:
    zipped, paths = INPUTS.get("archive") != "false", sorted(WORKSPACE.glob(INPUTS["path"]))
    if not paths or not any(path.is_file() or any(path.iterdir()) for path in paths):
        sys.exit(f"No files were found with the provided path: {INPUTS['path']}")
    if not zipped and (len(paths) > 1 or paths[0].is_dir()):
        sys.exit("When 'archive' is set to false, only a single file can be uploaded.")
    target = HERE / "artifacts" / RUN / (INPUTS["name"] if zipped else paths[0].name)
    if target.match(os.environ.get("REFUSED_ARTIFACTS") or "-"):
        sys.exit(f"The artifact {target.name} was refused: quota")
    if target.exists() and INPUTS.get("overwrite") != "true":
        sys.exit(f"Conflict: an artifact with the name {target.name} already exists on this run")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in paths:
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, target, **({"dirs_exist_ok": True} if path.is_dir() else {}))
    number = zlib.crc32(target.name.encode()) % 1000
    output(**{"artifact-url": f"{os.environ['GITHUB_SERVER_URL']}/owner/name/actions/runs/{RUN}"
                              f"/artifacts/{number}"})


def download_artifact() -> None:
    folder = HERE / "artifacts" / (INPUTS.get("run-id") or RUN) / INPUTS["name"]
    if not folder.is_dir():
        sys.exit(f"Unable to download artifact(s): Artifact not found for name: {INPUTS['name']}")
    shutil.copytree(folder, INPUTS.get("path") or WORKSPACE, dirs_exist_ok=True)


def deploy_pages() -> None:
    with tarfile.open(HERE / "artifacts" / RUN / "github-pages" / "artifact.tar") as packed:
        packed.extractall(HERE / "site", filter="data")


def cache_save() -> None:
    shutil.copytree(WORKSPACE / INPUTS["path"], HERE / "caches" / INPUTS["key"],
                    dirs_exist_ok=True)


def cache_restore() -> None:
    for key in [INPUTS["key"], *INPUTS.get("restore-keys", "").split()]:
        caches = sorted((HERE / "caches").glob(f"{key}*"), key=lambda path: path.stat().st_mtime)
        if caches:
            shutil.copytree(caches[-1], WORKSPACE / INPUTS["path"], dirs_exist_ok=True)
            return


def setup_python() -> None:
    print("The Python that runs the tests.")


globals()[sys.argv[1]]()
