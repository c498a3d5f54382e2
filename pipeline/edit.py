"""Changes that a person asks for to params.yaml and to notebooks: shown first, written whole, comments and types kept."""

import ast
import contextlib
import difflib
import io
import re
import sys
from pathlib import Path

import nbformat
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import ROOT, Refused
from pipeline.stage import parameters, source
from pipeline.stage.files import write_whole

# MLflow keeps text; a float that is written as an int stays one, as it may in params.yaml.
READ = {
    "int": int, "str": str, "bool": {"True": True, "False": False}.__getitem__,
    "float": lambda text: int(text) if re.fullmatch(r"-?\d+", text) else float(text),
}


def with_values(text: str, key: str, values: dict) -> str:
    """params.yaml's `text` with `values` in its section `key` (`data`, `models.cnn`); what is equal stays as it is written."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    content = yaml.load(text)
    section = content
    for part in key.split("."):
        section = section[part]
    for name, value in values.items():
        if section.get(name) != value or isinstance(section.get(name), bool) != isinstance(value, bool):
            section[name] = value
    written = io.StringIO()
    yaml.dump(content, written)
    return written.getvalue()


def with_copy(text: str, pattern: str, name: str) -> str:
    """params.yaml's `text` with the section of the model `pattern` once more, as `name`, in front of it; all other lines stay."""
    models, lines = YAML().load(text)["models"], text.splitlines(keepends=True)
    start, column = models.lc.key(pattern)
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][: column + 1].isspace()):
        end += 1
    block = "".join(lines[start:end]).rstrip() + "\n"
    copied = block[:column] + re.sub(rf"^(['\"]?){re.escape(pattern)}\1(?=\s*:)", name, block[column:])
    changed = "".join([*lines[:start], copied, *lines[start:]])
    try:
        before, after = (YAML(typ="safe").load(each)["models"] for each in (text, changed))
    except YAMLError:
        before, after = {pattern: None}, None
    if after != {**before, name: before[pattern]}:
        raise Refused(f"params.yaml: the section models.{pattern} could not be copied as it is written; add models.{name} by hand.")
    return changed


def with_parameters_restored(code: str) -> str:
    """A parameters cell's `code` with `lr: float = P.lr` again wherever an exploration has put a value; comments stay."""
    lines = code.encode().splitlines(keepends=True)
    for line in ast.parse(code).body:
        match line:
            case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value) if value.lineno == value.end_lineno:
                whole = lines[value.lineno - 1]
                lines[value.lineno - 1] = whole[: value.col_offset] + f"P.{name}".encode() + whole[value.end_col_offset :]
    return b"".join(lines).decode()


def put_by_hand(code: str) -> dict:
    """The values that an exploration has put into a parameters cell's `code` in the place of `P.name`, by name."""
    found = {}
    for line in ast.parse(code).body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            with contextlib.suppress(ValueError):  # P.name, or a computed value: nothing to compare with
                found[line.target.id] = ast.literal_eval(line.value)
    return found


def restored(notebook: Path) -> str:
    """The source of `notebook` with its parameters read from params.yaml again; Refused if its tagged cell is not Python."""
    content = source.strip(nbformat.read(notebook, as_version=4))
    for cell in content.cells:
        if "parameters" in cell.metadata.get("tags", []):
            try:
                cell.source = with_parameters_restored(cell.source)
            except SyntaxError as error:
                raise Refused(f"notebooks/{notebook.name}: line {error.lineno} of the parameters cell is not Python: {error.msg}.") from None
    return source.text(content)


def approved(before: str, after: str, name: str, yes: bool) -> bool:
    """Show what changes in the file `name`, and ask; `yes` is the answer given beforehand. Refused where nobody can be asked."""
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name, n=2))
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Refused(f"Nothing was changed: {name} is written after a yes on a terminal, or with --yes (make adopt RUN=... YES=1).")
    return input(f"Write {name}? [y/N] ").strip().lower() in ("y", "yes")


def new_model(name: str, pattern: str) -> int:
    """Make notebooks/NAME.ipynb and the section models.NAME from the model `pattern`; both run as they are."""
    path = ROOT / "params.yaml"
    values = parameters.read(path)
    known = parameters.models(values)
    if not parameters.NAME.fullmatch(name):
        raise Refused(f"NAME={name!r}: a model's name is small letters, digits and _, a letter first.")
    if pattern not in known:
        raise Refused(f"params.yaml has no model {pattern!r} to start from; there are {', '.join(known)} (--like NAME).")
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    if name in known or name in values or notebook.exists():
        raise Refused(f"{name} is taken, by notebooks/{name}.ipynb or in params.yaml; give the model another name.")
    like, _ = parameters.checked(pattern)
    text = path.read_text(encoding="utf-8")
    changed = with_copy(text, pattern, name)
    write_whole(notebook, _renamed(like, pattern, name))
    write_whole(path, changed)
    print(f"notebooks/{name}.ipynb and models.{name} in params.yaml are made from {pattern}: change its net and its story, then make run.")
    return 0


def _renamed(like: Path, pattern: str, name: str) -> str:
    """The notebook `like` with its name replaced in code and ids, and an opening that asks for a hypothesis."""
    content, word = source.strip(nbformat.read(like, as_version=4)), re.compile(rf"\b{pattern}\b")
    for cell in content.cells:
        cell.id = word.sub(name, cell.id)
        if cell.cell_type == "code":
            cell.source = word.sub(name, cell.source)
    content.cells[0].source = (
        f"# {name}\n\n> What should it do better than {pattern}?\n\n"
        f"**Hypothesis.** To be written: what is new in this net, and what it should change, with a number. So far it is the net of `{pattern}.ipynb`."
    )
    return source.text(content)


def adopt(run: str, yes: bool, model: str = "") -> int:
    """Take the parameters of an MLflow run into params.yaml, after a look at the change.

    `run` is its id, `last` for the newest finished exploration, or `best` for the best trial of the newest sweep, of `model` if it is named.
    """
    from pipeline.explored import best_of_sweep, recorded

    path = ROOT / "params.yaml"
    run = best_of_sweep(model) if run == "best" else run
    run_id, name, words = recorded(run)
    values = parameters.read(path)
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    if name not in parameters.models(values) and name not in values:
        raise Refused(f"Run {run_id} is one of {name}, which params.yaml does not have any more.")
    if not notebook.exists():
        raise Refused(f"Run {run_id} is one of notebooks/{name}.ipynb, which is not there any more.")
    key = name if name in values else f"models.{name}"
    source_then = restored(notebook)
    taken = _typed(parameters.declared_in(nbformat.reads(source_then, as_version=4).cells, f"notebooks/{notebook.name}"), words, run_id)
    before = path.read_text(encoding="utf-8")
    after = with_values(before, key, taken)
    edited = source_then != source.stripped(notebook.read_text(encoding="utf-8"))
    if run == "last" and edited:
        _refuse_other_values(notebook, words, run_id)
    if before == after:
        print(f"params.yaml holds the values of run {run_id} ({name}) already.")
    elif approved(before, after, "params.yaml", yes):
        write_whole(path, after)
        print(f"params.yaml has the values of run {run_id} now: make run trains {name} with them.")
    else:
        print("Nothing was changed.")
        return 1
    if edited:
        write_whole(notebook, source_then)
        print(f"notebooks/{name}.ipynb reads its values from params.yaml again; where it is open, reload it from disk (File menu).")
    return 0


def _refuse_other_values(notebook: Path, words: dict[str, str], run_id: str) -> None:
    """Refused where the parameters cell holds values that the newest finished run did not have: that run is not the one which is meant."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for key, value in put_by_hand(cell.source).items() if "parameters" in cell.metadata.get("tags", []) else ():
            if key in words and words[key] != str(value):
                raise Refused(
                    f"notebooks/{notebook.name} says {key} = {value}, its newest finished run ({run_id}) had {words[key]}: run the notebook "
                    f"to its end first, or name the run that you mean (make adopt RUN={run_id})."
                )


def _typed(declared: dict[str, parameters.Parameter], words: dict[str, str], run_id: str) -> dict:
    """A run's parameters, which MLflow keeps as text, as the notebook declares them."""
    if set(words) != set(declared):
        raise Refused(f"Run {run_id} has the parameters {', '.join(sorted(words))}; its notebook now has {', '.join(sorted(declared))}.")
    values = {}
    for each in declared.values():
        text = words[each.name]
        try:
            value = READ[each.type](text)
        except (KeyError, ValueError):
            value = text
        if not each.accepts(value):
            raise Refused(f"Run {run_id}: {each.name} must be {each.type}{f' in {each.allowed}' if each.allowed else ''}, found {text!r}.")
        values[each.name] = value
    return values
