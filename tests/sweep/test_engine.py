"""ENGINE=ray: DVC drives as ever, each model's notebook is a task on the cluster, and the bytes are the same."""


import psutil
from cluster import cluster
from test_cycle import Clone, edit


def reset(project: Clone) -> None:
    project.call("git", "checkout", "-q", ".")
    project.dvc("checkout", "-q", "--force")  # the copy that shows the failure is not in the cache


def test_the_same_bytes_come_back_from_four_nodes(project):
    before = (project.root / "dvc.lock").read_bytes()
    with cluster(4) as machines:
        said = project.pipeline("run", "--force", ENGINE="ray", **machines.variables)
        assert said.count("s on the cluster -> reports/") == 3 and "linear: epoch 12/12" in said
        assert (project.root / "dvc.lock").read_bytes() == before

        notebook = project.root / "notebooks/linear.ipynb"
        edit(notebook, '"processor = training', '"raise RuntimeError(\'on purpose\')\\n",\n    "processor = training')
        said = project.pipeline("run", code=1, ENGINE="ray", **machines.variables)
        assert "linear: notebooks/linear.ipynb failed at cell" in said and "RuntimeError: on purpose" in said
        assert "on purpose" in (project.root / "reports/linear.html").read_text(encoding="utf-8")
        reset(project)
    assert not [each for each in psutil.process_iter(["cmdline"]) if str(project.root) in " ".join(each.info["cmdline"] or [])]


def test_without_an_address_this_machine_is_the_cluster(project):
    before = (project.root / "dvc.lock").read_bytes()
    assert "on the cluster" in project.pipeline("stage", "linear", ENGINE="ray")
    project.dvc("commit", "-f", "-q", "train@linear")
    assert (project.root / "dvc.lock").read_bytes() == before
    reset(project)


def test_a_wrong_engine_or_address_is_said(project):
    assert "ENGINE must be ray, or not set, found 'spark'" in project.pipeline("stage", "linear", code=2, ENGINE="spark")
    said = project.pipeline("stage", "linear", code=2, ENGINE="ray", RAY_ADDRESS="127.0.0.1:1")
    assert "Ray at 127.0.0.1:1" in said and "cannot be reached" in said
