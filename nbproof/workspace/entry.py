"""The entry of a stage in dvc.yaml, made from what its notebook reads and writes."""

import csv
import difflib
import io
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dvc.utils.flatten import flatten
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from nbproof.notebook import tracking
from nbproof.notebook.files import from_yaml, root, write_whole
from nbproof.pipeline import config, deps, observation
from nbproof.pipeline.numbers import is_number
from nbproof.pipeline.observation import holds

SMALL, LEAVES = 200_000, 60  # bytes of a file of metrics or of a curve; numbers of the first
KINDS = ("outs", "metrics", "plots")
NESTED = re.compile(r"(?m)^( *)[\w-]+:\n\1 +- ")  # a list that is indented below its key


class Yaml:
    """A YAML file of a person, of which `content` can be changed; comments stay as they are."""

    def __init__(self, name: str):
        self.path, self.yaml = root() / name, YAML()
        self.before = text = self.path.read_text("utf-8") if self.path.exists() else ""
        offset = 2 if NESTED.search(text) or ":\n" not in text else 0
        self.yaml.indent(mapping=2, sequence=2 + offset, offset=offset)
        self.yaml.preserve_quotes, self.yaml.width = True, sys.maxsize
        self.content = self.yaml.load(text)
        self.head = ""
        if not self.content:  # comments alone, or `{}`, on whose one line nobody wants to write
            self.head = "".join(line for line in text.splitlines(True) if line.startswith("#"))
            self.content = CommentedMap()

    def text(self) -> str:
        """Return the file as it will be; as it was where no value is another."""
        if self.content == (from_yaml(self.before) or {}):
            return self.before
        written = io.StringIO()
        self.yaml.dump(self.content, written)
        return self.head + written.getvalue()

    def section(self, name: str) -> CommentedMap:
        """Return a mapping of the file, a new one if it is missing or empty."""
        if not self.content.get(name):
            self.content[name] = CommentedMap()
        return self.content[name]

    def set(self, key: str, value: object) -> None:
        """Give `key` (models.cnn.lr) a value.

        A new key comes in front of the last one, so that comments after a section stay after it.
        """
        *parents, name = key.split(".")
        holder = self.content
        for parent in parents:
            holder = holder.setdefault(parent, CommentedMap())
        if name not in holder:
            holder.insert(max(0, len(holder) - 1), name, value)
        elif isinstance(holder[name], list) and isinstance(value, list):
            holder[name][:] = value  # it stays on one line, or on several
        elif holder[name] != value:  # the same one stays as it is written
            holder[name] = value

    def show(self) -> None:
        """Print what will change."""
        lines = (text.splitlines(keepends=True) for text in (self.before, self.text()))
        sys.stdout.writelines(difflib.unified_diff(*lines, self.path.name, self.path.name, n=2))

    def write(self) -> None:
        write_whole(self.path, self.text())


def with_lines(path: Path, lines: Iterable[str]) -> str:
    """Return the text of a file with those of `lines` that it lacks at its end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    new = [line for line in lines if line not in text.splitlines()]
    return text + ("\n" if text and not text.endswith("\n") else "") + "\n".join([*new, ""])


def fill(entry: CommentedMap, notebook: str, sections: list[str], read: Iterable[str],
         written: Iterable[str]) -> None:
    """Bring the lists of a stage's `entry` up to date with what its notebook reads and writes.

    `sections` are those of params.yaml. A line that is still right stays, with its comment and
    options; what is new comes after it.
    """
    pins = config.load().pins
    pictures = deps.pictures(root() / notebook)
    listed = grouped([path for path in (*read, *pictures) if path != notebook], at_least=6)
    wanted = [notebook, *([pins] if pins else []),
              *(observation.dep_for(notebook, path) for path in listed)]
    entry.setdefault("cmd", "nbproof stage")
    replace(entry, "deps", wanted)
    replace(entry, "params", sections)
    known = {name_of(line): kind for kind in KINDS for line in entry.get(kind, [])}
    kinds = {"outs": [f"reports/{Path(notebook).stem}.ipynb"], "metrics": [], "plots": []}
    tracked = set(tracking.git("ls-files", "--", *written).splitlines())
    for path in grouped(written, at_least=3):
        kind, options = next(((kind, {}) for name, kind in known.items() if holds([name], path)),
                             kind_of(path))
        if kind == "outs" and holds(tracked, path):  # git has it already, and DVC refuses both
            options = {"cache": False}
        kinds[kind].append({path: options} if options else path)
    for kind, values in kinds.items():
        replace(entry, kind, values)


def replace(entry: CommentedMap, key: str, wanted: list) -> None:
    """Let the list `key` of an entry have the lines `wanted`; what stays keeps its place."""
    names = {name_of(line) for line in wanted}
    lines = entry.get(key, [])
    for number in reversed(range(len(lines))):
        covered = {name for name in names if holds([name_of(lines[number])], name)}
        if covered:
            names -= covered
        else:
            del lines[number]
    for line in wanted:
        if name_of(line) in names:
            names.remove(name_of(line))
            lines.append(line)
    if lines:
        entry[key] = lines
    else:
        entry.pop(key, None)


def name_of(line: str | dict) -> str:
    """Return the path of a line of deps or outs, which may have options."""
    return line if isinstance(line, str) else next(iter(line))


def grouped(paths: Iterable[str], at_least: int) -> list[str]:
    """Return `paths`, with a folder instead of its files where all of them are among these."""
    left, folders = set(paths), {parent for path in paths for parent in PurePosixPath(path).parents}
    for folder in sorted(folders, key=lambda folder: len(folder.parts)):
        inside = {path.relative_to(root()).as_posix() for path in (root() / folder).rglob("*")
                  if path.is_file()}
        inside = {path for path in inside if not observation.is_ignored(path)}
        if len(inside) >= at_least and inside <= left:
            left = left - inside | {folder.as_posix()}
    return sorted(left)


def kind_of(path: str) -> tuple[str, dict]:
    """Return under which key of a stage an output stands, and its options."""
    file = root() / path
    if file.is_file() and file.stat().st_size <= SMALL:
        if file.suffix == ".json" and is_metrics(file):
            return "metrics", {"cache": False}
        if file.suffix == ".csv" and (axes := curve(file)):
            return "plots", {"cache": False, "x": axes[0], "y": axes[1]}
    return "outs", {}


def is_metrics(file: Path) -> bool:
    """Return whether a JSON file is an object of a few numbers, which may be nested."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    leaves = list(flatten(content).values()) if isinstance(content, dict) else []
    is_short = len(leaves) <= LEAVES and not any(isinstance(leaf, list) for leaf in leaves)
    return is_short and any(map(is_number, leaves))


def curve(file: Path) -> tuple[str, str] | None:
    """Return the columns x and y of a CSV file of numbers whose first column rises."""
    try:
        head, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
        numbers = [[float(value) for value in row] for row in rows]
    except ValueError:  # texts, blanks, nothing at all
        return None
    first = [row[0] for row in numbers if row]
    rises = all(one < next_one for one, next_one in zip(first, first[1:]))
    return (head[0], head[1]) if len(head) > 1 and len(first) > 1 and head[0] and rises else None
