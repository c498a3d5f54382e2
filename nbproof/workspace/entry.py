"""The entry of a stage in dvc.yaml, made from what its notebook reads and writes."""

import contextlib
import csv
import difflib
import io
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import typer
from dvc.utils.flatten import flatten
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from nbproof.notebook import tracking
from nbproof.notebook.files import from_yaml, root, write_whole
from nbproof.pipeline import config, deps, observation
from nbproof.pipeline.numbers import is_number
from nbproof.pipeline.observation import holds

SMALL = 20_000  # bytes of a file of metrics or of a curve
KINDS = ("outs", "metrics", "plots")
NESTED = re.compile(r"(?m)^( *)[\w-]+:\n\1 +- ")  # a list that is indented below its key


class Yaml:
    """A YAML file of a person, of which `content` can be changed; comments stay as they are."""

    def __init__(self, name: str):
        path, self.yaml = root() / name, YAML()
        self.before = path.read_text("utf-8") if path.exists() else ""
        offset = 2 if NESTED.search(self.before) or ":\n" not in self.before else 0
        self.yaml.indent(mapping=2, sequence=2 + offset, offset=offset)
        self.yaml.preserve_quotes, self.yaml.width = True, sys.maxsize
        self.content = self.yaml.load(self.before or "{}")
        if not self.content:  # `{}`, on whose one line nobody wants to write
            self.content.fa.set_block_style()

    def text(self) -> str:
        """Return the file as it will be; as it was where no value is another."""
        if self.content == from_yaml(self.before or "{}"):
            return self.before
        written = io.StringIO()
        self.yaml.dump(self.content, written)
        return written.getvalue()

    def section(self, name: str) -> CommentedMap:
        """Return a mapping of the file, a new one if it is missing or empty."""
        if not self.content.get(name):
            self.content[name] = CommentedMap()
        return self.content[name]


def propose(files: dict[str, str], yes: bool) -> bool:
    """Show how the project's `files` change and, after a yes, write their new texts; return it."""
    for name, text in files.items():
        before = (root() / name).read_text("utf-8") if (root() / name).exists() else ""
        lines = (version.splitlines(keepends=True) for version in (before, text))
        sys.stdout.writelines(difflib.unified_diff(*lines, name, name, n=2))
    if not (yes or typer.confirm("Write this?", default=True)):
        return False
    for name, text in files.items():
        write_whole(root() / name, text)
    return True


def with_lines(path: Path, lines: Iterable[str]) -> str:
    """Return the text of a file with those of `lines` that it lacks at its end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    new = [line for line in lines if line not in text.splitlines()]
    return text + ("\n" if text and not text.endswith("\n") else "") + "\n".join([*new, ""])


def fill(entry: CommentedMap, notebook: str, read: Iterable[str], written: Iterable[str],
         sections: list[str]) -> None:
    """Bring the lists of a stage's `entry` up to date with what its notebook reads and writes.

    `sections` are those of params.yaml. A line that is still right stays, with its comment and
    options; what is new comes after it.
    """
    pins = config.load().pins
    inputs = grouped({*read, *deps.pictures(root() / notebook)} - {notebook}, at_least=6)
    inputs = [notebook, *([pins] if pins else []),
              *(observation.dep_for(notebook, path) for path in inputs)]
    outputs = [f"reports/{Path(notebook).stem}.ipynb", *grouped(written, at_least=3)]
    listed = [name_of(line) for kind in KINDS for line in entry.get(kind, [])]
    new = [described(path) for path in outputs if not holds(listed, path)]
    entry.setdefault("cmd", "nbproof stage")
    replace(entry, "deps", inputs, inputs)
    replace(entry, "params", sections, sections)
    for kind in KINDS:
        replace(entry, kind, outputs, [line for its_kind, line in new if its_kind == kind])


def replace(entry: CommentedMap, key: str, names: list[str], new: list[str | dict]) -> None:
    """Take from a list of `entry` what stands for none of `names`; add those of `new` it lacks."""
    lines = entry.setdefault(key, [])
    for line in list(lines):
        if not any(holds([name_of(line)], name) for name in names):
            lines.remove(line)
    for line in new:
        if not holds(map(name_of, lines), name_of(line)):
            lines.append(line)
    if not lines:
        del entry[key]


def name_of(line: str | dict) -> str:
    """Return the path of a line of deps or outs, which may have options."""
    return line if isinstance(line, str) else next(iter(line))


def grouped(paths: Iterable[str], at_least: int) -> list[str]:
    """Return `paths`, with a folder instead of its files where all of them are among these."""
    left, files = set(paths), observation.snapshot(set())
    folders = {parent.as_posix() for path in left for parent in PurePosixPath(path).parents}
    for folder in sorted(folders - {"."}, key=len):
        inside = {path for path in files if holds([folder], path)}
        if len(inside) >= at_least and inside <= left:
            left = left - inside | {folder}
    return sorted(left)


def described(path: str) -> tuple[str, str | dict]:
    """Return under which key of a stage an output stands, and its line there."""
    file = root() / path
    if file.is_file() and file.stat().st_size <= SMALL:
        with contextlib.suppress(ValueError):  # of texts and blanks where numbers would be
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".json" and any(map(is_number, flatten(json.loads(text)).values())):
                return "metrics", {path: {"cache": False}}
            if file.suffix == ".csv" and (axes := curve(text)):
                return "plots", {path: {"cache": False, "x": axes[0], "y": axes[1]}}
    in_git = tracking.git("ls-files", "--", path)  # DVC refuses to keep what git has already
    return "outs", {path: {"cache": False}} if in_git else path


def curve(text: str) -> list[str] | None:
    """Return the columns of a CSV text of numbers, the first of which rise; None otherwise."""
    head, *rows = csv.reader(text.splitlines())
    numbers = [[float(value) for value in row] for row in rows if row]
    first = [row[0] for row in numbers]
    rises = all(one < next_one for one, next_one in zip(first, first[1:]))
    return head if len(head) > 1 and len(first) > 1 and head[0] and rises else None
