"""`python3 environment.py COMMAND ...` makes the project's own Python, .venv, and runs `nbproof COMMAND ...` there.

    setup [--tests] [--sweep] [--serve [--ray]]   only make it
    tool [--tests] [--sweep] -- PROGRAM ...     run a program of it, with the words of the variable ARGS

.venv holds exactly what requirements.txt locks; some commands add requirements-sweep.txt or requirements-dev.txt.
`serve` has a small environment of its own, .venv-serve, which holds what requirements-serve.txt locks; with RAY_ADDRESS
it has .venv-serve-ray, which holds requirements-serve-ray.txt, too.
Projects made from the template have a copy of this file: it needs the standard library only. An old Python must be able
to read it, to tell its user that it is too old: keep to the syntax of 3.8.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

RUN, SWEEP, TESTS = "requirements.txt", "requirements-sweep.txt", "requirements-dev.txt"
REVIEW = "requirements-review.txt"  # instead of all of them, where nothing is trained: the variable NBPROOF_REVIEW
CPU = "requirements-cpu.txt"  # instead of RUN, with PyTorch's build for processors alone: the variable NBPROOF_CPU
SERVE, SERVING = "requirements-serve.txt", ".venv-serve"
SERVE_RAY, SERVING_RAY = "requirements-serve-ray.txt", ".venv-serve-ray"  # where one machine ends: RAY_ADDRESS
WINDOWS = os.name == "nt"
BIN, PYTHON = ("Scripts", "Scripts/python.exe") if WINDOWS else ("bin", "bin/python")
LATER = "its own words stand above. Run the same command again when the package registry can be reached."


def with_tools(prefix: Path = Path(sys.prefix)) -> dict:
    """The variables for programs that must find the python, dvc and jupyter of the environment at `prefix`.

    What a person has set for other Pythons, PYTHONPATH or PYTHONWARNINGS say, does not reach them.
    """
    path = os.pathsep.join([str(prefix / BIN), os.environ.get("PATH", "")])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(prefix)}


def locks(root: Path, words: list) -> list:
    """The requirements files of the project at `root` that the command `words` needs."""
    if os.environ.get("NBPROOF_REVIEW") and (root / REVIEW).exists():
        return [REVIEW]
    options = words[: words.index("--")] if "--" in words else words
    if words[:1] == ["serve"]:
        return serving()
    if words[:2] == ["setup", "--serve"]:
        return [SERVE, SERVE_RAY] if "--ray" in words else [SERVE]
    options = options if words[:1] in (["setup"], ["tool"]) else []
    sweep = "--sweep" in options or os.environ.get("ENGINE") == "ray"
    more = [*([SWEEP] if sweep else []), *([TESTS] if "--tests" in options else [])]
    return [_base(), *(name for name in more if (root / name).exists())]


def _base() -> str:
    """The requirements file of what runs the project."""
    return CPU if os.environ.get("NBPROOF_CPU") else RUN


def serving() -> list:
    """The requirements files that `serve` needs: those of Ray Serve, too, where the variable RAY_ADDRESS is set."""
    return [SERVE, SERVE_RAY] if os.environ.get("RAY_ADDRESS") else [SERVE]


def place(root: Path, names: list) -> Path:
    """Where the environment is that is filled from `names`."""
    return root / (SERVING_RAY if SERVE_RAY in names else SERVING if SERVE in names else ".venv")


def set_up(root: Path, names: list) -> Path:
    """Fill root/.venv (.venv-serve for SERVE) from the requirements files `names` where it is not; its place.

    A second set-up waits.
    """
    for name in names:
        if not (root / name).exists():
            sys.exit(f"{name} is not here, and this command needs it: " + (
                "make pins CPU=1 makes it, where PyTorch's own index can be reached." if name == CPU else
                "git checkout brings it."))
    venv, wanted = place(root, names), _digests(root, names).items()
    if not wanted <= (_held(venv) or {}).items():
        with (root / (SERVE if SERVE in names else RUN)).open("a") as file:  # one lock for each environment
            os.set_inheritable(file.fileno(), True)  # uv keeps the lock if this process is killed before it
            _lock(file)
            if not wanted <= (_held(venv) or {}).items():
                _fill(venv, names)
    return venv


def add(root: Path, name: str) -> None:
    """Fill root/.venv from the requirements file `name`, too, where this process runs there and set_up made it."""
    venv = root / ".venv"
    if Path(sys.prefix) == venv and _held(venv) and (root / name).exists():
        set_up(root, [_base(), name])


def serve(root: Path, words: list) -> int:
    """Run `nbproof WORDS` in the small environment of servers, which is filled where it is not; its exit code."""
    venv = set_up(root, serving())
    here = str(Path(__file__).resolve().parents[2])  # where this nbproof is, which that environment does not have
    variables = {**with_tools(venv), "PYTHONPATH": here if (Path(here) / SERVE).exists() else ""}
    command = [str(venv / PYTHON), "-m", "nbproof", *words]
    return subprocess.run(command, env=variables).returncode if WINDOWS else os.execve(command[0], command, variables)


def _digests(root: Path, names: list) -> dict:
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names}


def _held(venv: Path) -> "dict | None":
    """The digests of what `venv` was filled from; None if it is not there, half-made or moved (it holds its path)."""
    note = venv / "held"
    lines = note.read_text(encoding="utf-8").splitlines() if note.exists() else [str(venv)]
    words = [line.split() for line in lines[1:]]
    whole = lines[:1] == [str(venv)] and all(len(each) == 2 for each in words)  # a full disk cuts it short
    return dict(words) if whole and (venv / PYTHON).exists() else None


def _lock(file) -> None:
    """Wait for the lock on `file`, which closing it gives back."""
    waiting = "Waiting for another set-up in this folder.\n"
    while True:
        try:
            if WINDOWS:
                import msvcrt

                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            import fcntl

            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print(waiting, end="", flush=True)
            waiting = ""
            time.sleep(0.1)


def _fill(venv: Path, names: list) -> None:
    held = _held(venv)
    if held is None and venv.exists():
        shutil.rmtree(str(venv))
    venv.mkdir(exist_ok=True)
    (venv / "held").write_text("begun\n")  # until the end: who finds it so starts over
    if held is None:
        print(f"Making {venv.name}", flush=True)
        pip = ["--without-pip"] if shutil.which("uv") else []
        _step([sys.executable, "-m", "venv", *pip, str(venv)], f"Python could not make {venv.name}, its own words "
              "stand above (on Debian and Ubuntu, apt install python3-venv helps).")
    names = sorted({*names, *_kept(venv.parent, held or {}, names)})
    note = "\n".join([str(venv), *map(" ".join, _digests(venv.parent, names).items()), ""])
    print(f"Installing {', '.join(names)} into {venv.name}; the first time can take some minutes", flush=True)
    uv = [_uv(venv), "pip", "sync", "--quiet", "--python", str(venv / PYTHON), *names]
    build = {"UV_TORCH_BACKEND": "cpu"} if CPU in names else {}
    _step(uv, "uv could not install the packages, " + LATER, cwd=str(venv.parent), env={**_as_pip(), **build})
    (venv / "held").write_text(note, encoding="utf-8")
    if venv.name in (SERVING, SERVING_RAY):
        print(f"{venv.name} holds {_size(venv) / 1e6:.0f} MB", flush=True)


def _kept(root: Path, held: dict, names: list) -> list:
    """What an environment that `held` this keeps for other commands; of two builds of PyTorch it has one."""
    other = {RUN: CPU, CPU: RUN}
    gone = {other[name] for name in names if name in other}
    return [name for name in held if name not in gone and (root / name).exists()]


def _size(folder: Path) -> int:
    """The bytes of all files in `folder`, each counted once."""
    facts = [file.lstat() for file in folder.rglob("*")]
    return sum({(each.st_dev, each.st_ino): each.st_size for each in facts}.values())


def _uv(venv: Path) -> str:
    """The program uv: the environment's, else the user's, else the locked one, which pip installs."""
    inside = str(venv / BIN / "uv")
    found = shutil.which(inside) or shutil.which(str(venv.parent / ".venv" / BIN / "uv")) or shutil.which("uv")
    if not found:
        pin = re.search(r"^uv==(?:.*\\\n)*.*$", (venv.parent / RUN).read_text(encoding="utf-8"), re.MULTILINE)
        (venv / "uv.txt").write_text(pin.group() if pin else "uv", encoding="utf-8")
        pip = [str(venv / PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        _step([*pip, "-r", str(venv / "uv.txt")], "pip could not install uv, " + LATER)
    return found or inside


def _as_pip() -> dict:
    """The variables for uv, which does not read pip's settings: the registry and the certificates that pip uses."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    found = {key: re.search(rf"^.*[.]{key}='(.+)'$", listed, re.MULTILINE) for key in ("index-url", "cert")}
    known = {"UV_DEFAULT_INDEX": found["index-url"], "SSL_CERT_FILE": found["cert"]}
    return {**{name: match.group(1) for name, match in known.items() if match}, **os.environ}


def _step(command: list, otherwise: str, **options) -> None:
    if subprocess.run(command, close_fds=False, **options).returncode:
        sys.exit(otherwise)


def main(words: list) -> int:
    """Set up, then become the command; see the first lines of this file."""
    if sys.version_info < (3, 11):  # noqa: UP036 - ruff trusts pyproject.toml, a user's python3 does not read it
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: install one and name it "
                 "(make PYTHON=python3.12 run).")
    root = next(folder for folder in Path(__file__).resolve().parents if (folder / RUN).exists())
    if words[:1] == ["run"] and not any((folder / ".git").exists() for folder in (root, *root.parents)):
        sys.exit("DVC needs a git repository, and this folder is in none (a ZIP download, say): git init makes one, "
                 "then run again.")  # before gigabytes are installed
    venv = set_up(root, locks(root, words))
    if words[:1] == ["setup"]:
        return 0
    clean = with_tools(venv)
    os.environ.clear()
    os.environ.update(clean)
    tool = words[:1] == ["tool"] and "--" in words[:-1]
    command = words[words.index("--") + 1 :] if tool else [str(venv / PYTHON), "-m", "nbproof", *words]
    if tool or words[:1] == ["lab"]:
        command += shlex.split(os.environ.pop("ARGS", ""))
    if WINDOWS:  # which has no exec that the console waits for
        return subprocess.run([shutil.which(command[0]) or command[0], *command[1:]]).returncode
    return os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
