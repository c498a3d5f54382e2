"""A part of GitHub's REST API on loopback, for GitHub's own program gh."""

import io
import json
import re
import shutil
import ssl
import stat
import subprocess
import threading
import zipfile
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

BOT = "github-actions[bot]"


class GitHub(ThreadingHTTPServer):
    """What GitHub has of owner/name, and the faults that it gives before it answers as it should.

    `runs` are newest first. `settings` are answers to GET by path. The API counts no more
    characters than `longest` in a comment."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments, self.pulls, self.runs, self.jobs = [], [], [], []
        self.settings, self.artifacts = {}, {}
        self.faults, self.longest, self.lose_answer, self.requests = [], 65_536, False, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def with_tls(self, folder: Path) -> tuple["GitHub", Path]:
        """Start a server by TLS of the same content, as CML needs; return it, its certificate."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", str(key), "-out", str(certificate)],
                       check=True, capture_output=True)
        server = GitHub()
        server.answer, server.zipped, server.special = self.answer, self.zipped, self.special
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        return server, certificate

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the variables of a step: gh speaks HTTP with the host github.localhost alone."""
        if not shutil.which("gh"):
            pytest.skip("GitHub's program gh is not installed")
        return {"HTTP_PROXY": self.address, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
                "GH_TOKEN": "secret-token", "GH_CONFIG_DIR": str(folder / "gh"),
                "GITHUB_REPOSITORY": "owner/name", "GITHUB_SERVER_URL": "https://github.localhost"}

    def comment(self, body: str, login: str = "someone") -> dict:
        self.comments.append({"id": len(self.comments) + 1, "body": body, "user": {"login": login}})
        return self.comments[-1]

    def ours(self) -> list[dict]:
        return [one for one in self.comments if one["user"]["login"] == BOT]

    def answer(self, method: str, path: str, query: dict, body: dict | None) -> tuple[int, object]:
        for fault in self.faults:
            if fault[0] == method:
                self.faults.remove(fault)
                return fault[1], {"message": f"fault {fault[1]}"}
        size, page = int(query.get("per_page", ["30"])[0]), int(query.get("page", ["1"])[0])
        window = slice((page - 1) * size, page * size)
        if body is not None and len(body.get("body", "")) > self.longest:
            return 422, {"message": f"body is too long (maximum is {self.longest} characters)"}
        if re.fullmatch(r"issues/\d+/comments", path):
            if method == "GET":
                return 200, self.comments[window]
            made = self.comment(body["body"], BOT)
            lost, self.lose_answer = self.lose_answer, False
            return (502, {"message": "Bad gateway"}) if lost else (201, made)
        if match := re.fullmatch(r"issues/comments/(\d+)", path):
            self.comments[int(match[1]) - 1]["body"] = body["body"]
            return 200, self.comments[int(match[1]) - 1]
        if match := re.fullmatch(r"actions/runs/(\d+)/artifacts", path):
            names = self.artifacts.get(match[1], {})
            return 200, {"total_count": len(names), "artifacts": [
                {"name": name, "expired": False, "size_in_bytes": 1,
                 "archive_download_url": f"http://api.github.localhost/zip/{match[1]}/{name}"}
                for name in names]}
        known = {"pulls": self.pulls[window], "actions/runs": {"workflow_runs": [
            run for run in self.runs if run["head_sha"] == query.get("head_sha", [""])[0]]}}
        if path.endswith("/jobs"):
            return 200, {"jobs": self.jobs}
        known |= self.settings
        return (200, known[path]) if path in known else (404, {"message": "Not Found"})

    def special(self, method: str, path: str, headers: Message, content: bytes) -> tuple | None:
        """Answer what is no part of GitHub with a status and bytes."""

    def zipped(self, run: str, name: str) -> bytes:
        folder, content = self.artifacts[run][name], io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            for path in folder.rglob("*"):
                if path.is_symlink():  # as a zip of an upload can hold it
                    info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                    packed.writestr(info, str(path.readlink()))
                elif path.is_file():
                    packed.write(path, path.relative_to(folder))
        return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers directly, and as the HTTP proxy of the real gh."""

    def handle_any(self) -> None:
        address = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":  # the real gh, and DVC
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = address.path.removeprefix("/api/v3").removeprefix("/repos/owner/name").strip("/")
        self.server.requests.append((self.command, path))
        kind, link, query = "application/json", "", parse_qs(address.query)
        if special := self.server.special(self.command, path, self.headers, content):
            (status, data), kind = special, "application/octet-stream"
        elif path.startswith("zip/"):
            status, kind = 200, "application/zip"
            data = self.server.zipped(*path.split("/")[1:])
        else:
            body = json.loads(content) if content else None
            status, answer = self.server.answer(self.command, path, query, body)
            data = b"" if answer is None else json.dumps(answer).encode()
            size, page = int(query.get("per_page", ["30"])[0]), int(query.get("page", ["1"])[0])
            if isinstance(answer, list) and len(answer) == size:
                rest = re.sub(r"&page=\d+", "", self.path)
                base = "" if address.netloc else f"http://{self.headers['Host']}"
                link = f'<{base}{rest}&page={page + 1}>; rel="next"'
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Link", link)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_PUT = do_HEAD = handle_any

    def log_message(self, *_) -> None:
        pass
