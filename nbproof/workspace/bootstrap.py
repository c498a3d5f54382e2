"""`python3 bootstrap.py [.venv LOCK ...]`: install locks. Python 3.8 must be able to read this."""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BIN, PYTHON = ("Scripts", "Scripts/python.exe") if os.name == "nt" else ("bin", "bin/python")


def set_up(root, name, locks):
    """Install what `locks` list, and nothing else, into root/NAME if it lacks them; return it."""
    venv, note = root / name, root / name / "installed.txt"
    search = os.pathsep.join([str(venv / BIN), str(root / ".venv" / BIN), os.environ["PATH"]])
    if venv.is_symlink():
        sys.exit(f"{venv} is a symbolic link and must be a folder: remove the link.")
    with (root / locks[0]).open("a") as file:
        if os.name != "nt":
            import fcntl
            os.set_inheritable(file.fileno(), True)  # uv still holds the lock if this is killed
            fcntl.flock(file, fcntl.LOCK_EX)  # one set-up at a time
        sums = [hashlib.md5((root / lock).read_bytes()).hexdigest() for lock in locks]
        known = note.read_text().splitlines() if (venv / PYTHON).exists() and note.exists() else []
        if known[:1] != [str(venv)]:  # not there, half-made, or moved: its programs hold its path
            run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)])
        elif set(sums) <= set(known):
            return venv
        print(f"Installing {', '.join(locks)} into {name}: some minutes at first", flush=True)
        note.write_text("")  # half-made until the last line
        if not shutil.which("uv", path=search):
            pip = [sys.executable, "-m", "pip", "--python", str(venv / PYTHON), "install"]
            run([*pip, "--quiet", "--requirement", str(root / "requirements/uv.txt")])
        quiet = () if sys.stderr.isatty() else ["-q"]
        uv = [shutil.which("uv", path=search), "pip", "sync", *quiet, "-p", str(venv / PYTHON)]
        set_index()
        run([*uv, *locks], cwd=str(root))
        note.write_text("\n".join([str(venv), *sums]))
    return venv


def set_index():
    """Let uv, whose settings are environment variables, use the index and certificate of pip."""
    python = shutil.which("python3", path=f"{sys.base_prefix}/{BIN}") or sys.executable
    for name, key in (("UV_DEFAULT_INDEX", "index_url"), ("SSL_CERT_FILE", "cert")):
        pip = [python, "-m", "pip", "config", "get", "global." + key.replace("_", "-")]
        read = subprocess.run(pip, capture_output=True).stdout.decode().strip()
        if value := os.environ.get("PIP_" + key.upper(), read):
            os.environ.setdefault(name, value)


def run(command, **options):
    if subprocess.run(command, close_fds=False, **options).returncode:
        sys.exit(f"{' '.join(command[:4])} failed, see above. Then run the same again.")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - ruff trusts pyproject.toml, python3 does not
        sys.exit("Python 3.11 or newer is needed, for example: make run PYTHON=python3.12")
    set_up(Path.cwd(), *(sys.argv[1:2] or [".venv"]), sys.argv[2:] or ["requirements.txt"])
