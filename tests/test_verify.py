"""Every result hashed again: damage in the folder and in DVC's cache is found, named and put right."""

import json
import os
import shutil
from pathlib import Path

import pytest
from projects import command, commit, edit_params, nbproof, results, stages_run
from ruamel.yaml import YAML

from nbproof.pipeline import verify
from nbproof.pipeline.dag import opened


@pytest.fixture
def place(finished, inside) -> Path:
    """A copy of the finished tiny project, in which this process works."""
    return inside(finished)


def verified(capsys) -> tuple[int, list[str]]:
    """The exit code of `nbproof verify`, and what it says."""
    code = verify.verify()
    return code, capsys.readouterr().out.splitlines()


def healed(place: Path) -> list[str]:
    with opened(place) as repo:
        return verify.heal_cache(repo)


def cached(place: Path, name: str) -> Path:
    """The cache's copy of an output, or of a file in the folder data/table; of the folder itself it is its list."""
    recorded = YAML(typ="safe").load((place / "dvc.lock").read_text())["stages"]
    sums = {out["path"]: out["md5"] for stage in recorded.values() for out in stage["outs"]}
    if name.startswith("data/table/"):
        listed = json.loads(cached(place, "data/table").read_text())
        sums[name] = next(each["md5"] for each in listed if each["relpath"] == Path(name).name)
    return place / ".dvc" / "cache" / "files" / "md5" / sums[name][:2] / sums[name][2:]


def damage(file: Path) -> bytes:
    """Cut a cache file short but leave it read-only, as DVC trusts it; what it held."""
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:3])
    file.chmod(0o444)
    return whole


def test_all_is_well(place, capsys):
    assert verified(capsys) == (0, ["All 20 results are the ones that dvc.lock records."])
    assert healed(place) == []


BYTES = "its bytes are not those that dvc.lock records (dvc checkout --force {}, or make run)"
MISSING = "missing (dvc checkout, dvc pull or make run brings it back)"


@pytest.mark.parametrize("change, said", [
    (lambda place: (place / "models/near.csv").write_text("x"), f"models/near.csv: {BYTES.format('models/near.csv')}"),
    (lambda place: (place / "metrics/far.json").write_text("{}"),
     "metrics/far.json: its bytes are not those that dvc.lock records (git checkout metrics/far.json, or make run)"),
    (lambda place: (place / "metrics/far.json").unlink(),
     "metrics/far.json: missing (git checkout or make run brings it back)"),
    (lambda place: (place / "reports/far.html").unlink(), f"reports/far.html: {MISSING}"),
    (lambda place: (place / "data/table/5.csv").write_text("x"), f"data/table/5.csv: {BYTES.format('data/table')}"),
    (lambda place: (place / "data/table/5.csv").unlink(), f"data/table/5.csv: {MISSING}"),
    (lambda place: shutil.rmtree(place / "data/table"), f"data/table: {MISSING}"),
    (lambda place: (place / "data/table/strange").touch(),
     "data/table/strange: no result, and lies in the folder of one"),
    (lambda place: damage(cached(place, "models/near.csv")),
     "models/near.csv: its copy in DVC's cache is damaged (make run replaces it)"),
    (lambda place: damage(cached(place, "data/table/5.csv")),
     "data/table/5.csv: its copy in DVC's cache is damaged (make run replaces it)"),
    (lambda place: damage(cached(place, "data/table")),
     "data/table: the list of its files in DVC's cache is missing or damaged (make run)"),
])
def test_what_is_damaged_is_named(place, capsys, change, said):
    change(place)
    assert verified(capsys) == (1, [said])


def flip(path: Path) -> None:
    """Change the last byte but one; size and time stay as they were."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(times.st_mode)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name, words", [
    ("data/table/5.csv", ["dvc", "checkout", "--force", "data/table"]),
    ("data/table/5.csv", ["nbproof", "run"]),
    ("metrics/far.json", ["git", "checkout", "metrics/far.json"]),
    ("metrics/far.json", ["nbproof", "run"]),
])
def test_a_flipped_byte_of_the_same_size_and_time(place, capsys, name, words):
    """DVC's own `dvc status` looks at size and time only; what verify advises puts it right."""
    before, output = results(place), "data/table" if name.startswith("data/table") else name
    assert command(place, "dvc", "status").stdout == "Data and pipelines are up to date.\n"
    flip(place / name)
    advice = BYTES.format(output)
    advice = advice if output == "data/table" else advice.replace("dvc checkout --force", "git checkout")
    assert verified(capsys) == (1, [f"{name}: {advice}"])
    done = command(place, *words)
    assert done.returncode == 0 and results(place) == before, done.stdout
    assert verified(capsys)[0] == 0


@pytest.mark.parametrize("words", [
    [["dvc", "checkout"], ["git", "checkout", "metrics/far.json"]], [["nbproof", "run"]]], ids=["checkout", "run"])
def test_what_is_missing_comes_back_as_verify_advises(place, capsys, words):
    before = results(place)
    for name in ("models/near.csv", "reports/far.html", "metrics/far.json"):
        (place / name).unlink()
    shutil.rmtree(place / "data" / "table")
    code, said = verified(capsys)
    assert code == 1 and len(said) == 4 and all("missing" in line for line in said)
    done = [command(place, *each) for each in words]
    assert results(place) == before and verified(capsys)[0] == 0, [each.stdout for each in done]


def test_a_run_reads_no_cached_file_twice_and_verify_reads_all(place, capsys):
    """A run trusts size and time, as DVC does; verify does not, and its advice holds."""
    assert healed(place) == []
    copy = cached(place, "models/near.csv")
    whole = copy.read_bytes()
    flip(copy)
    assert healed(place) == []
    assert verified(capsys) == (1, ["models/near.csv: its copy in DVC's cache is damaged (make run replaces it)"])
    assert "the file itself is whole and took its place" in nbproof(place, "run").stdout
    assert copy.read_bytes() == whole and verified(capsys)[0] == 0


def test_what_was_never_made(place, capsys):
    (place / "dvc.lock").unlink()
    code, said = verified(capsys)
    assert code == 1 and "train@near: dvc.lock does not record its results (make run makes them)" in said


@pytest.mark.parametrize("name", ["models/near.csv", "data/table/5.csv", "data/table"])
@pytest.mark.parametrize("file_is_there", [True, False])
def test_a_damaged_cache_is_never_used(place, capsys, name, file_is_there):
    whole, output = damage(cached(place, name)), "data/table" if name.startswith("data/table") else name
    file = place / ("data/table/5.csv" if output == "data/table" else name)
    copy = cached(place, name)
    if file_is_there:
        whole_again = f"The cache's copy of {output} was damaged; the file itself is whole and took its place."
        assert healed(place) == [whole_again]
        assert copy.read_bytes() == whole and verified(capsys)[0] == 0
    else:
        file.unlink()
        said = healed(place)
        assert said == [f"The cache's copy of {output} was damaged and is removed; the stage makes it again."]
        assert not copy.exists()


def test_a_run_puts_a_damaged_folder_right(finished):
    """The file, its cache's copy: all from the stage again, whose other results stay what they were."""
    before = results(finished)
    damage(cached(finished, "data/table/5.csv"))
    (finished / "data" / "table" / "5.csv").unlink()
    done = nbproof(finished, "run")
    assert done.returncode == 0 and stages_run(done.stdout) == {"data"}, done.stdout
    assert "The cache's copy of data/table was damaged and is removed; the stage makes it again." in done.stdout
    assert results(finished) == before and nbproof(finished, "verify").returncode == 0
    assert command(finished, "git", "status", "--short").stdout == ""


@pytest.mark.parametrize("name", ["models/near.csv", "data/table/5.csv", "data/table"])
def test_a_damaged_earlier_result_is_never_used(place, name):
    """DVC restores what it ran before without looking at it: back to a former parameter, with that result damaged."""
    copy, output = cached(place, name), "data/table" if name.startswith("data/table") else name
    whole = damage(copy)
    commit(place)
    lock = YAML(typ="safe").load((place / "dvc.lock").read_text())
    for stage in lock["stages"].values():  # as if another run had been recorded since
        for out in stage["outs"]:
            out["md5"] = out["md5"].replace(out["md5"][:4], "0000")
    with (place / "dvc.lock").open("w") as file:
        YAML().dump(lock, file)
    with opened(place) as repo:
        said = verify.heal_run_cache(repo, {"data", "train@near"})
        assert said == [f"The cache's copy of an earlier {output} was damaged and is removed."]
        assert not copy.exists() and whole
        assert verify.heal_run_cache(repo, {"data", "train@near"}) == []


def test_a_damaged_note_of_an_earlier_run(place):
    entry = next(iter(sorted((place / ".dvc" / "cache" / "runs").glob("*/*/*"))))
    entry.write_bytes(b"\xff")
    with opened(place) as repo:
        assert verify.heal_run_cache(repo, {"data"}) == ["DVC's note of an earlier run was damaged and is removed."]
    assert not entry.exists()


def test_back_to_a_former_value_whose_result_is_damaged(single):
    assert nbproof(single, "run").returncode == 0
    first = cached(single, "models/x.txt")
    for value in (2, 1):
        edit_params(single, lambda content, value=value: content["models"]["x"].update(n=value))
        done = nbproof(single, "run")
        assert done.returncode == 0 and (single / "models" / "x.txt").read_text() == f"result {value}", done.stdout
        damage(first) if value == 2 else None
    assert "The cache's copy of an earlier models/x.txt was damaged and is removed." in done.stdout
    assert nbproof(single, "verify").returncode == 0
