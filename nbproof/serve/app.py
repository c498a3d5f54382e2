"""The application: its addresses. FastAPI describes them at /docs and /openapi.json."""

import io
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from prometheus_client import generate_latest
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from nbproof.notebook.errors import UserError
from nbproof.notebook.files import root
from nbproof.pipeline import config
from nbproof.serve import protocol
from nbproof.serve.follow import Follower
from nbproof.serve.guard import PROBES, Guard, respond
from nbproof.serve.model import OnnxModel
from nbproof.serve.options import LOCAL, Options
from nbproof.serve.predictor import Predictor

MAX_FILES = 64  # in one request
SHOWN = ("id", "answer", "best", "probability", "probabilities", "ood_score")  # of a prediction
ENDINGS = (".html", ".js", ".css", ".svg")  # of the page and what it may have beside it
router = APIRouter()


def _body(*kinds: str) -> dict:
    return {"requestBody": {"required": True, "content": {kind: {} for kind in kinds}}}


class File(io.BytesIO):
    """A file of a request, which the hook `prepare` opens, and names in its messages."""

    name = "the file"

    def __repr__(self) -> str:
        return self.name


@router.post("/invocations", openapi_extra=_body("application/json"))
async def invocations(request: Request) -> Response:
    """Return the champion's predictions, in MLflow's scoring protocol.

    The body is JSON with dataframe_split, dataframe_records or inputs.
    """
    predictor, began = request.app.state.predictor, time.time()
    pair = predictor.follower.pair
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise HTTPException(415, "The content type must be application/json.")
    inputs = protocol.parse(await request.body(), pair.champion)
    outputs, rows = await predictor.predict(pair, inputs, began)
    return _json({
        "predictions": outputs, "answers": [row["answer"] for row in rows],
        "ids": [row["id"] for row in rows], "version": pair.champion.version.version,
    }, BackgroundTask(predictor.shadow, pair, inputs, rows, []))


@router.post("/predict", openapi_extra=_body("image/png", "multipart/form-data"))
async def predict(request: Request, details: bool = False, keep: bool = True) -> Response:
    """Return the champion's predictions for files, such as pictures.

    The body is one file, or a form with several. An `answer` is null if the model abstains.
    `details` adds the prepared input; without `keep` nothing is logged.
    """
    predictor, began = request.app.state.predictor, time.time()
    pair = predictor.follower.pair
    model = pair.champion
    if predictor.hook is None:
        raise HTTPException(501, "This project has no hook `prepare`, which reads files: POST the "
                                 "numbers to /invocations.")
    files = await _files(request)
    inputs = await predictor.prepare(model, files)
    _, rows = await predictor.predict(pair, inputs, began, keep)
    answers = [{key: row[key] for key in SHOWN} for row in rows]
    if details:
        for answer, prepared in zip(answers, next(iter(inputs.values()))):
            answer["prepared"] = np.round(prepared.astype(float), 4)
    shadow = BackgroundTask(predictor.shadow, pair, inputs, rows, files) if keep else None
    return _json({
        "model": model.version.model, "version": model.version.version,
        "milliseconds": rows[0]["milliseconds"], "answers": answers}, shadow)


@router.post("/label")
def label(request: Request, id: Annotated[str, Body(max_length=100)],
          label: Annotated[str, Body(min_length=1, max_length=100)]) -> dict:
    """Log the true label of the prediction `id`; it is on the disk when this returns."""
    request.app.state.predictor.log.label(id, label)
    return {"id": id, "label": label}


@router.get("/health")
@router.get("/ready")
async def health() -> dict:
    """Tell that the server runs; it never does without a model."""
    return {"status": "ok"}


@router.get("/version")
async def version(request: Request) -> dict:
    """Return which models are served, what they were made from, and what was refused."""
    predictor = request.app.state.predictor
    follower, pair = predictor.follower, predictor.follower.pair
    return {
        "name": config.load().name, "champion": _facts(pair.champion),
        "shadow": pair.challenger and _facts(pair.challenger),
        "registry": follower.problem or "ok", "refused": follower.refused,
        "keeps_inputs": predictor.log_inputs, "labels": pair.champion.labels}


@router.get("/metrics")
def metrics() -> Response:
    """Return counts and times, for Prometheus."""
    return Response(generate_latest(), media_type="text/plain; version=0.0.4")


def create(follower: Follower, log, options: Options) -> FastAPI:
    """Return the application; `log` has `put` and `label`, as nbproof.serve.log.Log."""
    # As `routes`, they are found in half the time that FastAPI takes for an included router.
    app = FastAPI(title=config.load().name, version="1", redoc_url=None, routes=router.routes)
    app.state.predictor = Predictor(follower, log, options)
    for path, file in _pages().items():
        app.add_route(path, lambda _, file=file: FileResponse(
            file, headers={"cache-control": "no-cache"}))
    for kind in (HTTPException, UserError, RequestValidationError):
        app.add_exception_handler(kind, respond)
    closed = {route.path for route in router.routes} - {*PROBES}
    app.add_middleware(Guard, options=options, closed=closed)
    if options.host in LOCAL:  # a page of another name that leads here would read what is sent
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)
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
    files = [File(content) for content in found]
    for number, file in enumerate(files[1:], start=2):
        file.name = f"file {number}"
    return files


def _facts(model: OnnxModel) -> dict:
    version, tags = model.version, model.version.tags
    source = f"run {version.run_id}" if version.run_id else f"models/{version.model}.onnx"
    return {"version": version.version, "model": version.model, "source": source,
            "commit": tags.get("git_commit"), "data": tags.get("data"), "digest": model.digest,
            "uncommitted_changes": tags.get("git_dirty") == "true"}


def _json(content: dict, background: BackgroundTask | None) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", background=background)
