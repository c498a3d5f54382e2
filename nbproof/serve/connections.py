"""Connections on which no request comes are closed: uvicorn itself waits for ever."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS = 10  # from the begin of a connection, or a response, to the end of a request's headers


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with a time limit for headers."""

    timer = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.timer.cancel()
        self._wait()

    def _wait(self) -> None:
        self.timer = self.loop.call_later(SECONDS, self._close)

    def _close(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # no request is being answered
            self.transport.abort()
