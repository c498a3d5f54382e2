"""Connections on which no request comes are closed: uvicorn itself waits for ever."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS = 10  # from the begin of a connection, or a response, to the end of a request's headers
MOST = 400  # connections without a request; with more, the oldest is closed


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits until the headers of a request are there.

    Connections without a whole request never use up the files that a process may open (often
    1,024), so a new one, a probe's of /health say, always finds room.
    """

    idle: dict["Connection", None] = {}  # those without a request, the oldest first
    timer = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # nothing pipelined
            self._wait()

    def on_headers_complete(self) -> None:
        self._go_on()
        super().on_headers_complete()

    def connection_lost(self, exc) -> None:
        self._go_on()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self.timer = self.loop.call_later(SECONDS, self.transport.abort)
        self.idle[self] = None
        if len(self.idle) > MOST:
            next(iter(self.idle)).transport.abort()

    def _go_on(self) -> None:
        self.idle.pop(self, None)
        self.timer.cancel()
