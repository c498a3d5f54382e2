"""DVC's own experiments, with notebooks as stages."""

import csv
import time


def test_an_experiment_of_dvc_runs_with_notebooks_as_stages(project):
    said = project.dvc("exp", "run", "-S", "models.logistic.strength=0.03", "-n", "faster")
    assert "logistic: every cell ran" in said and "tree: " not in said
    table = project.dvc("exp", "show", "--csv")
    assert "faster" in table and "0.03" in table
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
    project.dvc("exp", "remove", "faster")
    assert project.git("status", "--porcelain") == "" and "up to date" in project.dvc("status")


def test_queued_experiments_run_beside_the_workspace_and_one_is_applied(project):
    project.dvc("exp", "run", "--queue", "-S", "models.logistic.strength=0.01,0.03")
    assert project.dvc("queue", "status").count("Queued") >= 2
    project.dvc("queue", "start", "--jobs", "1")
    ends = time.monotonic() + 600
    while project.dvc("queue", "status").count("Success") < 2:
        said = project.dvc("queue", "status")
        assert "Failed" not in said and time.monotonic() < ends, said
        time.sleep(2)
    assert project.git("status", "--porcelain") == "", "the workspace was left alone"
    table = csv.DictReader(project.dvc("exp", "show", "--csv").splitlines())
    name = next(row["Experiment"] for row in table if row["Experiment"] and row["models.logistic.strength"] == "0.03")
    project.dvc("exp", "apply", name)
    assert "strength: 0.03" in (project.root / "params.yaml").read_text(encoding="utf-8")
    assert "up to date" in project.dvc("status"), "its results came with it"
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
    project.dvc("exp", "remove", "--all-commits")
    project.dvc("queue", "remove", "--all")
    assert project.git("status", "--porcelain") == "" and "up to date" in project.dvc("status")
