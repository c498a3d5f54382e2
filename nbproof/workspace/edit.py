"""Changes that a person asks for to params.yaml and to notebooks: shown first, written whole, all else as it is."""

import ast
import contextlib
import difflib
import io
import itertools
import json
import re
import sys
import tokenize
from collections.abc import Iterable
from functools import reduce
from operator import getitem
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from nbproof.notebook import tracking
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import from_yaml, root, write_whole
from nbproof.notebook.params import read, section
from nbproof.pipeline import config, dag
from nbproof.runner import schema, source


def with_values(text: str, values: dict) -> str:
    """params.yaml's `text` with new `values` by key (`models.cnn.lr`); what is equal stays as it is written."""
    for key, value in values.items():
        name, node = _found(text, key)
        before = reduce(getitem, key.split("."), from_yaml(text))
        if before == value and isinstance(before, bool) == isinstance(value, bool):
            continue
        end, written = _end(name, node), io.StringIO()
        start = min(node.start_mark.index, end)
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style, yaml.width, yaml.allow_unicode = True, sys.maxsize, True
        yaml.dump([value], written)
        new = written.getvalue().strip()[1:-1]
        if isinstance(node, CollectionNode) and not node.flow_style:  # in lines of its own: it comes beside its name
            new, start = new + text[name.end_mark.index + 1 : start].rstrip(), name.end_mark.index + 1
        new = " " * (text[start - 1] == ":") + new
        text = _verified(text, text[:start] + new + text[end:], key, value)
    return text


def with_copy(text: str, section: str, pattern: str, name: str) -> str:
    """params.yaml's `text` with SECTION.PATTERN once more, as `name`, in front of it; all other lines stay."""
    key, node = _found(text, f"{section}.{pattern}")
    text = text if text.endswith("\n") else f"{text}\n"
    start, line_end = key.start_mark, text.find("\n", _end(key, node))
    copied = f"{name}{text[key.end_mark.index : line_end]}\n{' ' * start.column}"
    value = reduce(getitem, [*section.split("."), pattern], from_yaml(text))
    return _verified(text, text[: start.index] + copied + text[start.index :], f"{section}.{name}", value)


def _found(text: str, key: str) -> tuple[Node, Node]:
    """The last name of `key` and its value, each with its place in `text`."""
    node = YAML().compose(text)
    for part in key.split("."):
        pairs = {name.value: (name, each) for name, each in node.value} if isinstance(node, MappingNode) else {}
        if part not in pairs:
            raise UserError(f"params.yaml has no {key} where it can be changed: write it by hand.")
        name, node = pairs[part]
    return name, node


def _end(key: Node, node: Node) -> int:
    """Where `key: node` ends in its text; comments that follow a block are no part of it."""
    while isinstance(node, CollectionNode) and not node.flow_style and node.value:
        key, node = node.value[-1] if isinstance(node, MappingNode) else (key, node.value[-1])
    is_written = node.start_mark.index < node.end_mark.index  # a null may not be
    return node.end_mark.index if is_written else key.end_mark.index + 1


def _verified(before: str, after: str, key: str, value: object) -> str:
    """`after`, where it says what `before` says but for `value` at `key`; UserError otherwise."""
    *parents, name = key.split(".")
    expected = from_yaml(before)
    reduce(getitem, parents, expected)[name] = value
    with contextlib.suppress(YAMLError):
        if from_yaml(after) == expected:
            return after
    raise UserError(f"params.yaml: {key} could not be written beside what stands there; write it by hand.")


def approved(before: str, after: str, name: str, yes: bool) -> bool:
    """Show what changes in the file `name`, and ask, unless `yes` says so already; UserError if nobody can be asked."""
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name, n=2))
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"Nothing was changed: {name} is written after a yes on a terminal, or with --yes.")
    return input(f"Write {name}? [y/N] ").strip().lower() in ("y", "yes")


def new_model(name: str, pattern: str = "") -> int:
    """Make a notebook and a section of params.yaml from the model `pattern` (the last one); both run as they are."""
    if not config.NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a model: small letters, digits and _, a letter first.")
    with dag.opened(root()) as repo:
        known = dag.read(repo).values()
    models = _copyable(known)
    if (pattern := pattern or next(reversed(models), "")) not in models:
        raise UserError(f"There is no model {pattern!r} to start from; a stage of dvc.yaml with a foreach over a section "
                      f"of params.yaml and a notebook for each makes {', '.join(models) or 'none'}.")
    like, section = models[pattern]
    notebook, path = like.with_stem(name), root() / "params.yaml"
    taken = [f"the notebook {notebook.name}"] if notebook.exists() else []
    taken += [f"the page reports/{name}.html"] if name in ("index", "changes") else []
    taken += [f"a section of {path.name}"] if name in read() else []
    taken += [f"the stage {stage.name}" for stage in known if name in (stage.short, *stage.name.split("@"))]
    taken += [f"{out.path} of the stage {stage.name}" for stage in known for out in stage.outputs
              if PurePosixPath(out.path).stem == name and out.path.startswith(("metrics/", "models/", "reports/"))]
    if taken:
        raise UserError(f"The name {name} is taken by {taken[0]}; give the model another name.")
    changed = with_copy(path.read_text(encoding="utf-8"), section, pattern, name)
    write_whole(notebook, _renamed(like, pattern, name))
    write_whole(path, changed)
    print(f"{schema.shown(notebook)} and {section}.{name} in params.yaml are made from {pattern}: change the model "
          "and its story, then nbproof run.")
    return 0


def _copyable(known: Iterable[dag.Stage]) -> dict[str, tuple[Path, str]]:
    """Notebook and section of each model that a foreach over the section makes (`GROUP@NAME` with SECTION.NAME)."""
    written, found = from_yaml((root() / "dvc.yaml").read_text(encoding="utf-8"))["stages"], {}
    for stage in known:
        group, _, key = stage.name.partition("@")
        section = str(written[group].get("foreach"))[2:-1]  # of ${models}
        has_notebook = stage.notebook and PurePosixPath(stage.notebook).stem == key
        if key and has_notebook and f"{section}.{key}" in stage.sections:
            found[key] = root() / stage.notebook, section
    return found


def _renamed(like: Path, pattern: str, name: str) -> str:
    """The notebook `like` with its name replaced in strings and ids, and an opening that asks for a hypothesis."""
    content = source.strip(source.read(like))
    for cell in content["cells"]:
        cell["id"] = re.sub(rf"\b{pattern}\b", name, cell["id"])
        if cell["cell_type"] == "code":
            cell["source"] = with_name(source.code(cell), pattern, name)
    if content["cells"][0]["cell_type"] != "markdown":
        content["cells"].insert(0, {"cell_type": "markdown", "id": f"{name}-story", "metadata": {}})
    content["cells"][0]["source"] = (
        f"# {name}\n\n> What should it do better than {pattern}?\n\n**Hypothesis.** To be written: what is new in this "
        f"model, and what it should change, with a number. So far it is the model of `{like.name}`."
    )
    return source.text(content)


def with_name(code: str, old: str, new: str) -> str:
    """A cell's `code` with the model's name `old` replaced in its strings. What is code stays (`from sklearn import
    svm`), as does the value of an option (`kernel="linear"`), unless that is called `name`."""
    starts = [0, *itertools.accumulate(len(line) for line in code.splitlines(keepends=True))]
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):  # a magic, say
        return code
    depth, strings = 0, []
    for place, token in enumerate(tokens):
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        is_option = depth and tokens[place - 1].string == "=" and tokens[place - 2].string != "name"
        if tokenize.tok_name[token.type] in ("STRING", "FSTRING_MIDDLE") and not is_option:
            strings.append(token)
    for token in reversed(strings):
        start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        is_format = re.match(r"\w*[fF]", token.string) and token.type == tokenize.STRING  # before Python 3.12
        inner = rf"\{{[^{{}}]*\}}|\b{old}\b" if is_format else rf"\b{old}\b"
        replaced = re.sub(inner, lambda match: match[0] if match[0].startswith("{") else new, code[start:end])
        code = code[:start] + replaced + code[end:]
    return code


def adopt(run: str, yes: bool, model: str = "") -> int:
    """Take the parameters of an MLflow run into params.yaml, after a look at the change; 1 if the answer was no.

    `run` is its id, `last` for the newest finished exploration, or `best` for the best trial of the newest sweep, of
    `model` if it is named.
    """
    recorded = _recorded(_best_of_sweep(model) if run == "best" else run)
    run_id, name, words = recorded.info.run_id, recorded.data.tags.get("notebook"), recorded.data.params
    with dag.opened(root()) as repo:
        known = {stage.short: root() / stage.notebook for stage in dag.read(repo).values() if stage.notebook}
    if name not in known:
        raise UserError(f"Run {run_id} is one of the notebook {name}, which is none of the stages in dvc.yaml.")
    notebook, path = known[name], root() / "params.yaml"
    content = _restored(notebook)
    declared = schema.declared_in(content["cells"], schema.shown(notebook))
    restored, before = source.text(content), path.read_text(encoding="utf-8")
    after = with_values(before, _typed(declared, words, run_id))
    edited = restored != source.text(source.strip(source.read(notebook)))
    if run == "last":
        _refuse_other_values(notebook, words, run_id)
    if before == after:
        print(f"params.yaml holds the values of run {run_id} ({name}) already.")
    elif approved(before, after, "params.yaml", yes):
        write_whole(path, after)
        print(f"params.yaml has the values of run {run_id} now: nbproof run trains {name} with them.")
    else:
        print("Nothing was changed.")
        return 1
    if edited:
        write_whole(notebook, restored)
        print(f"{schema.shown(notebook)} reads its values from params.yaml again; where it is open, reload it from "
              "disk (File menu).")
    return 0


def _restored(notebook: Path) -> dict:
    """The source of `notebook` with its parameters read from params.yaml again."""
    content, where = source.strip(source.read(notebook)), schema.shown(notebook)
    codes = [source.code(cell) for cell in content["cells"] if cell["cell_type"] == "code"]
    try:
        holders = {name: vars(section(key)) for name, key in schema.sections_of(codes).items()}
        for cell in filter(schema.is_tagged, content["cells"]):
            cell["source"] = with_parameters_restored(source.code(cell), holders, where)
    except KeyError as error:
        raise UserError(f"{error.args[0]}, which {where} reads.") from None
    except SyntaxError as error:
        raise UserError(f"{where}: line {error.lineno} of the parameters cell is not Python: {error.msg}.") from None
    return content


def with_parameters_restored(code: str, holders: dict[str, dict], where: str) -> str:
    """A parameters cell's `code` with `lr: float = P.lr` again wherever an exploration has put a value; comments stay.

    `holders` has each variable (`P`) with the values of its section.
    """
    content = code.encode()
    starts = [0, *itertools.accumulate(map(len, content.splitlines(keepends=True)))]
    for line in reversed(ast.parse(code).body):
        match line:
            case ast.AnnAssign(value=ast.Attribute(ast.Name(variable))) if variable in holders:
                continue
            case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                having = [variable for variable, values in holders.items() if name in values]
                if len(having) != 1:
                    raise UserError(f"{where}: {len(having)} of the sections that it reads have {name}, so write that "
                                  f"line as it was, such as `{name}: {ast.unparse(line.annotation)} = P.{name}`.")
                start = starts[value.lineno - 1] + value.col_offset
                end = starts[value.end_lineno - 1] + value.end_col_offset
                content = content[:start] + f"{having[0]}.{name}".encode() + content[end:]
    return content.decode()


def _refuse_other_values(notebook: Path, words: dict[str, str], run_id: str) -> None:
    """UserError where the parameters cell holds values that the newest finished run did not have: it is another one."""
    for cell in filter(schema.is_tagged, source.read(notebook)["cells"]):
        for line in ast.parse(source.code(cell)).body:
            with contextlib.suppress(ValueError, AttributeError):  # P.name, or computed: nothing to compare with
                key, value = line.target.id, ast.literal_eval(line.value)
                if words.get(key) != str(value):
                    raise UserError(f"{schema.shown(notebook)} says {key} = {value}, its newest finished run "
                                  f"({run_id}) had {words.get(key, 'none')}: run the notebook to its end first, or "
                                  f"name the run that you mean (nbproof adopt {run_id}).")


def _typed(declared: dict[str, schema.Parameter], words: dict[str, str], run_id: str) -> dict:
    """A run's parameters by their keys in params.yaml. MLflow keeps them as text; the notebook declares their types."""
    logged = {declared[name].section for name in words if name in declared}  # a shared section may not be logged
    if set(words) != {name for name, each in declared.items() if each.section in logged}:
        raise UserError(f"Run {run_id} has the parameters {', '.join(sorted(words)) or 'none'}; its notebook now has "
                      f"{', '.join(sorted(declared)) or 'none'}.")
    values: dict = {}
    for name in words:
        each, value = declared[name], words[name]
        if not each.type.startswith("str") or value == "None" and each.accepts(None):
            with contextlib.suppress(ValueError, SyntaxError):  # then it stays text, which is not accepted
                value = ast.literal_eval(words[name])
        if not each.accepts(value):
            raise UserError(f"Run {run_id}: {name} must be {each.expected}, found {words[name]!r}.")
        values[each.key] = value
    return values


def _best_of_sweep(model: str) -> str:
    """The MLflow id of the best trial of the newest finished sweep, of `model` where it is named."""
    notes = sorted((root() / "scratch/sweeps").glob("*/best.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for each in (json.loads(note.read_text(encoding="utf-8")) for note in notes):
        if model in ("", each["model"]):
            return each["run_id"]
    raise UserError(f"There is no finished sweep{f' of {model}' if model else ''} here: nbproof sweep makes one.")


def _recorded(run: str):
    """MLflow's run with the id `run`, or for `last` the newest finished exploration on this machine."""
    from mlflow.exceptions import MlflowException

    local = tracking.client(tracking.local_address())
    if run == "last":
        experiment = tracking.experiment(local, store=tracking.local_address())
        found = local.search_runs([experiment], "attributes.status = 'FINISHED'", max_results=1)  # the newest first
        if not found:
            raise UserError("There is no run to adopt yet: run a notebook in JupyterLab (nbproof lab) to its end first.")
        return found[0]
    try:
        with contextlib.suppress(MlflowException):  # a server may have it
            return local.get_run(run)
        return tracking.client().get_run(run)
    except MlflowException as error:
        recent = [f"{each.info.run_id} ({each.data.tags.get('notebook')})" for each in tracking.runs(local, "")[-5:]]
        known = f" The newest here: {', '.join(reversed(recent))}." if recent else ""
        raise UserError(f"MLflow does not give run {run!r}: {tracking.without_credentials(str(error))}{known}") from None
