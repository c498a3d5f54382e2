"""A notebook of the project that reads the server's log: executed beside the pipeline, with a page of its own."""

from pathlib import Path

from nbproof.notebook import served
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.runner import cell_timeout, schema, secrets


def check(name: str) -> None:
    """UserError where the project has no notebook of that place, or there is no log."""
    if not (root() / name).is_file():
        raise UserError(f"This project has no {name}: docs/contract.md says what it reads and writes.")
    served.path()


def run(name: str, page_name: str, output_root: Path) -> str:
    """Execute the notebook with its outputs below `output_root`, and write its page; the failure, empty without one."""
    notebook = root() / name
    values, timeout = schema.values_of(notebook), cell_timeout()
    from nbproof.runner import html as html_page  # both are slow to import, and not needed to refuse
    from nbproof.runner.execute import execute

    executed, failure = execute(notebook, values, timeout, output_root)
    failure = secrets.take_out(executed) or failure
    write_whole(root() / page_name, html_page.render(executed, notebook.parent, notebook.stem))
    return str(failure or "")
