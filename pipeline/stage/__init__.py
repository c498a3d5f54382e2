"""One notebook as one stage: parameters checked, every cell executed, the executed copy and its page written.

Everything in this folder shapes a stage's outputs, so every stage depends on it; keep out of it what does not.
"""

import importlib
import os
import sys
import threading
import time

from pipeline import ROOT, Refused
from pipeline.stage import parameters, source
from pipeline.stage.files import write_whole


def run_stage(name: str) -> int:
    """Execute notebooks/NAME.ipynb with its section of params.yaml into reports/NAME.ipynb and .html; 0 if every cell ran to its end."""
    started = time.monotonic()
    timeout = _cell_timeout()
    notebook, values = parameters.checked(name)
    source.strip_file(notebook)
    # jsonschema asks for this package to check addresses, which no notebook has, and it compiles a grammar for a second
    sys.modules.setdefault("rfc3987_syntax", None)
    import nbformat  # these are slow to import, and not needed to refuse a bad parameter

    from pipeline.stage import execute

    threading.Thread(target=importlib.import_module, args=["pipeline.stage.page"]).start()  # while the kernel starts
    executed, failure = execute.execute(notebook, values, cell_timeout=timeout)
    from pipeline.stage import page

    said = f"{name}: {notebook.relative_to(ROOT).as_posix()} failed at {failure}"
    try:
        write_whole(ROOT / "reports" / f"{name}.ipynb", nbformat.writes(executed) + "\n")
        write_whole(ROOT / "reports" / f"{name}.html", page.render(executed))
    except OSError as error:
        also = f"{said}\n" if failure else ""
        raise Refused(f"{also}{name}: its reports could not be written ({error.strerror}); make room and run again, or bring the last "
                      "results back by dvc checkout --force.") from None
    if failure:
        print(said, file=sys.stderr, flush=True)
        return 1
    print(f"{name}: every cell ran, {time.monotonic() - started:.1f} s -> reports/{name}.html", flush=True)
    return 0


def _cell_timeout() -> float:
    """The seconds that one cell may take: CELL_TIMEOUT, or an hour."""
    given = os.environ.get("CELL_TIMEOUT") or "3600"
    try:
        if (seconds := float(given)) > 0:
            return seconds
    except ValueError:
        pass
    raise Refused(f"CELL_TIMEOUT must be a number of seconds above 0, found {given!r}.")
