"""Every result is hashed again: damage in the folder and in DVC's cache is named and mended."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from nbproof.pipeline import dag, verify


def cached(folder: Path, text: str) -> Path:
    """The cache's copy of the content `text`."""
    md5 = hashlib.md5(text.encode()).hexdigest()
    return folder / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]


def damage(file: Path) -> None:
    """Change a byte; size, time and rights stay as they were, so that DVC sees nothing."""
    times, content = file.stat(), bytearray(file.read_bytes())
    content[-2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(times.st_mode)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def printed(capsys, code: int, fix: bool = False) -> list[str]:
    """What verify prints, without its last line where that is advice."""
    assert verify.verify(fix) == code
    lines = capsys.readouterr().out.splitlines()
    return lines[:-1] if code else lines


def test_before_any_run(small, capsys):
    for name in ("data", "models", "metrics"):
        shutil.rmtree(small / name)
    assert verify.verify() == 1
    assert capsys.readouterr().out.startswith("There are no results here yet: ")


def changed(folder: Path) -> set[str]:
    """The stages that DVC calls changed."""
    with dag.opened(folder) as repo:
        return dag.changed(repo, dag.read(repo))


def test_all_is_well_and_no_time_is_touched(small, capsys):
    files = [path for path in small.rglob("*") if path.is_file() and ".dvc/tmp" not in str(path)]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert printed(capsys, 0) == ["All 3 results are the ones that dvc.lock records."]
    assert before == {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("change, problem", [
    (lambda at: damage(at / "models/m.csv"), "models/m.csv: not what dvc.lock records"),
    (lambda at: damage(at / "data/table/2.csv"), "data/table: not what dvc.lock records"),
    (lambda at: (at / "metrics/m.json").unlink(), "metrics/m.json: missing"),
    (lambda at: (at / "data/table/1.csv").unlink(), "data/table: not what dvc.lock records"),
    (lambda at: (at / "data/table").rename(at / "data/other"), "data/table: missing"),
    (lambda at: (at / "data/table/mine.csv").touch(), "data/table: not what dvc.lock records"),
])
def test_what_is_wrong_with_a_result_is_named_and_seen_by_dvc_after_a_fix(
        small, capsys, change, problem):
    change(small)
    assert printed(capsys, 1) == [problem]
    assert printed(capsys, 1, fix=True) == [problem]  # a run brings it back, from the cache
    assert changed(small), "DVC, which looks at size and time, sees it now"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("copy, result", [
    (lambda at: cached(at, "model\n"), "models/m.csv"),
    (lambda at: cached(at, "one\n"), "data/table/1.csv"),
    (lambda at: next(at.glob(".dvc/cache/files/md5/*/*.dir")), "data/table/1.csv"),
])
def test_a_damaged_copy_in_the_cache_is_restored_from_a_whole_folder_or_removed(
        small, capsys, copy, result, whole):
    copy, content = copy(small), copy(small).read_bytes()
    damage(copy)
    earlier = cached(small, "a result of an earlier run")
    earlier.parent.mkdir()
    earlier.write_text("damaged")
    names = [path.relative_to(small).as_posix() for path in sorted([copy, earlier])]
    assert printed(capsys, 1)[:2] == [f"{name}: DVC's file is damaged" for name in names]
    if not whole:
        (small / result).unlink()
    assert printed(capsys, 0 if whole else 1, fix=True)[:2] == [
        f"{name}: DVC's file was damaged and is removed" for name in names]
    assert not earlier.exists() and copy.exists() == whole
    assert not whole or copy.read_bytes() == content
    assert bool(changed(small)) != whole


def test_results_that_were_never_recorded(small, capsys):
    (small / "dvc.lock").unlink()
    assert printed(capsys, 1) == [f"{stage}: dvc.lock does not record its results"
                                  for stage in ("data", "m")]
