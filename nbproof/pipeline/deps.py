"""What is known of a notebook's dependencies before it runs, and whether dvc.yaml lists it.

Parameters and pictures are read off the notebook. Code is not parsed: nbproof.pipeline.observation
sees what it opens. What git would lose or change of the project's own files is refused.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config, observation
from nbproof.pipeline.dag import Stage
from nbproof.runner import RESULTS, schema, source

PICTURE = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img[^>]*\ssrc=["']([^"']+)""")
EOL = re.compile(r"i/(\S*)\s+w/\S*\s+attr/(.*?)\s*\t(.*)")  # a line of git ls-files --eol
DATA = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".svg"}  # text, and no code


def check(stage: Stage) -> None:
    """Raise UserError where dvc.yaml does not list what is known of a notebook before it runs."""
    notebook, pins = root() / stage.notebook, config.load().pins
    source.check_kernel(source.read(notebook), stage.notebook)
    line = f"# nbproof results: {RESULTS}"  # all stages depend on it, so another one runs them
    if pins and line not in (root() / pins).read_text(encoding="utf-8").splitlines():
        raise UserError(f"{pins} must hold the line `{line}`: this nbproof makes other results. "
                        "Write it there; all stages run again.")
    paths = [path for path in (*pictures(notebook), *([pins] if pins else []))
             if not observation.holds([*stage.deps, *stage.outputs], path)
             and not observation.is_ignored(path)]
    if paths:
        raise UserError(f"{observation.deps_sentence(stage, sorted(paths))}.")
    for section in schema.sections_read(notebook):
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


def check_sources(stages: Iterable[Stage]) -> None:
    """Raise UserError for a dep that no stage makes and that a clone would lack, or get changed."""
    stages = list(stages)
    made = [path for stage in stages for path in stage.outputs]
    own = sorted({path for stage in stages for path in stage.deps
                  if not observation.holds(made, path) and not _is_kept_by_dvc(path)
                  and not any(observation.holds([path], out) for out in made)})
    if ignored := tracking.git("check-ignore", "--", *own).splitlines():
        raise UserError(f"{ignored[0]} is a dep in dvc.yaml that git ignores and no stage makes, so"
                        " a clone would lack it: take it out of .gitignore and git add it, or "
                        f"let DVC keep it (dvc add {ignored[0]}).")
    if changed := changed_by_git(own):
        raise UserError(f"git would change the line ends of {changed[0]}, and a clone would have "
                        f"other bytes than dvc.lock records: write the line "
                        f"`{attribute(changed[0])}` into .gitattributes, then run again.")


def _is_kept_by_dvc(path: str) -> bool:
    """Return whether a file of `dvc add` holds the version of `path` or of a folder above it."""
    above = [path, *map(str, PurePosixPath(path).parents)][:-1]
    return any((root() / f"{name}.dvc").exists() for name in above)


def changed_by_git(paths: Iterable[str]) -> list[str]:
    """Return those of the data files `paths` whose line ends a commit or a clone changes."""
    files = [path for path in paths if PurePosixPath(path).suffix.lower() in DATA
             and (root() / path).is_file() and _has_carriage_returns(root() / path)]
    if not files:
        return []
    listed = tracking.git("ls-files", "--eol", "--cached", "--others", "--", *files).splitlines()
    converts = tracking.git("config", "--get", "core.autocrlf").strip() in ("true", "input")
    changed = []
    for line in listed:
        index, attributes, path = EOL.fullmatch(line).groups()
        is_text = attributes.startswith(("text", "eol")) or not attributes and converts
        if is_text and index != "crlf":  # what is committed with CRLF, git leaves alone
            changed.append(path)
    return changed


def _has_carriage_returns(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\r\n" in file.read(65536)


def attribute(path: str) -> str:
    """Return the line of .gitattributes by which git leaves the bytes of `path` alone."""
    return f'"{path}" -text' if " " in path else f"{path} -text"
