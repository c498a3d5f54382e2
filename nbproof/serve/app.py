"""The application: its addresses. FastAPI describes them at /docs and /openapi.json."""

import io
import time
from pathlib import Path

import numpy as np
import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from prometheus_client import generate_latest
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.serve import protocol
from nbproof.serve.follow import Follower
from nbproof.serve.guard import Guard, respond
from nbproof.serve.model import OnnxModel
from nbproof.serve.options import Options
from nbproof.serve.predictor import Predictor

MAX_FILES = 64  # in one request
LARGE = 100_000  # bytes of a body that is parsed in a thread
ENDINGS = (".html", ".js", ".css", ".svg")  # of the page and what it may have beside it
router = APIRouter()


def _body(*kinds: str) -> dict:
    return {"requestBody": {"required": True, "content": {kind: {} for kind in kinds}}}


class File(io.BytesIO):
    """A file of a request: the hook `prepare` opens it and names it in its messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name


class Label(BaseModel):
    """The label that a person gives to the prediction `id`."""

    id: str = Field(max_length=100)
    label: str = Field(min_length=1, max_length=100)


@router.post("/invocations", openapi_extra=_body("application/json", "text/csv"))
async def invocations(request: Request) -> Response:
    """Return the champion's predictions, in MLflow's scoring protocol.

    The body is CSV, or JSON with dataframe_split, dataframe_records, instances or inputs.
    """
    predictor, began = request.app.state.predictor, time.time()
    pair, body = predictor.follower.pair, await request.body()
    words = body, request.headers.get("content-type", ""), pair.champion
    inputs = await run_in_threadpool(protocol.parse, *words) if len(body) > LARGE else (
        protocol.parse(*words))
    outputs, rows = await predictor.predict(pair, inputs, began)
    return _json({
        "predictions": outputs, "answers": [row["answer"] for row in rows],
        "ids": [row["id"] for row in rows], "version": pair.champion.version.version,
    }, pair.challenger and BackgroundTask(predictor.shadow, pair, inputs, rows, []))


@router.post("/predict", openapi_extra=_body("image/png", "multipart/form-data"))
async def predict(request: Request, details: bool = False, keep: bool = True) -> Response:
    """Return the champion's predictions for files, such as pictures.

    The body is one file, or a form with several. `details` adds the prepared input; without `keep`
    nothing is logged.
    """
    predictor, began = request.app.state.predictor, time.time()
    pair = predictor.follower.pair
    model = pair.champion
    if predictor.hook is None or len(model.inputs) != 1:
        raise HTTPException(501, "This project has no hook `prepare`, which reads files, or a "
                                 "model of several inputs: POST the numbers to /invocations.")
    files = await _files(request)
    inputs = await predictor.prepare(model, files)
    outputs, rows = await predictor.predict(pair, inputs, began, keep)
    answers = [_described(model, *case) for case in zip(rows, outputs)]
    for answer, row, prepared in zip(answers, rows, next(iter(inputs.values()))):
        if keep:
            answer["id"] = row["id"]
        if details:
            answer["prepared"] = np.round(prepared.astype(float), 4)
    shadow = keep and pair.challenger
    return _json({
        "model": model.version.model, "version": model.version.version,
        "milliseconds": round(rows[0]["milliseconds"], 3), "answers": answers,
    }, shadow and BackgroundTask(predictor.shadow, pair, inputs, rows, files))


@router.post("/label")
def label(request: Request, body: Label) -> Response:
    """Log the true label of a prediction; it is on the disk when this returns."""
    predictor = request.app.state.predictor
    known = predictor.follower.pair.champion.labels
    if known and body.label not in known:
        raise UserError(f"The label must be one of {', '.join(known)}.")
    try:
        predictor.log.label(body.id, body.label)
    except KeyError:
        raise HTTPException(404, "The log has no prediction with this id.") from None
    except OSError as error:
        raise HTTPException(507, f"The label was not written: {error}.") from None
    return _json(body.model_dump())


@router.get("/health")
@router.get("/ping")
@router.get("/ready")
async def health() -> Response:
    """Tell that the server runs; it never does without a model."""
    return _json({"status": "ok", "ready": True})


@router.get("/version")
async def version(request: Request) -> Response:
    """Return which models are served, what they were made from, and what was refused."""
    predictor = request.app.state.predictor
    follower, pair = predictor.follower, predictor.follower.pair
    return _json({
        "name": config.load().name, "champion": _facts(pair.champion),
        "shadow": pair.challenger and _facts(pair.challenger), "since": follower.since,
        "registry": follower.problem or "ok", "refused": follower.refused,
        "keeps_inputs": predictor.log_inputs, "labels": pair.champion.labels})


@router.get("/metrics")
def metrics() -> Response:
    """Return counts and times, for Prometheus."""
    return Response(generate_latest(), media_type="text/plain; version=0.0.4")


def create(follower: Follower, log, options: Options) -> FastAPI:
    """Return the application; `log` has `put` and `label`, as nbproof.serve.log.Log."""
    # As `routes`, they are found in half the time that FastAPI takes for an included router.
    app = FastAPI(title=config.load().name, version="1", redoc_url=None, routes=router.routes)
    app.state.predictor = Predictor(follower, log, options)
    pages = _pages()
    for path, file in pages.items():
        app.add_route(path, lambda _, file=file: FileResponse(
            file, headers={"cache-control": "no-cache"}))
    for kind in (HTTPException, UserError):
        app.add_exception_handler(kind, respond)
    app.add_exception_handler(RequestValidationError, _refuse)
    paths = {route.path for route in router.routes}
    app.add_middleware(Guard, options=options, paths=paths, pages=set(pages))
    return app


def _pages() -> dict[str, Path]:
    """Return the page and what it has beside it, by address."""
    if not config.load().page:
        return {}
    page = root() / config.load().page
    return {f"/{file.name}": file for file in page.parent.glob(f"{page.stem}.*")
            if file.suffix in ENDINGS} | {"/": page}


async def _files(request: Request) -> list[File]:
    """Return the files of a form, or the body as one, each with a name for a person."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
            parts = form.multi_items()
            found = [await part.read() for _, part in parts if isinstance(part, UploadFile)]
    else:
        found = [await request.body()]
    if not found or not all(found):
        raise UserError("The request holds no file, or an empty one.")
    return [File(content, "the file" if len(found) == 1 else f"file {number}")
            for number, content in enumerate(found, start=1)]


def _described(model: OnnxModel, row: dict, outputs: np.ndarray) -> dict:
    """Return one prediction in full: `answer` is null if the model abstains."""
    outputs = np.atleast_1d(outputs).tolist()
    labels = model.labels if len(model.labels) == len(outputs) else range(len(outputs))
    shown = {key: row[key] for key in ("answer", "best", "probability", "ood_score")}
    return {**shown, "limit": model.limit if np.isfinite(model.limit) else None,
            "probabilities": {str(label): value for label, value in zip(labels, outputs)}}


def _facts(model: OnnxModel) -> dict:
    version, tags = model.version, model.version.tags
    source = f"run {version.run_id}" if version.run_id else f"models/{version.model}.onnx"
    return {"version": version.version, "model": version.model, "source": source,
            "commit": tags.get("git_commit"), "data": tags.get("data"), "digest": model.digest,
            "uncommitted_changes": tags.get("git_dirty") == "true"}


def _json(content: dict, background: BackgroundTask | None = None) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", background=background or None)


async def _refuse(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return await respond(request, UserError(f"{where}: {first['msg']}."[:300]))
