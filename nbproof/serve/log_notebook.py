"""A notebook that reads the server's log: executed beside the pipeline, with its own page."""

from pathlib import Path

from nbproof.notebook import served
from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root, write_whole
from nbproof.pipeline.stage import cell_timeout, print_event
from nbproof.runner import html, reaper, schema, secrets
from nbproof.runner.execute import execute_notebook


def check(name: str) -> None:
    """Raise UserError where the project has no such notebook, or there is no log."""
    if not (root() / name).is_file():
        raise UserError(f"This project has no {name}: docs/contract.md says what it reads and writes.")
    served.path()


def run(name: str, page: str, output_root: Path) -> str:
    """Execute the notebook with its outputs below `output_root`, write its page; return why it failed."""
    notebook = root() / name
    values = schema.values_of(notebook)
    with reaper.session() as session:
        executed, failure = execute_notebook(
            notebook, values, cell_timeout(), output_root, lambda event: print_event(notebook.stem, event),
            {reaper.MARK: session.mark()}, session.folder)
    reason = secrets.take_out(executed) or str(failure or "")
    write_whole(root() / page, html.render(executed, notebook.parent, notebook.stem))
    return reason
