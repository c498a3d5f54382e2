"""What stands before every request: who may send it, how large, how often, how long, how many."""

import asyncio
import hmac
import re
import time
from http import HTTPStatus

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nbproof.notebook.errors import UserError, trace
from nbproof.serve.metrics import requests, seconds
from nbproof.serve.options import Options

PROBES = ("/health", "/ping", "/ready")  # always answered: they tell nothing about the content
DOCS = "/docs"  # FastAPI's page loads Swagger from a CDN
LOCAL = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
HEADERS = Headers({
    "content-security-policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin"}).raw
AGAIN = {"retry-after": "1"}


async def respond(_: Request, error: Exception) -> JSONResponse:
    """Return an error in the one form that errors have, MLflow's."""
    if isinstance(error, UserError):
        error = HTTPException(400, str(error))
    if not isinstance(error, HTTPException):
        trace()
        error = HTTPException(500, "The server failed on this request.")
    content = {"error_code": HTTPStatus(error.status_code).name, "message": error.detail}
    return JSONResponse(content, error.status_code, headers=error.headers)


class Guard:
    """ASGI middleware around the application: limits, security headers, counts, errors."""

    def __init__(self, app: ASGIApp, options: Options, paths: set[str], pages: set[str]):
        """`paths` are those of the application; `pages` those of the page, without a token."""
        self.app, self.options = app, options
        self.paths, self.open = paths | pages, {*pages, *PROBES, DOCS, "/openapi.json"}
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
                if path != DOCS:
                    message["headers"] = [*message.get("headers", ()), *HEADERS]
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
            requests(path, status).inc()
            seconds(path).observe(time.perf_counter() - began)

    def _admit(self, scope: Scope, is_probe: bool) -> None:
        """Raise HTTPException where this request is not let in."""
        headers = dict(scope["headers"])
        if self.options.is_local and not LOCAL.fullmatch(headers.get(b"host", b"")):
            # A page of another name that leads here would read what is sent to it.
            raise HTTPException(421, "This server accepts only requests addressed to localhost.")
        # Browsers send this to localhost; elsewhere a token is needed, which other pages lack.
        if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and (
                scope["method"] == "POST"):
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
        token = f"Bearer {self.options.token}".encode()
        if self.options.token and scope["path"] not in self.open and not hmac.compare_digest(
                headers.get(b"authorization", b""), token):
            raise HTTPException(401, "Send the header Authorization: Bearer TOKEN.",
                                {"www-authenticate": "Bearer"})

    def _limited(self, receive: Receive) -> Receive:
        """Return `receive`, which ends where a body grows too large."""
        received = 0

        async def limited():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:
                raise HTTPException(413, f"The body may have {self.max_body:,} bytes.")
            return message

        return limited
