"""The routes of OpenAI's API that this package supports, and their errors."""

import io
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from janusflow.pipelines.pipeline_janusflow import JanusFlowPipeline
from janusflow.serve import answers, errors, image_requests
from janusflow.serve.errors import ApiError
from janusflow.serve.schemas import ChatRequest, EditRequest, ImageRequest
from janusflow.serve.worker import Busy, Cancelled, ModelJob, Stopping, Worker
from janusflow.utils.images import decode, to_rgb
from janusflow.utils.text import printable

log = logging.getLogger("janusflow.serve")
LOOK = 0.2  # seconds between two looks whether the client is still there
HEAD = {"cache-control": "no-store"}
OF_ADDRESS = ("api-version",)  # which Azure's clients add


def create_app(pipe, name: str, places: int = 16) -> FastAPI:
    """Returns the application around one pipeline of either family, which clients call `name`.

    At most `places` requests wait or run; further ones get status 429 with Retry-After.
    """
    worker = Worker(places)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(title="janusflow", lifespan=life)
    app.router.route_class = StrictRoute
    app.state.worker = worker
    _tell_errors(app)
    _list_models(app, name)

    def start(asked, work: Callable[[ModelJob], Any]) -> ModelJob:
        _check_model(asked.model, name)
        if asked.user:
            log.info("a job for user %s", printable(asked.user, 80))
        return worker.submit(ModelJob(work))

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "model": name, "busy": worker.busy, "places": places}

    @app.post("/v1/images/generations")
    async def generations(asked: ImageRequest, request: Request) -> JSONResponse:
        image_requests.check(pipe, asked)
        job = start(asked, lambda job: image_requests.generate(pipe, asked, job))
        return JSONResponse(await _result(job, worker, request), headers=HEAD)

    @app.post("/v1/images/edits")
    async def edits(request: Request) -> JSONResponse:
        asked, files = await _form(request)
        _check_edit(pipe, asked)
        job = start(asked, lambda job: image_requests.edit(pipe, asked, *_images(files), job))
        return JSONResponse(await _result(job, worker, request), headers=HEAD)

    @app.post("/v1/chat/completions", response_model=None)
    async def completions(asked: ChatRequest, request: Request) -> JSONResponse | StreamingResponse:
        job = start(asked, lambda job: answers.answer(pipe, asked, job))
        reply = Reply(name)
        if not asked.stream:
            return JSONResponse(reply.whole(*await _result(job, worker, request)), headers=HEAD)
        events = _events(job, worker, request)
        first = await anext(events)  # an error comes before the answer has begun
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        lines = _stream(reply, first, events, asked.n or 1, usage)
        return StreamingResponse(lines, media_type="text/event-stream", headers=HEAD)

    return app


class StrictRoute(APIRoute):
    """A route that refuses what JSON and web frameworks drop: keys that come twice, and parameters
    in the address.
    """

    def get_route_handler(self) -> Callable:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            for name in request.query_params:
                if request.method == "POST" and name not in OF_ADDRESS:
                    said = f"{printable(name, 40)} stands in the address; send it in the body"
                    raise ApiError(said, printable(name, 40), "extra_forbidden")
            if "json" in request.headers.get("content-type", "").lower():
                errors.check_keys(await request.body())
            return await handle(request)

        return strict


def _list_models(app: FastAPI, name: str) -> None:
    """Adds the routes that describe the served model."""
    card = dict(id=name, object="model", created=int(time.time()), owned_by="janusflow")

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict:
        _check_model(model, name)
        return card


def _check_model(asked: str | None, name: str) -> None:
    if asked is not None and asked != name:
        raise ApiError(
            f"there is no model {printable(asked, 80)!r} here; this server has {name!r}",
            "model",
            "model_not_found",
            404,
        )


# Waiting for a job


async def _events(
    job: ModelJob, worker: Worker, request: Request
) -> AsyncIterator[tuple[str, Any]]:
    """Yields ("told", value) and at last ("done", result), and raises the job's exceptions.

    The job ends once nobody listens any more.
    """
    import asyncio

    try:
        while True:
            if worker.stopping:
                raise Stopping
            try:
                kind, value = await asyncio.wait_for(job.events.get(), LOOK)
            except asyncio.TimeoutError:
                if await request.is_disconnected():
                    raise Cancelled from None
                continue
            if kind == "failed":
                raise value
            yield kind, value
            if kind == "done":
                return
    finally:
        worker.cancel(job)


async def _result(job: ModelJob, worker: Worker, request: Request) -> Any:
    events = _events(job, worker, request)
    try:
        async for kind, value in events:
            if kind == "done":
                return value
    finally:
        await events.aclose()


# Edits come as a form


async def _form(request: Request) -> tuple[EditRequest, dict[str, bytes]]:
    """Returns the form's fields, and the contents of `image` and `mask`."""
    try:
        async with request.form(max_files=2, max_fields=32) as form:
            fields, files = await _entries(form)
    except HTTPException as error:
        raise ApiError(f"the form cannot be read ({error.detail}); send it again") from error
    if unknown := sorted(files.keys() - {"image", "mask"}):
        said = f"{printable(unknown[0], 40)} is not supported by this server; leave it out"
        raise ApiError(said, unknown[0], "extra_forbidden")
    if "image" not in files:
        raise ApiError("image is missing; send the file to edit", "image", "missing")
    try:
        return EditRequest(**fields), files
    except ValidationError as error:
        found = error.errors()
        raise errors.of_validation([e | {"loc": ("body", *e["loc"])} for e in found]) from error


async def _entries(form: FormData) -> tuple[dict[str, str], dict[str, bytes]]:
    """Returns the fields and the contents of the files. Raises ApiError for a name that came
    twice.
    """
    fields, files = {}, {}
    for name, value in form.multi_items():
        target = name.removesuffix("[]") if not isinstance(value, str) else name
        if target in fields or target in files:
            raise ApiError(f"{printable(name, 40)} came twice; give it once", target)
        if isinstance(value, str):
            fields[target] = value
        else:
            files[target] = await value.read()
    return fields, files


def _check_edit(pipe, asked: EditRequest) -> None:
    if not isinstance(pipe, JanusFlowPipeline):
        raise ApiError("Janus-Pro does not edit images; serve a JanusFlow model")
    if asked.quality not in (None, "auto"):
        raise ApiError("quality is not for edits; give num_inference_steps", "quality")
    image_requests.check(pipe, asked)


def _images(files: dict[str, bytes]) -> tuple[Image.Image, Image.Image | None]:
    """Returns the image and a mask, white where it may change (OpenAI's: transparent)."""
    try:
        image = decode(files["image"], "the image")
        if "mask" not in files:
            return image, None
        decode(files["mask"], "the mask")  # its size and kind
        with Image.open(io.BytesIO(files["mask"])) as mask:
            alpha = mask.convert("RGBA").getchannel("A")
        if alpha.getextrema()[0] > 0:
            raise ValueError(
                "the mask has no transparent area; make transparent what should be edited"
            )
    except ValueError as error:
        raise ApiError(str(error), "mask" if "mask" in str(error) else "image") from error
    if alpha.size != image.size:
        sizes = (f"{one.width} x {one.height}" for one in (alpha, image))
        said = "the mask is {} and the image {}; make them the same size".format(*sizes)
        raise ApiError(said, "mask")
    return image, to_rgb(alpha.point(lambda a: 255 if a == 0 else 0)).convert("L")


# Chat


class Reply:
    """Builds OpenAI's response objects for one chat completion."""

    def __init__(self, model: str):
        self.head = dict(id=f"chatcmpl-{uuid.uuid4().hex}", created=int(time.time()), model=model)

    def whole(self, prompt: int, choices: list[answers.Choice]) -> dict:
        rows = [
            dict(
                index=i,
                message=dict(role="assistant", content=choice.text, refusal=None),
                logprobs=None,
                finish_reason=choice.reason,
            )
            for i, choice in enumerate(choices)
        ]
        usage = usage_of(prompt, choices)
        return self.head | dict(object="chat.completion", choices=rows, usage=usage)

    def part(self, choices: list[dict], **more) -> str:
        content = self.head | dict(object="chat.completion.chunk", choices=choices) | more
        return line(content)

    def piece(self, index: int, delta: dict, reason: str | None = None) -> str:
        return self.part([dict(index=index, delta=delta, logprobs=None, finish_reason=reason)])


def line(content: dict) -> str:
    """Formats one server-sent event."""
    return f"data: {json.dumps(content)}\n\n"


def usage_of(prompt: int, choices: list[answers.Choice]) -> dict:
    spent = sum(choice.tokens for choice in choices)
    return dict(prompt_tokens=prompt, completion_tokens=spent, total_tokens=prompt + spent)


async def _stream(
    reply: Reply, first: tuple[str, Any], events: AsyncIterator, count: int, usage: bool
) -> AsyncIterator[str]:
    """Yields the lines of a streamed answer; an error that occurs later is a line of its own."""
    try:
        for index in range(count):
            yield reply.piece(index, {"role": "assistant", "content": ""})
        async for kind, value in _chained(first, events):
            if kind == "told":
                index, told = value
                ends = isinstance(told, answers.Choice)
                delta = {} if ends else {"content": told}
                yield reply.piece(index, delta, told.reason if ends else None)
            elif usage:
                yield reply.part([], usage=usage_of(*value))
    except Cancelled:
        return
    except Exception as error:
        status, content = told_of(error)
        yield line(content | {"status": status})
    finally:
        await events.aclose()
    yield "data: [DONE]\n\n"


async def _chained(first: tuple[str, Any], events: AsyncIterator) -> AsyncIterator:
    yield first
    async for event in events:
        yield event


# Errors


def told_of(error: BaseException) -> tuple[int, dict]:
    """Returns status and body for an exception.

    Invalid requests are the pipeline's ValueErrors. Any other exception is logged, and the client
    is only told that something went wrong.
    """
    if isinstance(error, ApiError):
        return error.status, errors.body(error.status, str(error), error.param, error.code)
    if isinstance(error, Busy):
        return 429, errors.body(429, str(error), code="queue_full")
    if isinstance(error, Stopping):
        return 503, errors.body(503, "the server is stopping; ask again later", code="stopping")
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return 400, errors.body(400, str(error))
    log.error("a request failed", exc_info=error)
    return 500, errors.body(500, "this did not work; the server's log says why", code="failed")


def _tell_errors(app: FastAPI) -> None:
    async def told(_request: Request, error: Exception) -> JSONResponse:
        status, content = told_of(error)
        headers = {"retry-after": str(error.wait)} if isinstance(error, Busy) else None
        return JSONResponse(content, status, headers)

    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return await told(request, errors.of_validation(error.errors()))

    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {printable(request.url.path, 80)}"
        said = f"there is no {where} here" if error.status_code in (404, 405) else error.detail
        if "parsing the body" in str(said):  # FastAPI's word for bytes that are no text
            said = "the body is no JSON in UTF-8; send a JSON object"
        status = error.status_code
        return JSONResponse(errors.body(status, str(said)), status, getattr(error, "headers", None))

    async def left(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse(errors.body(499, "the client left"), 499)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Cancelled, left)
    for kind in (ApiError, Busy, Stopping, ValueError, Exception):
        app.add_exception_handler(kind, told)
