"""DVC's own experiments, with notebooks as stages."""


def test_an_experiment_of_dvc_runs_with_notebooks_as_stages(project):
    said = project.dvc("exp", "run", "-S", "models.linear.lr=0.03", "-n", "faster")
    assert "linear: every cell ran" in said and "mlp: " not in said
    table = project.dvc("exp", "show", "--csv")
    assert "faster" in table and "0.03" in table
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
    project.dvc("exp", "remove", "faster")
    assert project.git("status", "--porcelain") == "" and "up to date" in project.dvc("status")
