"""GitHub's REST API, as far as it is needed here. Faults that pass are tried again for about a minute."""

import os
import re
from collections.abc import Iterator

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from nbproof.notebook.errors import UserError

PASSING = (429, 500, 502, 503, 504)
HEADERS = {"Accept": "application/vnd.github+json", "User-Agent": "nbproof", "X-GitHub-Api-Version": "2022-11-28"}


class Answer(UserError):
    """An answer that is no success: its status (0 where none came) and GitHub's words."""

    def __init__(self, status: int, words: object) -> None:
        super().__init__(f"GitHub's API: {status or 'no answer'}: {' '.join(str(words).split())[:500]}.")
        self.status = status


class _Retries(Retry):
    RETRY_AFTER_STATUS_CODES = frozenset({403, 429, 503})  # GitHub's rate limits answer 403, too


class Api:
    """The API at `url` for one repository (owner/name), by default the workflow's own; `pause` scales the waits."""

    def __init__(self, url: str = "", repository: str = "", token: str = "", pause: float = 1.0) -> None:
        self.url = url or os.environ.get("GITHUB_API_URL", "https://api.github.com")
        self.server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        self.repository = repository or os.environ.get("GITHUB_REPOSITORY", "")
        self.token, self.pause = token or os.environ.get("GITHUB_TOKEN", ""), pause
        if self.repository.count("/") != 1 or not self.token:
            raise UserError("The workflow's step must set GITHUB_REPOSITORY (owner/name) and GITHUB_TOKEN in its env.")

    def call(self, method: str, path: str, body: dict | None = None, retries: int = 4):
        """The JSON of the answer. `path` starts below /repos/OWNER/NAME, or at the root where it starts with //."""
        address = f"{self.url}{path[1:]}" if path.startswith("//") else f"{self.url}/repos/{self.repository}{path}"
        waits = _Retries(retries, allowed_methods=None, status_forcelist=PASSING, backoff_factor=self.pause,
                         retry_after_max=15, raise_on_status=False)
        headers = HEADERS | {"Authorization": f"Bearer {self.token}"}  # requests drops it where the host changes
        try:
            with requests.Session() as session:
                session.auth = lambda request: request  # no ~/.netrc in place of the token
                session.mount(self.url, HTTPAdapter(max_retries=waits))
                answer = session.request(method, address, json=body, headers=headers, timeout=30)
            if answer.ok:
                return answer.json() if answer.content else None
        except requests.RequestException as error:
            raise Answer(0, getattr(error.args[0] if error.args else error, "reason", error)) from None
        raise Answer(answer.status_code, _words(answer))

    def pages(self, path: str, key: str | None = None) -> Iterator[dict]:
        """Every item of a list; `key` names the list inside each answer where it is not the answer itself."""
        for page in range(1, 101):
            answer = self.call("GET", f"{path}{'&' if '?' in path else '?'}per_page=100&page={page}")
            yield from (items := answer[key] if key else answer)
            if len(items) < 100:
                return

    def pull_requests(self, sha: str) -> list[dict]:
        """The open pull requests whose head is `sha` now; none where they were closed, or have newer commits.

        Nothing that a run says is trusted. All open ones are read: /commits/SHA/pulls knows no commit of a fork.
        """
        if not re.fullmatch(r"[0-9a-f]{40}", sha):
            raise UserError(f"A full commit SHA is needed, 40 hexadecimal digits, found {sha!r}.")
        return [each for each in self.pages("/pulls?state=open") if each["head"]["sha"] == sha]


def _words(answer: requests.Response) -> str:
    try:
        said = answer.json()
        details = [(each.get("message") or each.get("code")) if isinstance(each, dict) else each
                   for each in said.get("errors") or []]
        return ": ".join(str(each) for each in [said.get("message"), *details] if each) or answer.reason
    except (ValueError, AttributeError, TypeError):
        return answer.reason
