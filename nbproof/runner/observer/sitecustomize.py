"""Notes which files of the project a Python process opens: an audit hook (PEP 578).

The kernel imports this, and any Python that it starts, by PYTHONPATH and the name of this module:
it may be another Python without nbproof. Each process appends what is new to one file, a line each:
`r PATH` for read, `w PATH` for written, `d PATH` for a database of SQLite.
"""

import os
import sys

LOG = "NBPROOF_OBSERVED"  # the variable with the file's name
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
seen = set()  # lines that this process has written, or inherited by a fork


def install(log, project):
    """Append to the file `log` what this process opens below the folder `project`."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    below, environment = project + os.sep, sys.prefix + os.sep

    def note(kind, path):
        try:
            name = os.path.join(os.getcwd(), os.fsdecode(path))  # noqa: PTH109, PTH118 - it is hot
        except (TypeError, ValueError, OSError):  # a number of an open file; the folder is gone
            return
        if not name.startswith(below) or name.startswith(environment):
            return
        line = kind + " " + os.path.normpath(name) + "\n"
        if line not in seen:
            seen.add(line)
            # A folder is opened for writing to make a temporary file without a name.
            if kind == "w" and os.path.isdir(name):  # noqa: PTH112
                return
            os.write(file, line.encode("utf-8", "surrogateescape"))

    def hook(event, arguments):
        # A process raises thousands of events, hence the name first. Whatever goes wrong here
        # would be the error of somebody's cell.
        if event == "open":
            note("w" if arguments[2] & WRITES else "r", arguments[0])
        elif event == "os.rename":  # also os.replace: the file appears under its second name
            note("w", arguments[1])
        elif event == "sqlite3.connect":
            note("d", arguments[0])

    sys.addaudithook(hook)


def pass_on():
    """Import the `sitecustomize` that this one hides, if there is one."""
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - for any Python
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != folder]  # noqa: PTH100
    hidden = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # noqa: F401
    except ImportError:
        sys.modules["sitecustomize"] = hidden


if __name__ == "sitecustomize" and LOG in os.environ:
    install(os.environ[LOG], os.environ["NBPROOF_PROJECT"])
    pass_on()
