"""Notebooks in git: diffs and merges by cells, and commits of source alone. Set up in this clone only, and taken away by `unset`.

.gitattributes names the drivers; git knows them from the clone's own configuration and falls back to lines of text without it.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from pipeline import ROOT, Refused
from pipeline.environment import PYTHON

MARK = "# Written by `python -m pipeline setup`; `python -m pipeline git --remove` takes it away."
HOOK = f"""\
#!/bin/sh
{MARK}
# What is committed of a notebook is its source. Without .venv, or in a commit without this code, nothing is done.
[ -x {{python}} ] && [ -f pipeline/git.py ] || exit 0
git diff --cached --quiet --diff-filter=ACMR -- 'notebooks/*.ipynb' && exit 0
exec {{python}} -m pipeline git --staged
"""
DRIVERS = {
    "diff.jupyternotebook.command": "{nbdime}.diffdriver diff",
    "merge.jupyternotebook.name": "notebooks, cell by cell",
    "merge.jupyternotebook.driver": "{nbdime}.mergedriver merge %O %A %B %L %P",
}


def _git(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *arguments], cwd=ROOT, input=data, capture_output=True)


def _hook() -> Path | None:
    """Where git looks for this clone's pre-commit hook; None where that is not this clone's own folder, or not git."""
    asked = _git("rev-parse", "--show-prefix", "--git-path", "hooks/pre-commit")
    if asked.returncode or asked.stdout.startswith(b"\n") is False or _git("config", "core.hooksPath").stdout.strip():
        return None
    return ROOT / asked.stdout.decode().strip()


def set_up(python: Path = PYTHON) -> None:
    """Make the drivers known to git in this clone, and put the commit hook where there is none. What a user has set stays."""
    if os.environ.get("CI") or _git("rev-parse", "--git-dir").returncode:
        return
    for key, value in DRIVERS.items():
        known = _git("config", "--local", key).stdout.decode().strip()
        wanted = value.format(nbdime=f"{shlex.quote(python.as_posix())} -m nbdime.vcs.git")
        if known != wanted and (not known or "nbdime.vcs.git" in known):
            _git("config", "--local", key, wanted)
    hook = _hook()
    if hook and (not hook.exists() or MARK in hook.read_text(encoding="utf-8", errors="replace")):
        hook.parent.mkdir(parents=True, exist_ok=True)
        hook.write_text(HOOK.format(python=_shown(python)), encoding="utf-8", newline="\n")
        hook.chmod(0o755)
    else:
        print("git: your own commit hook stays as it is; to have notebooks stripped, add to it: .venv/bin/python -m pipeline git --staged", flush=True)


def _shown(python: Path) -> str:
    """`python` for the hook, relative to the work tree where it is inside: linked work trees share the hook, not the environment."""
    return shlex.quote(python.relative_to(ROOT).as_posix() if python.is_relative_to(ROOT) else python.as_posix())


def unset() -> int:
    """Take away what `set_up` did."""
    for section in ("diff.jupyternotebook", "merge.jupyternotebook"):
        _git("config", "--local", "--remove-section", section)
    hook = _hook()
    if hook and hook.exists() and MARK in hook.read_text(encoding="utf-8", errors="replace"):
        hook.unlink()
    print("git treats notebooks as text again, in this clone.")
    return 0


def strip_staged() -> int:
    """Strip the notebooks that are about to be committed, in the index and, where a file is there, on the disk."""
    from pipeline.stage import source

    listed = _git("diff", "--cached", "--name-only", "-z", "--diff-filter=ACMR", "--", "notebooks/*.ipynb").stdout.decode()
    for name in filter(None, listed.split("\0")):
        mode = _git("ls-files", "--stage", "--", name).stdout.decode().split()[0]
        before = _git("show", f":{name}").stdout
        try:
            after = source.stripped(before.decode()).encode()
        except (ValueError, KeyError) as error:
            raise Refused(f"{name} is not a notebook and was not committed: {' '.join(str(error).split())[:200]}") from None
        if before != after:
            blob = _git("hash-object", "-w", "--stdin", data=after).stdout.decode().strip()
            _git("update-index", "--cacheinfo", f"{mode},{blob},{name}")
            print(f"{name}: outputs taken out, the source is committed.", file=sys.stderr)
        if (ROOT / name).exists():
            source.strip_file(ROOT / name)
    return 0
