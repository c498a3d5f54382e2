"""A server in front of MLflow that has no registry, as some hosts are."""

import contextlib
import http.server
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator


@contextlib.contextmanager
def without_registry(real: str) -> Iterator[str]:
    """The address of a proxy of the server `real`, which knows nothing of registered models."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if "registered-models" in self.path or "model-versions" in self.path:
                return self._answer(404, b'{"error_code": "ENDPOINT_NOT_FOUND"}')
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
            wanted = ("authorization", "content-type")
            kept = {name: value for name, value in self.headers.items() if name.lower() in wanted}
            try:
                with urllib.request.urlopen(urllib.request.Request(real + self.path, body, kept)) as answer:
                    return self._answer(answer.status, answer.read())
            except urllib.error.HTTPError as error:
                return self._answer(error.code, error.read())

        do_POST = do_GET

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
