"""The other steps of the workflows, and how a repository is set up for them."""

import json
import tarfile

import pytest
from projects import nbproof

from nbproof.notebook.errors import UserError
from nbproof.review import ci

from .results_world import git
from .tiny import CONTRACT


def test_a_metric_that_moved_too_far_fails_a_run_from_nothing(tiny, capsys):
    tiny.write("project.yaml", f"{CONTRACT}tolerance: {{absolute: 0.01}}\n")
    tiny.sources()
    tiny.write("metrics/oak.json", '{"rmse": 0.5, "n": NaN}')
    tiny.commit()
    for metrics, words in [
            ('{"rmse": 0.5, "n": NaN}', "no metric"), ('{"rmse": 0.505, "n": NaN}', "no metric"),
            ('{"rmse": 0.6, "n": NaN}', "rmse of oak"), ('{"rmse": NaN, "n": NaN}', "rmse of oak"),
            ('{"rmse": 0.5, "n": 1}', "n of oak"), ('{"n": NaN}', "rmse of oak"),
            ('{"rmse": 0.5, "n": NaN, "new": 1}', "new of oak")]:
        tiny.write("metrics/oak.json", metrics)
        assert ci.retrain() == int(words != "no metric")
        assert f"Outside of the tolerance of project.yaml: {words}." in capsys.readouterr().out


def test_the_site_has_the_pages_of_the_stages_alone(single, inside):
    """Pages of drift and harvest show what people sent."""
    inside(single)
    (single / "reports").mkdir()
    for name in ("index", "x", "drift", "harvest", "try-x"):
        (single / "reports" / f"{name}.html").write_text(name)
    ci.site()
    with tarfile.open(single / "scratch" / "site" / "artifact.tar") as packed:
        assert sorted(packed.getnames()) == ["index.html", "x.html"]


def test_a_first_push_has_no_base(world):
    world.inside(world.work)
    for revision, expected in (("0" * 40, ""), ("", ""), ("--all", ""), ("HEAD", world.sha)):
        world.monkeypatch.setenv("BASE", revision)
        assert ci.fork_point() == expected


@pytest.fixture
def repository(world):
    """A checkout with a workflow whose origin is owner/name on a company's own server."""
    workflow = world.work / ".github/workflows/report.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("jobs: {review: {uses: a/b/.github/workflows/report.yml@0}}")
    git(world.work, "remote", "set-url", "origin", "git@github.company.com:owner/name.git")
    world.monkeypatch.delenv("GITHUB_SERVER_URL")
    world.inside(world.work)
    return world.api.settings


def test_setup_prints_lines_for_the_right_host(repository, world):
    done = nbproof(world.work, "github", "setup")
    first, *lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert first == "export GH_HOST=github.company.com GH_REPO=github.company.com/owner/name"
    [rule] = [line.split("'")[1] for line in lines if "rulesets" in line]
    checks = json.loads(rule)["rules"][0]["parameters"]["required_status_checks"]
    assert checks == [{"context": "review / pipeline"}]
    assert not world.api.requests  # it changes and reads nothing


def test_check_names_what_is_missing(repository, world, capsys):
    repository["actions/permissions"] = {"enabled": True}
    git(world.work, "remote", "set-url", "origin", "https://github.localhost/owner/name")
    assert ci.setup(check=True) == 1
    assert capsys.readouterr().out.splitlines() == [
        "owner/name on github.localhost:", "set      Actions run",
        "missing  a token only reads unless a job asks for more",
        "missing  a merge waits for review / pipeline",
        "off      publish: main alone has the secrets that write",
        "off      pages: GitHub Pages take what a workflow built"]
    repository["actions/permissions/workflow"] = {"default_workflow_permissions": "read"}
    repository["rules/branches/main"] = [{"type": "required_status_checks", "parameters": {
        "required_status_checks": [{"context": "review / pipeline"}]}}]
    repository["pages"] = {"build_type": "legacy"}
    assert ci.setup(check=True) == 0 and "missing" not in capsys.readouterr().out
    assert all(method == "GET" for method, _ in world.api.requests)
    world.api.faults = [("GET", 403)]
    with pytest.raises(UserError, match="gh api repos/owner/name/actions/permissions failed"):
        ci.setup(check=True)
