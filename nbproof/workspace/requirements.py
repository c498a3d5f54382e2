"""The versions of the packages that a project's notebooks import, as they are installed here."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from nbproof.notebook import tracking
from nbproof.notebook.files import root
from nbproof.runner import RESULTS

LOCK = "requirements/results.txt"
HEAD = f"# nbproof results: {RESULTS}\n# Written by nbproof add, of what is installed.\n"
# What executes notebooks, and so shapes results, too.
EXECUTES = ("ipykernel", "ipython", "matplotlib-inline", "nbclient", "nbformat", "papermill")
# Of a requirements.txt, an environment.yml, or pyproject.toml's dependencies.
NAMED = re.compile(r"[\s-]*([A-Za-z][\w.-]*)(?![\w.:-])")
# In a module, or in a notebook's JSON. A name too many does no harm: no package brings it.
IMPORT = re.compile(r'(?m)(?:^|"|\\n)\s*(?:from (?=\w)|import )([^#\n"\\]*)')
# Packages that bring a module of another name, where none is installed to look it up.
BRINGS = {
    "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "dotenv": "python-dotenv", "fitz": "pymupdf", "google": "protobuf", "imblearn":
    "imbalanced-learn", "MySQLdb": "mysqlclient", "PIL": "pillow", "psycopg2": "psycopg2-binary",
    "pywt": "PyWavelets", "serial": "pyserial", "skimage": "scikit-image", "sklearn":
    "scikit-learn", "umap": "umap-learn", "yaml": "pyyaml",
}


def package_of(module: str) -> str:
    """Return the name of the package that brings a module."""
    return BRINGS.get(module, module)


def renewed() -> dict[str, str]:
    """Return the project's lock by its name; {} where it is not `nbproof add` that writes it."""
    path = root() / LOCK
    before = path.read_text(encoding="utf-8") if path.exists() else HEAD
    return {LOCK: lock_text(root())} if HEAD.splitlines()[1] in before else {}


def lock_text(folder: Path) -> str:
    """Return the versions here of what the project needs, and of what that needs in turn."""
    found: dict[str, str] = {}
    queue = [*EXECUTES, *named(folder), *imported(folder)]
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        package = next(iter(importlib.metadata.distributions(name=name)), None)
        if name in found or name == "nbproof" or not package:
            continue
        found[name] = package.version
        for needed in map(Requirement, package.requires or []):
            if not needed.marker or needed.marker.evaluate({"extra": ""}):
                queue.append(needed.name)
    return HEAD + "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def named(folder: Path) -> list[str]:
    """Return the first word of each line in which a file of the project may name a package."""
    files = [*folder.glob("requirements.txt"), *folder.glob("environment.y*ml")]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    if (path := folder / "pyproject.toml").exists():
        lines += tomllib.loads(path.read_text("utf-8")).get("project", {}).get("dependencies", [])
    return [match[1] for line in lines if (match := NAMED.match(line))]


def imported(folder: Path) -> Iterator[str]:
    """Yield the packages that bring what the project's notebooks and modules import."""
    brings = importlib.metadata.packages_distributions()
    listed = tracking.git("ls-files", "--cached", "--others", "--exclude-standard", "*.ipynb",
                          "*.py", folder=folder)
    for path in filter(Path.is_file, map(folder.joinpath, listed.splitlines())):
        for names in IMPORT.findall(path.read_text(encoding="utf-8", errors="replace")):
            for module in re.findall(r"(?:^|,)\s*(\w+)", names):
                yield from brings.get(module, [])
