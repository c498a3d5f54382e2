"""`nbproof remote` and `nbproof secrets`: what they write, and what they say when something is wrong."""


import pytest
import servers
from small import ACCOUNT, Clone, bare_project


@pytest.fixture
def project(tmp_path) -> Clone:
    return bare_project(tmp_path / "project", ACCOUNT)


def test_a_repository_of_dagshubs_form_is_one_switch_and_back(project, mlflow3, tmp_path):
    """The stand-in: MLflow with accounts and an S3 store below one address, as DagsHub has them."""
    with servers.s3_store(tmp_path / "s3", signed=False) as bucket, servers.proxied(mlflow3) as proxy:
        proxy.routes = {"/me/repo.mlflow": mlflow3, "/me/repo.s3": bucket.endpoint}
        project.variables |= bucket.credentials
        said = project.nbproof("remote", "--url", f"{proxy.address}/me/repo.git")
        assert "Tracking server answers.\nDVC remote answers." in said
        assert (project.root / "remote.yaml").read_text().splitlines()[
            -1
        ] == f"tracking: {proxy.address}/me/repo.mlflow"
        config = (project.root / ".dvc/config").read_text()
        assert "url = s3://dvc" in config and f"endpointurl = {proxy.address}/me/repo.s3" in config
        assert not [
            secret for secret in project.variables if secret.startswith("AWS") and project.variables[secret] in config
        ]
        wrong = project.nbproof("remote", code=1, MLFLOW_TRACKING_PASSWORD="wrong")
        assert (
            "user, password or token are wrong or missing, or may not do this: MLFLOW_TRACKING_USERNAME and "
            in wrong
        )
    gone = project.nbproof("remote", code=1)
    assert gone.count("no answer") == 2, "each of the two is named"
    project.nbproof("remote", "--unset")
    assert project.git("status", "--porcelain") == "", "back to what it was"
    assert "No remote is set" in project.nbproof("remote")


def test_keys_and_bucket_of_an_s3_store_are_checked(project, bucket):
    place = f"s3://{bucket.name}/x"
    project.variables |= bucket.credentials
    assert "DVC remote answers." in project.nbproof("remote", "--data", place, "--endpoint", bucket.endpoint)
    wrong = project.nbproof("remote", code=1, AWS_SECRET_ACCESS_KEY="wrong")
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in wrong
    missing = project.nbproof("remote", code=1, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", HOME=str(project.root))
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in missing
    assert "there is no such" in project.nbproof(
        "remote", "--data", "s3://nowhere/x", "--endpoint", bucket.endpoint, code=1
    )
