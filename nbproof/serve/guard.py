"""What stands before every request: who may send it, how large, how often, how long, how many."""

import asyncio
import hmac
import time
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
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
CODES = {  # MLflow's error code by status
    401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST",
    422: "INVALID_PARAMETER_VALUE", 429: "REQUEST_LIMIT_EXCEEDED", 500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED", 503: "REQUEST_LIMIT_EXCEEDED", 507: "INTERNAL_ERROR"}


def error_response(error: HTTPException) -> JSONResponse:
    """Return an error in the one form that errors have, MLflow's."""
    content = {"error_code": CODES.get(error.status_code, "BAD_REQUEST"), "message": error.detail}
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
        self.hit = options.rate_limit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        policy = DOCS if scope["path"] == "/docs" else POLICY
        headers = HEADERS | {"content-security-policy": policy}
        headers = [(name.encode(), value.encode()) for name, value in headers.items()]

        async def start(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        is_probe = scope["path"] in PROBES
        self.requests += not is_probe
        try:
            self._admit(scope, is_probe)
            async with asyncio.timeout(self.options.seconds):
                await self.app(scope, self._limited(receive), start)
        except Exception as error:  # the application handles its own; these are of the limits
            if not status:
                await error_response(self._explained(error))(scope, receive, start)
        finally:
            self.requests -= not is_probe
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests(path, status).inc()
            self.metrics.seconds(path).observe(time.perf_counter() - began)

    def _explained(self, error: Exception) -> HTTPException:
        if isinstance(error, HTTPException):
            return error
        if isinstance(error, TimeoutError):
            return _busy(503, f"Timed out after {self.options.seconds:g} s.")
        trace()
        return HTTPException(500, "The server failed on this request.")

    def _admit(self, scope: Scope, is_probe: bool) -> None:
        """Raise HTTPException where this request is not let in."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, path = headers.get(b"host", ""), scope["path"]
        if self.options.is_local and urlsplit(f"//{host}").hostname not in LOCAL:
            # A page of another name that leads here would read what is sent to it.
            raise HTTPException(421, "This server accepts only requests addressed to localhost.")
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        is_foreign = urlsplit(origin).netloc != host if origin and not site else False
        if scope["method"] == "POST" and (is_foreign or site in ("cross-site", "same-site")):
            raise HTTPException(403, "A page of another address may not use this server.")
        if is_probe:
            return
        if self.requests > self.options.concurrent:
            raise _busy(503, "The server is busy: try again in a second.")
        # Before the token is compared: wrong ones are limited, too.
        if self.hit and not self.hit((scope.get("client") or ("",))[0]):
            raise _busy(429, "More requests a second than this server admits: slow down.")
        token = f"Bearer {self.options.token}".encode()
        sent = headers.get(b"authorization", "").encode("latin-1")
        if self.options.token and path not in self.open and not hmac.compare_digest(sent, token):
            raise HTTPException(401, "Send the header Authorization: Bearer TOKEN.",
                                {"www-authenticate": "Bearer"})
        length = headers.get(b"content-length", "0")
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


def _busy(status: int, message: str) -> HTTPException:
    return HTTPException(status, message, {"retry-after": "1"})
