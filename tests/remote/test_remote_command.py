"""`nbproof remote` and `nbproof secrets`: what they write, and what they say when something is wrong."""

import re

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
        assert "Tracking server and DVC remote answer." in said
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
            "user, password or token are wrong or missing: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
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


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--url", "https://me:token@dagshub.com/me/repo"], "carries a user or password"),
        (["--url", "https://dagshub.com/me"], "must be https://HOST/OWNER/REPO"),
        (["--tracking", "ftp://example.org"], "expected an address that begins with http:// or https://"),
        (["--data", "s3://a b"], "is no address"),
        (["--tracking", "example.org"], "expected an address that begins with http:// or https://"),
        (["--tracking", "http://u:p@example.org"], "carries a user or password"),
    ],
)
def test_what_is_no_address_is_refused_and_nothing_written(project, options, sentence):
    said = project.nbproof("remote", *options, code=2)
    assert sentence in said and "token@" not in said
    assert project.call("git", "status", "--porcelain") == ""


def test_a_folder_is_a_remote_too(project, tmp_path):
    (tmp_path / "store").mkdir()
    config = project.root / ".dvc" / "config"
    config.write_text(config.read_text() + "['remote \"backup\"']\n    url = /backup\n")
    assert "DVC remote answers." in project.nbproof("remote", "--data", str(tmp_path / "store"))
    assert "url = /backup" in config.read_text(), "another remote stays"


@pytest.mark.parametrize(
    "error, status, sentence",
    [
        (
            "RequestTimeTooSkewed: The difference between the request time and the current time is too large",
            403,
            "set the clock",
        ),
        ("certificate verify failed: certificate is not yet valid", 0, "set the clock"),
        ("HTTPSConnectionPool: Max retries exceeded", 0, "no answer"),
        ("API request failed with error code 404 != 200", 0, "no such repository"),
        ("401, message='', url='https://example.org/507'", 0, "wrong or missing: NAMES"),
        ("An error occurred (AccessDenied)", 0, "may not read it"),
        ("An error occurred (403)", 403, "may not read it"),
        ("An error occurred (InvalidAccessKeyId)", 403, "wrong or missing"),
        ("https://example.org/read-only-401 said nothing", 507, "it is full"),
        ("a folder of 401 files", 0, "a folder of 401 files"),
    ],
)
def test_errors_of_libraries_become_one_sentence(error, status, sentence):
    from nbproof.tracking.remotes import _reason

    assert sentence in _reason(error, "NAMES", status)


def test_secrets_are_listed_by_name_and_never_shown(project):
    said = project.nbproof("secrets", MLFLOW_TRACKING_PASSWORD="planted-value", AWS_ACCESS_KEY_ID="")
    assert "planted-value" not in said
    assert re.search(r"MLFLOW_TRACKING_PASSWORD +set ", said) and re.search(r"AWS_ACCESS_KEY_ID +not set", said)


def test_the_page_on_github_and_make_secrets_name_what_the_workflows_read():
    from nbproof.tracking.remotes import SECRETS, VARIABLES

    text = "".join(path.read_text(encoding="utf-8") for path in (servers.ROOT / ".github").rglob("*.yml"))
    read = set(re.findall(r"secrets\.([A-Z0-9_]+)", text)), set(re.findall(r"vars\.([A-Z0-9_]+)", text))
    assert read == tuple(
        {name for name, meaning in each.items() if "workflows" in meaning} for each in (SECRETS, VARIABLES)
    )
    page = (servers.ROOT / "docs" / "github.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z0-9_]{4,})`", page)) - {"GITHUB_TOKEN"}  # which every workflow has
    assert named == read[0] | read[1]
