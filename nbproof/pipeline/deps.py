"""What a notebook needs of this project, found in its source: local modules, directly imported or not, and pictures."""

import ast
import functools
import importlib.machinery
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbproof
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline.config import load
from nbproof.pipeline.dag import Stage
from nbproof.runner import schema, source

PICTURE = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img[^>]*\ssrc=["']([^"']+)""")
# While they are imported they ask whether they are in a notebook, or start a thread: no process can fork them early.
NEVER_EARLY = {"IPython", "ipykernel", "ipywidgets", "matplotlib_inline", "onnxruntime", "tqdm"}
# They import MLflow once they are used. MLflow asks whether it is in a notebook; what takes longest below it does not.
TRACKING = {"nbproof.notebook:tracking", "nbproof.notebook.tracking", "nbproof.notebook:models",
            "nbproof.notebook.models"}
BELOW_MLFLOW = ("pandas", "fastapi", "pydantic", "requests")
TIMES = re.compile(r"^(\s*)%(?:time|timeit|capture|prun)\b(?:\s+-\S+)*\s*")  # magics whose argument is Python
PACKAGE = Path(nbproof.__file__).resolve().parent


def check(stage: Stage) -> None:
    """UserError where dvc.yaml does not list what the notebook of `stage` needs; the sentence says what to add."""
    notebook = root() / stage.notebook
    unlisted = sorted(path for path in needed(notebook) if not _covered(path, stage.deps))
    if unlisted:
        lines = ", ".join(f"`- {path}`" for path in unlisted)
        raise UserError(f"dvc.yaml: the stage {stage.name} does not list all that {stage.notebook} needs: add {lines} to "
                      "its deps, so that an edit there runs it again.")
    for key, section in read_by(notebook).items():
        if not any(f"{key}.".startswith(f"{each}.") for each in stage.sections):
            raise UserError(f"dvc.yaml: the stage {stage.name} does not list the section {section}, which "
                          f"{stage.notebook} reads: add `- {section}` to its params.")


def read_by(notebook: Path) -> dict[str, str]:
    """What `notebook` reads of params.yaml, each with its section: its parameters, other sections as a whole."""
    declared = schema.declared(notebook).values()
    code = [source.code(cell) for cell in source.read(notebook)["cells"] if cell["cell_type"] == "code"]
    others = set(schema.sections_of(code).values()) - {each.section for each in declared}
    return {each.key: each.section for each in declared} | {name: name for name in others}


def needed(notebook: Path) -> set[str]:
    """The files of this project that shape what `notebook` gives, relative to the project's folder."""
    cells = source.read(notebook)["cells"]
    found: set[Path] = set()
    for cell in cells:
        if cell["cell_type"] == "code":
            _follow(_imports(_python(source.code(cell))), notebook.parent, found)
        elif cell["cell_type"] == "markdown":
            found.update(_pictures(source.code(cell), notebook))
    if PACKAGE.parent == root():  # the project is nbproof's own home: how a stage runs is no pin but a folder
        found.add(PACKAGE / "stage")
    elif load().pins:
        found.add(root() / load().pins)
    return {path.relative_to(root()).as_posix() for path in [notebook, *found]}


def _covered(path: str, deps: tuple[str, ...]) -> bool:
    return any(path == dep or path.startswith(f"{dep}/") for dep in deps)


def _python(code: str) -> str:
    """A cell as plain Python: what magics time or capture is a part of it, and all else of IPython's is a call."""
    first, _, rest = code.lstrip().partition("\n")
    if first.startswith("%%"):
        code = rest if TIMES.match(first[1:]) else ""
    code = "\n".join(TIMES.sub(r"\1", line) for line in code.split("\n"))
    try:
        ast.parse(code)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # a tenth of a second, which most need not

        return TransformerManager().transform_cell(code)
    return code


@functools.cache  # notebooks share most of what they import
def _imports(code: str) -> tuple[tuple[int, str], ...]:
    """The modules that `code` imports: the number of leading dots, and the name. `from a import b` may mean a.b."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # the kernel says so, when it comes to this cell
        return ()
    found = {}  # in their order, each once
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys((0, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module or ''}.{each.name}".lstrip(".") for each in node.names]
            found |= dict.fromkeys((node.level, name) for name in [node.module or "", *names])
    return tuple(found)


def _follow(imports: tuple[tuple[int, str], ...], folder: Path, found: set[Path]) -> None:
    """Add the local modules of `imports` to `found`, and what they import; `folder` is the importing file's."""
    for level, name in imports:
        for place in _places(folder, level):
            if files := _module(place, name):
                for file in files - found:
                    found.add(file)
                    _follow(_imports(file.read_text(encoding="utf-8")), file.parent, found)
                break


def _places(folder: Path, level: int) -> list[Path]:
    """Where a module may be that a file in `folder` imports, with `level` dots before its name."""
    return [folder.joinpath(*[".."] * (level - 1)).resolve()] if level else [folder, root() / "notebooks", root()]


def _module(place: Path, name: str) -> set[Path]:
    """The files that importing `name` from `place` executes: each package's __init__.py and the module's own."""
    files, here = set(), place
    for part in filter(None, name.split(".")):
        if (here / f"{part}.py").is_file():
            files.add(here / f"{part}.py")
        here = here / part
        if (here / "__init__.py").is_file():
            files.add(here / "__init__.py")
    return {file for file in files if file.is_relative_to(root())}


def _pictures(markdown: str, notebook: Path) -> Iterator[Path]:
    """Pictures beside the notebooks that a text shows."""
    for match in PICTURE.finditer(markdown):
        if ":" in (name := match[1] or match[2]):  # an address, or the picture itself
            continue
        path = (notebook.parent / name).resolve()
        if path.is_dir():
            shown = notebook.relative_to(root()).as_posix()
            raise UserError(f"{shown} shows {name} as a picture, and that is a folder: name a file.")
        if path.is_file() and path.is_relative_to(root()):
            yield path


def libraries(notebooks: list[Path]) -> list[str]:
    """The installed modules that each of `notebooks` imports at its top level or that of a local module.

    Each as `module`, or as `module:name` where a name is taken from it, which may be a module.
    """
    found = [_libraries(each) for each in notebooks]
    common = [each for each in found[0] if all(each in others for others in found[1:])] if found else []
    return [each for each in common if each.partition(":")[0].partition(".")[0] not in NEVER_EARLY]


def _libraries(notebook: Path) -> dict[str, None]:
    """What one notebook imports at its start, in this order, and what tracking needs where it imports that."""
    found: dict[str, None] = {}
    cells = [source.code(cell) for cell in source.read(notebook)["cells"] if cell["cell_type"] == "code"]
    _collect("\n".join(map(_python, cells)), notebook.parent, found, set())
    if TRACKING & found.keys():
        found |= dict.fromkeys(BELOW_MLFLOW)
    return {each: None for each in found if _is_installed(each.partition(":")[0].partition(".")[0])}


def _collect(code: str, folder: Path, found: dict[str, None], seen: set[Path]) -> None:
    """Add the imports at the top level of `code`, and those of the local modules among them."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # the kernel says so, when it comes to this cell
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            level, names = 0, [each.name for each in node.names]
            local = names
        elif isinstance(node, ast.ImportFrom):
            level, names = node.level, [node.module or "", *(f"{node.module}:{each.name}" for each in node.names)]
            local = [f"{node.module or ''}.{each.name}".lstrip(".") for each in node.names]
        else:
            continue
        files = {file for name in local for place in _places(folder, level) for file in _module(place, name)}
        if not level and (not files or names[0].startswith("nbproof.")):
            parts = names[0].split(".")
            found |= dict.fromkeys([".".join(parts[:end]) for end in range(1, len(parts))] + names)
        for file in sorted(files - seen):
            seen.add(file)
            _collect(file.read_text(encoding="utf-8"), file.parent, found, seen)


def _is_installed(package: str) -> bool:
    """Whether `package` is of neither this project nor Python itself, and there."""
    return package not in {*sys.stdlib_module_names, "nbproof"} and bool(
        importlib.machinery.PathFinder.find_spec(package))
