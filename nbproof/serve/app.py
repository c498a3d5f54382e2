"""The application: what is asked at which address. FastAPI describes it at /openapi.json."""

import asyncio
import base64
import contextlib
import io
import json
import platform
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from nbproof.notebook.errors import UserError, trace
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.serve import protocol
from nbproof.serve.errors import Trouble, wrong
from nbproof.serve.handler import Handler, Reply, verdict
from nbproof.serve.limits import Guard, Limits
from nbproof.serve.log import Full, Unknown
from nbproof.serve.model import Portable

FILES = 64  # in one request
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
NUMBERS = {"type": "array", "items": {"type": "number"}}
ASKED = {"requestBody": {"required": True, "content": {"application/json": {"schema": {
    "type": "object", "description": "Exactly one of these, as MLflow's server takes them.", "properties": {
        "dataframe_split": {"type": "object", "properties": {"columns": {"type": "array"}, "data": {"type": "array"}}},
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "instances": {"type": "array"}, "inputs": {"description": "A list of cases, or an object of named inputs."}}}},
    "text/csv": {"schema": {"type": "string"}}}}}
SHOWN = {"requestBody": {"required": True, "content": {
    "image/png": {"schema": {"type": "string", "format": "binary"}},
    "multipart/form-data": {"schema": {"type": "object", "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}}}}},
    "application/json": {"schema": {"type": "object", "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "byte"}}}}}}}}
LABELLED = {"requestBody": {"required": True, "content": {"application/json": {"schema": {
    "type": "object", "required": ["id", "label"],
    "properties": {"id": {"type": "string"}, "label": {"type": "string"}}}}}}}


class Given(io.BytesIO):
    """A file that came with a request: what the hook `prepare` opens, and names in its sentences."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Application:
    """The routes and what they share. `app` is the ASGI application, with its guard."""

    def __init__(self, handler: Handler, limits: Limits):
        self.handler, self.limits, self.contract = handler, limits, config.load()
        self.prepare = self.contract.hook("prepare")
        self.preparing = ThreadPoolExecutor(1, "prepare")
        if self.prepare:
            with contextlib.suppress(Exception):  # it must fail, and has then imported what a first file would wait for
                self.prepare([Given(b"", "nothing")], {})
        self.pages = _pages(self.contract.page)
        inner = FastAPI(title=self.contract.name, version="1", docs_url=None, redoc_url=None,
                        lifespan=self._lifespan, description="Ask the champion; see /openapi.json.")
        for method, path, function, extra in (
            ("POST", "/invocations", self.invocations, ASKED), ("POST", "/predict", self.predict, SHOWN),
            ("POST", "/label", self.label, LABELLED), ("GET", "/health", self.health, None),
            ("GET", "/ping", self.health, None), ("GET", "/ready", self.ready, None),
            ("GET", "/version", self.version, None), ("GET", "/metrics", self.metrics, None),
            ("GET", "/", self.first, None),
        ):
            inner.add_api_route(path, function, methods=[method], openapi_extra=extra, response_model=None,
                                summary=(function.__doc__ or "").splitlines()[0])
        for path in self.pages:
            inner.add_api_route(path, self.page, methods=["GET"], include_in_schema=False)
        inner.add_exception_handler(Trouble, _told)
        inner.add_exception_handler(HTTPException, _told)
        inner.add_exception_handler(Exception, _told)
        known = {route.path: route.path == "/" or route.path in self.pages for route in inner.routes}
        self.app = Guard(inner, limits, handler.metrics, known)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _):
        yield
        self.preparing.shutdown()
        await asyncio.to_thread(self.handler.close)

    # -- questions -------------------------------------------------------------------------------------------------

    async def invocations(self, request: Request) -> Response:
        """Ask the champion, in MLflow's scoring protocol."""
        began, serving = time.perf_counter(), self.handler.serving
        content = protocol.parsed(await request.body(), request.headers.get("content-type", ""))
        reply = await self.handler.ask(serving, protocol.inputs(content, serving.champion), began=began)
        return _json({"predictions": reply.answers.outputs.tolist(), "answers": _heard(reply), "ids": reply.ids,
                      "version": serving.champion.facts.version})

    async def predict(self, request: Request) -> Response:
        """Ask the champion about files, such as pictures; `?details=1` shows more, `?keep=0` leaves no trace.

        The body is one file (image/png, say), several in a form (multipart/form-data), or JSON `{"files": [base64]}`.
        """
        began, serving = time.perf_counter(), self.handler.serving
        if self.prepare is None:
            raise Trouble(501, "NOT_IMPLEMENTED", "This project has no hook `prepare`, which reads files: POST its "
                          "numbers to /invocations.")
        details, keep = (_switch(request, name, default) for name, default in (("details", False), ("keep", True)))
        files = await _files(request)
        inputs = await self._prepared(serving.champion, files)
        shadow_inputs = None
        if serving.shadow and serving.shadow.facts.metadata != serving.champion.facts.metadata:
            shadow_inputs = await self._prepared(serving.shadow, files)
        reply = await self.handler.ask(serving, inputs, began=began, keep=keep, aloud=details,
                                       shadow_inputs=shadow_inputs)
        told = {"model": serving.champion.facts.name, "version": serving.champion.facts.version,
                "milliseconds": round(reply.milliseconds, 3),
                "answers": [_told_of(serving.champion, reply.answers, row) for row in range(len(files))]}
        for row, each in enumerate(told["answers"]):
            if keep and self.handler.log:
                each["id"] = reply.ids[row]
            if details:
                each["prepared"] = np.round(next(iter(inputs.values()))[row].astype(float), 4).tolist()
        if details and serving.shadow:
            told["shadow"] = {"model": serving.shadow.facts.name, "version": serving.shadow.facts.version,
                              "answers": reply.shadow and [_told_of(serving.shadow, reply.shadow, row)
                                                           for row in range(len(files))]}
        return _json(told)

    async def _prepared(self, model: Portable, files: list[tuple[bytes, str]]) -> dict[str, np.ndarray]:
        """What the hook `prepare` makes of files; the model's input."""
        loop = asyncio.get_running_loop()
        try:
            given = await loop.run_in_executor(self.preparing, lambda: self.prepare(
                [Given(*file) for file in files], model.facts.metadata))
        except UserError as refused:
            raise Trouble(422, "INVALID_PARAMETER_VALUE", str(refused)) from None
        except Exception:  # of anybody's hook on anybody's bytes
            trace()
            raise Trouble(422, "INVALID_PARAMETER_VALUE", "This file cannot be read.") from None
        if len(model.inputs) != 1:
            raise Trouble(501, "NOT_IMPLEMENTED", "The model has several inputs: POST them to /invocations.")
        return {model.inputs[0].name: np.ascontiguousarray(given, dtype=model.dtype)}

    async def label(self, request: Request) -> Response:
        """Say what the right answer was: `{"id": ..., "label": ...}`. It is on the disk when this returns."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Trouble(415, "BAD_REQUEST", "The content type must be application/json.")
        content = protocol.parsed(await request.body(), "application/json")
        id, label = content.get("id"), content.get("label")
        if not isinstance(id, str) or not isinstance(label, str) or not 0 < len(label) <= 100 or len(id) > 100:
            raise wrong("The body must be {\"id\": the answer's id, \"label\": the right label}, both text.")
        known = self.handler.serving.champion.labels
        if known and label not in known:
            raise wrong(f"The label must be one of {', '.join(known)}.")
        if self.handler.log is None:
            raise Trouble(501, "NOT_IMPLEMENTED", "This server keeps no log.")
        try:
            await asyncio.wrap_future(self.handler.log.label(id, label))
        except Unknown:
            raise Trouble(404, "RESOURCE_DOES_NOT_EXIST", "The log has no answer with this id.") from None
        except Full as error:
            raise Trouble(507, "INTERNAL_ERROR", f"The label was not kept: {error}.") from None
        self.handler.metrics.labels.inc()
        return _json({"id": id, "label": label})

    # -- about the server ------------------------------------------------------------------------------------------

    async def health(self) -> Response:
        """Whether the server lives."""
        return _json({"status": "ok"})

    async def ready(self) -> Response:
        """Whether a model is loaded and checked."""
        ready = self.handler.serving is not None
        return _json({"ready": ready}, 200 if ready else 503)

    async def version(self) -> Response:
        """Which models answer, what they were made from, and what was refused."""
        handler, serving = self.handler, self.handler.serving
        return _json({
            "name": self.contract.name, "champion": _facts(serving.champion),
            "shadow": serving.shadow and _facts(serving.shadow), "since": handler.since,
            "arithmetic": f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider, {platform.machine()}",
            "registry": handler.note or "ok", "refused": handler.refused, "keeps_inputs": handler.keep_inputs,
            "labels": serving.champion.labels, **handler.about(),
        })

    async def metrics(self) -> Response:
        """Counts and times, for Prometheus."""
        return Response(self.handler.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def first(self) -> Response:
        """The page, or where to go where the project has none."""
        if "/" in self.pages:
            return self._file("/")
        return _json({"name": self.contract.name, "ask": ["/invocations", "/predict"], "more": "/openapi.json"})

    async def page(self, request: Request) -> Response:
        return self._file(request.url.path)

    def _file(self, path: str) -> Response:
        file = self.pages[path]
        kind = KINDS[file.suffix]
        return Response(file.read_bytes(), media_type=f"{kind}; charset=utf-8", headers={"cache-control": "no-cache"})


def _pages(page: str | None) -> dict[str, object]:
    """The page at /, and the files beside it that have its name and another ending: its script, style and icon."""
    if page is None:
        return {}
    file = root() / page
    beside = {f"/{each.name}": each for each in sorted(file.parent.glob(f"{file.stem}.*")) if each.suffix in KINDS}
    return {"/": file, **{path: each for path, each in beside.items() if each != file}}


async def _files(request: Request) -> list[tuple[bytes, str]]:
    """The files of a request, each with a name for a person."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            async with request.form(max_files=FILES, max_fields=FILES) as form:
                found = [await each.read() for _, each in form.multi_items() if not isinstance(each, str)]
        except HTTPException as error:
            raise wrong(f"The form cannot be read: {error.detail}.") from None
    elif kind == "application/json":
        texts = protocol.parsed(await request.body(), kind).get("files")
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise wrong('The body must be {"files": [a file in base64, ...]}.')
        try:
            found = [base64.b64decode(each, validate=True) for each in texts]
        except ValueError:
            raise wrong("Each of the files must be in base64.") from None
    elif kind.startswith("image/") or kind == "application/octet-stream":
        found = [await request.body()]
    else:
        raise Trouble(415, "BAD_REQUEST", "The content type must be image/png or another picture, multipart/form-data, "
                      "or application/json.")
    if not found or not all(found):
        raise wrong("The request holds no file, or an empty one.")
    if len(found) > FILES:
        raise Trouble(413, "BAD_REQUEST", f"One request may hold {FILES} files, found {len(found)}.")
    return [(each, "the file" if len(found) == 1 else f"file {number}") for number, each in enumerate(found, start=1)]


def _told_of(model: Portable, answers, row: int) -> dict:
    """One answer in full: `answer` is null for "I do not know"."""
    best, value, strangeness, known = verdict(model, answers, row)
    outputs = np.atleast_1d(answers.outputs[row]).astype(float)
    labels = model.labels if len(model.labels) == len(outputs) else map(str, range(len(outputs)))
    return {"answer": best if known else None, "best": best, "probability": round(value, 6),
            "probabilities": {label: round(float(each), 6) for label, each in zip(labels, outputs)},
            "strangeness": None if strangeness is None else round(strangeness, 6),
            "limit": model.limit if np.isfinite(model.limit) else None}


def _heard(reply: Reply) -> list[str | None]:
    found = (verdict(reply.serving.champion, reply.answers, row) for row in range(len(reply.ids)))
    return [best if known else None for best, _, _, known in found]


def _facts(model: Portable) -> dict:
    tags = model.facts.tags
    return {"version": model.facts.version, "model": model.facts.name, "source": model.facts.source,
            "commit": tags.get("git_commit"), "dvc_lock": tags.get("dvc_lock"), "digest": model.digest,
            "data": tags.get("data"), "input": list(model.shape),
            "limit": model.limit if np.isfinite(model.limit) else None}


def _switch(request: Request, name: str, default: bool) -> bool:
    given = request.query_params.get(name)
    if given not in (None, "0", "1"):
        raise wrong(f"{name} must be 0 or 1.")
    return default if given is None else given == "1"


def _json(content: dict, status: int = 200) -> Response:
    return Response(json.dumps(content, allow_nan=False, separators=(",", ":")), status, media_type="application/json")


async def _told(request: Request, error: Exception) -> Response:
    """Any error as the one form that errors have."""
    if isinstance(error, HTTPException):
        said = {404: f"There is no {request.url.path[:100]} here; /openapi.json lists what there is.",
                405: f"{request.url.path[:100]} is not asked by {request.method}."}
        error = Trouble(error.status_code, "ENDPOINT_NOT_FOUND" if error.status_code == 404 else "BAD_REQUEST",
                        said.get(error.status_code, str(error.detail)))
    elif not isinstance(error, Trouble):
        trace()
        error = Trouble(500, "INTERNAL_ERROR", "The server could not answer this.")
    return JSONResponse(json.loads(error.body()), error.status, headers=error.headers)
