"""What stands before every request: who may ask, how much, how often, how long, how many at once."""

import asyncio
import contextlib
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass

from nbproof.notebook.errors import trace
from nbproof.serve.errors import Trouble
from nbproof.serve.metrics import Metrics

OPEN = ("/health", "/ping", "/ready")  # for whoever watches the server; they say nothing about its content
LOCAL = ("localhost", "127.0.0.1", "[::1]")
CLIENTS = 10_000  # whose rates are remembered
HEADERS = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; "
     b"img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


@dataclass(frozen=True)
class Limits:
    """`body` is in bytes, `rate` in requests a second and client (0: any), `seconds` for one request."""

    body: int = 8_000_000
    rate: float = 0
    seconds: float = 10
    concurrent: int = 64
    token: str = ""
    local: bool = True


class Guard:
    """The outermost layer of the application: limits, headers, counts, and one JSON error for whatever goes wrong."""

    def __init__(self, app, limits: Limits, metrics: Metrics, paths: dict[str, bool]):
        self.app, self.limits, self.metrics, self.paths = app, limits, metrics, paths
        self.now = 0
        self.left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a WebSocket: there is none here
            return None
        began, status = time.perf_counter(), 0

        async def answer(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        self.now += 1
        try:
            self._admit(scope)
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, self._bounded(scope, receive), answer)
        except TimeoutError:
            if not status:
                await _refuse(answer, _busy(f"This took longer than {self.limits.seconds:g} s and was given up."))
        except Trouble as trouble:
            if trouble.status == 413:
                await self._drain(receive)
            if not status:
                await _refuse(answer, trouble)
        except Exception:  # a fault of ours: the client learns that much and no more
            trace()
            if not status:
                await _refuse(answer, Trouble(500, "INTERNAL_ERROR", "The server could not answer this."))
        finally:
            self.now -= 1
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.request(path, status, time.perf_counter() - began)

    def _admit(self, scope) -> None:
        """Trouble where this request may not be asked at all."""
        headers = dict(scope["headers"])
        if self.limits.local and not _is_local(headers.get(b"host", b"").decode("latin-1")):
            # the name of another machine that leads here: a page of that name would read what we answer
            raise Trouble(421, "BAD_REQUEST", "This server is for its own machine: ask it as localhost.")
        if scope["method"] == "POST" and headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise Trouble(403, "PERMISSION_DENIED", "A page of another address may not ask this server.")
        if self.now > self.limits.concurrent:
            raise _busy("The server is busy: try again in a second.")
        path = scope["path"]
        if self.limits.token and path not in OPEN and not self.paths.get(path, False):
            said = headers.get(b"authorization", b"")
            if not hmac.compare_digest(said, b"Bearer " + self.limits.token.encode()):
                raise Trouble(401, "UNAUTHENTICATED", "Send the header Authorization: Bearer TOKEN.",
                              **{"www-authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.body:
            raise self._too_large()
        if self.limits.rate and path not in OPEN:
            self._count((scope.get("client") or ("",))[0])

    def _count(self, client: str) -> None:
        """A bucket a client, which holds the requests of two seconds."""
        now, full = time.monotonic(), max(1.0, 2 * self.limits.rate)
        left, seen = self.left.pop(client, (full, now))
        left = min(full, left + (now - seen) * self.limits.rate)
        self.left[client] = (max(0.0, left - 1), now)
        if len(self.left) > CLIENTS:
            self.left.popitem(last=False)
        if left < 1:
            raise _busy(f"More than {self.limits.rate:g} requests a second: slow down.", 429)

    def _bounded(self, scope, receive):
        """`receive` that stops when a body without a length grows too large."""
        taken = 0

        async def bounded():
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limits.body:
                raise self._too_large()
            return message

        return bounded

    async def _drain(self, receive) -> None:
        """Take what a client still sends, for a while: most read an answer only after they have sent all."""
        taken, more = 0, True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while more and taken < 8 * self.limits.body:
                    message = await receive()
                    taken += len(message.get("body", b""))
                    more = message.get("more_body", False)

    def _too_large(self) -> Trouble:
        return Trouble(413, "BAD_REQUEST", f"The body may have {self.limits.body:,} bytes.", connection="close")


def _busy(message: str, status: int = 503) -> Trouble:
    return Trouble(status, "REQUEST_LIMIT_EXCEEDED", message, **{"retry-after": "1"})


async def _refuse(send, trouble: Trouble) -> None:
    body = trouble.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **trouble.headers}
    await send({"type": "http.response.start", "status": trouble.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})
    await send({"type": "http.response.body", "body": body})


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.lower() in LOCAL
