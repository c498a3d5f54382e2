"""GitHub's REST API, as far as it is needed here, by the standard library; passing faults are tried again a few times."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline import Refused

WAITS = (1, 2, 4, 8)  # seconds before each further try
LONGEST = 60  # seconds that GitHub may ask us to wait


class Answer(Exception):
    """An answer that is no success: its status (0 where none came), GitHub's words, and the seconds it asks to wait."""

    def __init__(self, status: int, words: str, wait: float | None = None) -> None:
        super().__init__(f"{status or 'no answer'}: {words}")
        self.status, self.words, self.wait = status, words, wait

    @property
    def passing(self) -> bool:
        """Whether the same request may well succeed a little later."""
        return self.status in (0, 429, 500, 502, 503, 504) or (self.status == 403 and self.wait is not None)


@dataclass(frozen=True)
class Api:
    """`url` such as https://api.github.com; `pause` scales the waits between tries."""

    url: str
    repository: str
    token: str
    pause: float = 1.0

    def __post_init__(self) -> None:
        if self.repository.count("/") != 1 or not self.token:
            raise Refused("GITHUB_REPOSITORY (owner/name) and GITHUB_TOKEN must be set: the workflow's step sets them in env.")

    def again(self, action: Callable):
        """The result of `action`, tried again while it fails in passing, at most five times in all."""
        for seconds in WAITS:
            try:
                return action()
            except Answer as answer:
                if not answer.passing or (answer.wait or 0) > LONGEST:
                    raise
                time.sleep((answer.wait or seconds) * self.pause)
        return action()

    def call(self, method: str, path: str, body: dict | None = None):
        """The JSON of the answer to one request that may be repeated without harm."""
        return self.again(lambda: self.once(method, path, body))

    def once(self, method: str, path: str, body: dict | None = None):
        """The same, tried once. `path` starts below /repos/OWNER/NAME, or at the root where it starts with //."""
        address = f"{self.url}{path[1:]}" if path.startswith("//") else f"{self.url}/repos/{self.repository}{path}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(address, data, method=method, headers={
            "Accept": "application/vnd.github+json", "User-Agent": "notebook-pipeline", "X-GitHub-Api-Version": "2022-11-28",
        })
        request.add_unredirected_header("Authorization", f"Bearer {self.token}")  # never to the host of a redirect
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            raise Answer(error.code, _words(error), _wait(error.headers)) from None
        except (OSError, http.client.HTTPException) as error:
            raise Answer(0, str(getattr(error, "reason", error)) or type(error).__name__) from None
        return json.loads(content) if content else None

    def pages(self, path: str, key: str | None = None) -> Iterator[dict]:
        """Every item of a list, all its pages; `key` names the list inside each answer where it is not the answer itself."""
        for page in range(1, 101):
            answer = self.call("GET", f"{path}{'&' if '?' in path else '?'}per_page=100&page={page}")
            items = answer[key] if key else answer
            yield from items
            if len(items) < 100:
                return


def _words(error: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(error.read(100_000))
        details = [each.get("message") or each.get("code") or "" if isinstance(each, dict) else str(each) for each in answer.get("errors") or []]
        return ": ".join(filter(None, [str(answer.get("message", "")), *map(str, details)])) or error.reason
    except (ValueError, AttributeError, OSError, http.client.HTTPException):
        return str(error.reason)


def _wait(headers) -> float | None:
    """The seconds after which to come again, where GitHub says so (its rate limits answer 403, too)."""
    try:
        if headers.get("Retry-After"):
            return float(headers["Retry-After"])
        if headers.get("X-RateLimit-Remaining") == "0":
            return max(1.0, float(headers["X-RateLimit-Reset"]) - time.time())
    except (TypeError, ValueError):
        pass
    return None


def from_environment() -> Api:
    """The API of the workflow that runs this."""
    return Api(os.environ.get("GITHUB_API_URL", "https://api.github.com"), os.environ.get("GITHUB_REPOSITORY", ""), os.environ.get("GITHUB_TOKEN", ""))
