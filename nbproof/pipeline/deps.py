"""What a notebook depends on, and whether dvc.yaml lists it.

Parameters and pictures are read off the notebook before it runs. Code is not parsed: the kernel
reports which of the project's files a notebook has loaded, as modules or by %run.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import nbproof
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.pipeline.dag import Stage
from nbproof.runner import RESULTS, schema, source

PICTURE = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img[^>]*\ssrc=["']([^"']+)""")
PACKAGE = Path(nbproof.__file__).resolve().parent


def check(stage: Stage) -> None:
    """Raise UserError where dvc.yaml does not list what is known of a notebook before it runs."""
    notebook, pins = root() / stage.notebook, config.load().pins
    line = f"# nbproof results: {RESULTS}"  # all stages depend on it, so another one runs them
    if pins and line not in (root() / pins).read_text(encoding="utf-8").splitlines():
        raise UserError(f"{pins} must hold the line `{line}`: this nbproof makes other results. "
                        "Write it there; all stages run again.")
    if paths := uncovered(stage, [*pictures(notebook), *([pins] if pins else [])]):
        raise UserError(sentence(stage, paths))
    code = [source.code(cell) for cell in source.read(notebook)["cells"]
            if cell["cell_type"] == "code"]
    for section in schema.sections_of(code).values():
        if not any(f"{section}.".startswith(f"{listed}.") for listed in stage.sections):
            raise UserError(f"dvc.yaml: the stage {stage.name} does not list the section {section}"
                            f", which {stage.notebook} reads: add `- {section}` to its params.")


def pictures(notebook: Path) -> Iterator[str]:
    """Yield the project's files that a notebook's Markdown shows, as paths below the project."""
    texts = [source.code(cell) for cell in source.read(notebook)["cells"]
             if cell["cell_type"] == "markdown"]
    for match in PICTURE.finditer("\n".join(texts)):
        if ":" in (name := match[1] or match[2]):  # an address, or an attachment
            continue
        path = (notebook.parent / name).resolve()
        if path.is_file() and path.is_relative_to(root()):
            yield path.relative_to(root()).as_posix()


def uncovered(stage: Stage, paths: Iterable[str]) -> list[str]:
    """Return those of the project's files `paths` that no dep of `stage` is or holds.

    What the stage makes itself is no dependency, nor is nbproof, an environment or scratch/.
    """
    known = [*stage.deps, *stage.outputs, "scratch"]
    return sorted(path for path in set(paths)
                  if not any(f"{path}/".startswith(f"{name}/") for name in known)
                  and not any(part.startswith(".") for part in PurePosixPath(path).parts)
                  and not (root() / path).is_relative_to(PACKAGE) and (root() / path).is_file())


def sentence(stage: Stage, paths: list[str]) -> str:
    """Return what to add to dvc.yaml for `paths`: of a package below notebooks/ its folder."""
    lines = {}
    for path in paths:
        folder = "/".join(path.split("/")[:2])
        is_package = path.startswith("notebooks/") and not stage.notebook.startswith(f"{folder}/")
        lines[f"`- {folder if is_package else path}`"] = None
    return (f"dvc.yaml: the stage {stage.name} does not list all that {stage.notebook} depends on: "
            f"add {', '.join(lines)} to its deps, so that an edit there runs it again.")
