"""What stands before every request: who may send it, how large, how often, how long, how many."""

import asyncio
import hmac
import time
from http import HTTPStatus
from urllib.parse import urlsplit

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nbproof.notebook.errors import trace
from nbproof.serve.metrics import Metrics
from nbproof.serve.options import Options

PROBES = ("/health", "/ping", "/ready")  # always answered: they tell nothing about the content
OPEN = (*PROBES, "/docs", "/openapi.json")  # without a token, as the page and its files
LOCAL = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
DOCS = (  # FastAPI's page loads Swagger from this address
    "default-src 'self'; img-src 'self' data: https://fastapi.tiangolo.com; "
    "script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; frame-ancestors 'none'")
HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
           "cross-origin-resource-policy": "same-origin"}
PAGE, SWAGGER = (Headers(HEADERS | {"content-security-policy": policy}).raw
                 for policy in (POLICY, DOCS))
AGAIN = {"retry-after": "1"}


async def respond(_: Request, error: Exception) -> JSONResponse:
    """Return an error in the one form that errors have, MLflow's."""
    if not isinstance(error, HTTPException):
        trace()
        error = HTTPException(500, "The server failed on this request.")
    content = {"error_code": HTTPStatus(error.status_code).name, "message": error.detail}
    return JSONResponse(content, error.status_code, headers=error.headers)


class Guard:
    """ASGI middleware around the application: limits, security headers, counts, errors."""

    def __init__(self, app: ASGIApp, options: Options, metrics: Metrics, paths: set[str],
                 pages: set[str]):
        """`paths` are those of the application; `pages` those of the page, without a token."""
        self.app, self.options, self.metrics = app, options, metrics
        self.paths, self.open = paths | pages, pages | set(OPEN)
        self.max_body = int(options.body * 1e6)
        self.requests = 0  # at this moment
        self.rate = (0 if options.is_local else 50) if options.rate is None else options.rate
        self.window = RateLimitItemPerSecond(max(1, round(2 * self.rate)), 2)
        self.limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, path = time.perf_counter(), 0, scope["path"]

        async def start(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = SWAGGER if path == "/docs" else PAGE
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        is_probe = path in PROBES
        self.requests += not is_probe
        try:
            self._admit(scope, is_probe)
            async with asyncio.timeout(self.options.seconds):
                await self.app(scope, self._limited(receive), start)
        except Exception as error:  # of the limits, or what the application did not foresee
            if isinstance(error, TimeoutError):
                error = HTTPException(503, f"Timed out after {self.options.seconds:g} s.", AGAIN)
            if not status:
                response = await respond(Request(scope), error)
                await response(scope, receive, start)
        finally:
            self.requests -= not is_probe
            path = path if path in self.paths else "other"
            self.metrics.requests(path, status).inc()
            self.metrics.seconds(path).observe(time.perf_counter() - began)

    def _admit(self, scope: Scope, is_probe: bool) -> None:
        """Raise HTTPException where this request is not let in."""
        headers = dict(Headers(scope=scope))
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.options.is_local and urlsplit(f"//{host}").hostname not in LOCAL:
            # A page of another name that leads here would read what is sent to it.
            raise HTTPException(421, "This server accepts only requests addressed to localhost.")
        site = headers.get("sec-fetch-site")
        is_foreign = origin and not site and urlsplit(origin).netloc != host
        if scope["method"] == "POST" and (is_foreign or site in ("cross-site", "same-site")):
            raise HTTPException(403, "A page of another address may not use this server.")
        if is_probe:
            return
        if self.requests > self.options.concurrent:
            raise HTTPException(503, "The server is busy: try again in a second.", AGAIN)
        # Before the token is compared: wrong ones are limited, too.
        client = (scope.get("client") or ("",))[0]
        if self.rate and not self.limiter.hit(self.window, client):
            raise HTTPException(
                429, "More requests a second than this server admits: slow down.", AGAIN)
        token, sent = f"Bearer {self.options.token}", headers.get("authorization", "")
        if self.options.token and scope["path"] not in self.open and not hmac.compare_digest(
                sent.encode(), token.encode()):
            raise HTTPException(401, "Send the header Authorization: Bearer TOKEN.",
                                {"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.max_body:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """Return `receive`, which ends where a body without a length grows too large."""
        received = 0

        async def limited():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body may have {self.max_body:,} bytes.")
