"""The versions of the packages that a project's notebooks import, as they are installed here."""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from nbproof.notebook import tracking
from nbproof.notebook.files import from_yaml, write_whole
from nbproof.runner import RESULTS, source

LOCK = "requirements/results.txt"
# What executes notebooks, and so shapes results, too.
EXECUTES = ("ipykernel", "ipython", "matplotlib-inline", "nbclient", "nbformat", "papermill")
IMPORT = re.compile(r"(?m)^\s*(?:from (?=\w)|import )([^#\n]*)")
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


def refresh(folder: Path) -> bool:
    """Write the lock of the project at `folder`; return whether it changed.

    Without the line of nbproof's results in it the lock is a person's, and stays.
    """
    path, text = folder / LOCK, lock_text(folder)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before == text or before and not before.startswith("# nbproof results: "):
        return False
    write_whole(path, text)
    return True


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
        for line in package.requires or []:
            needed = Requirement(line)
            if not needed.marker or needed.marker.evaluate({"extra": ""}):
                queue.append(needed.name)
    lines = [f"# nbproof results: {RESULTS}", "# Written by nbproof add, of what is installed."]
    return "\n".join([*lines, *(f"{name}=={found[name]}" for name in sorted(found))]) + "\n"


def named(folder: Path) -> Iterator[str]:
    """Yield the packages that a file of the project names as needed."""
    lines: list[str] = []
    if (path := folder / "requirements.txt").exists():
        lines += path.read_text(encoding="utf-8").splitlines()
    if (path := folder / "pyproject.toml").exists():
        lines += tomllib.loads(path.read_text("utf-8")).get("project", {}).get("dependencies", [])
    for path in folder.glob("environment.y*ml"):
        for line in from_yaml(path.read_text(encoding="utf-8")).get("dependencies", []):
            lines += line.get("pip", []) if isinstance(line, dict) else [line.partition("=")[0]]
    for line in lines:
        try:
            yield Requirement(line.partition("#")[0].strip()).name
        except InvalidRequirement:  # an option, a file, an empty line
            continue


def imported(folder: Path) -> list[str]:
    """Return the packages that bring what the project's notebooks and modules import."""
    brings = importlib.metadata.packages_distributions()
    modules = {name for path in sources(folder) for name in imports(path)}
    return [package for name in sorted(modules - sys.stdlib_module_names)
            for package in brings.get(name, [package_of(name)])]


def sources(folder: Path) -> list[Path]:
    """Return the notebooks and modules below `folder` that git does not ignore."""
    listed = tracking.git("ls-files", "--cached", "--others", "--exclude-standard", folder=folder)
    return [folder / name for name in listed.splitlines() if name.endswith((".ipynb", ".py"))
            and (folder / name).is_file()]


def imports(path: Path) -> Iterator[str]:
    """Yield the top names that a notebook or a module imports; a name too many does no harm."""
    codes = [path.read_text(encoding="utf-8", errors="replace")]
    if path.suffix == ".ipynb":
        codes = [source.code(cell) for cell in source.read(path)["cells"]
                 if cell["cell_type"] == "code"]
    for names in IMPORT.findall("\n".join(codes)):
        yield from re.findall(r"(?:^|,)\s*(\w+)", names)
