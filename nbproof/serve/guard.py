"""What stands before every request: who, how large, how many at once, how long; counts, errors."""

import asyncio
import hmac
import time
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nbproof.notebook.errors import UserError, trace
from nbproof.serve import metrics
from nbproof.serve.options import Options

PROBES = ("/health", "/ready")  # always answered: they tell nothing about the content
GUESSES = 10  # wrong tokens in a second, of all clients


async def respond(_: Request, error: Exception) -> JSONResponse:
    """Return an error in the one form that errors have, MLflow's."""
    match error:
        case HTTPException():
            status, message = error.status_code, error.detail
        case RequestValidationError():
            first = error.errors()[0]
            status, message = 400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}."[:300]
        case UserError():
            status, message = 400, str(error)
        case TimeoutError():
            status, message = 503, "The server had no time for this request: try again later."
        case _:
            trace()
            status, message = 500, "The server failed on this request."
    return JSONResponse({"error_code": HTTPStatus(status).name, "message": message}, status)


class Guard:
    """ASGI middleware around the application. Paths in `closed` need the token."""

    def __init__(self, app: ASGIApp, options: Options, closed: set[str]):
        self.app, self.options, self.closed = app, options, closed
        self.token = f"Bearer {options.token}".encode() if options.token else b""
        self.requests = 0  # at this moment
        self.guessing = asyncio.Semaphore(GUESSES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def start(message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        run = self.app if scope["path"] in PROBES else self._admit
        try:
            async with asyncio.timeout(self.options.seconds):
                await run(scope, receive, start)
        except Exception as error:  # of the limits, or what the application did not foresee
            if not status:
                response = await respond(Request(scope), error)
                await response(scope, receive, start)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            metrics.requests(path, status).inc()
            metrics.seconds(path).observe(time.perf_counter() - began)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; raise HTTPException where this request is not let in."""
        headers = dict(scope["headers"])
        # Browsers send this; without it, anybody's page could write to the log of its reader.
        if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and (
                scope["method"] == "POST"):
            raise HTTPException(403, "A page of another address may not use this server.")
        if self.token and scope["path"] in self.closed:
            sent = headers.get(b"authorization", b"")
            if not hmac.compare_digest(sent, self.token):
                if sent:
                    async with self.guessing:
                        await asyncio.sleep(1)
                raise HTTPException(401, "Send the header Authorization: Bearer TOKEN.")
        # A body whose length is named can be refused before it is read.
        if b"transfer-encoding" in headers:
            raise HTTPException(411, "Send the length of the body: Content-Length.")
        if int(headers.get(b"content-length", 0)) > self.options.body * 1e6:
            raise HTTPException(413, f"The body may have {self.options.body:g} MB.")
        if self.requests >= self.options.concurrent:
            raise HTTPException(503, "The server is busy: try again in a second.")
        self.requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.requests -= 1
