"""The routes of the server."""

import asyncio
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

import groundup
from groundup.page.files import KINDS, POLICY, media_type, page_files
from groundup.serving import answers
from groundup.serving.answers import ApiError, as_json
from groundup.serving.exchange import Exchange, unless_gone
from groundup.serving.inspect_protocol import Inspected, InspectRequest, check_size
from groundup.serving.place import Place
from groundup.serving.protocol import ChatRequest, CompletionRequest
from groundup.serving.service import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": answers.ErrorBody, "description": what}
    for status, what in {
        400: "The request is wrong; `param` names the field",
        401: "The key is missing or wrong",
        404: "There is no such model or path",
        408: "The body came too slowly",
        413: "The body is too large",
        415: "The body is no JSON",
        421: "The name in Host is not this server's",
        429: "The server has as much to do as it takes",
        431: "The headers are too many or too large",
        503: "The server is loading, is about to stop, or failed",
    }.items()
}
JSON = "application/json"
# of a file of the page: FastAPI would take all answers for plain text
PARTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {f"{kind}; charset=utf-8": {} for kind in sorted({*KINDS.values()})}},
    **{status: known | {"content": {JSON: {}}} for status, known in ERRORS.items()},
}
REFERENCE = "#/components/schemas/{model}"


def make_app(place: Place) -> FastAPI:
    """Put the routes together.

    Args:
        place: What the server has.
    """
    app = FastAPI(title="groundup", version=groundup.__version__, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False  # a redirect would name this host, behind whatever proxy
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _fault)
    _add_pages(app, place)
    _add_page(app, place)

    @app.post("/v1/completions", response_model=None, responses=_answers(answers.Completion))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Write texts that follow prompts."""
        service = place.ready()
        service.check_model(body.model)
        plan = await asyncio.to_thread(service.plan_completion, body)
        return await Exchange(place, service, plan, request).answer()

    @app.post("/v1/chat/completions", response_model=None, responses=_answers(answers.Chat))
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Write the next message of a chat."""
        service = place.ready()
        service.check_model(body.model)
        async with place.rendering:  # a slow template takes one thread, and not all there are
            plan = await asyncio.to_thread(service.plan_chat, body)
        return await Exchange(place, service, plan, request).answer()

    app.openapi = cache(partial(_with_events, app.openapi))
    return app


def _with_events(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Make the OpenAPI document, and say in it what the events of streams look like."""
    found = make()
    for path, operations in found["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own, which nobody gets
            if path in answers.EVENTS:
                streamed = {"text/event-stream": _event_schema(path)}
                operation["responses"]["200"]["content"] |= streamed
    made = models_json_schema(
        [(kind, "serialization") for kind in answers.EVENTS.values()], ref_template=REFERENCE
    )[1]
    found["components"]["schemas"] |= made["$defs"]
    return found


def _answers(model: type) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that writes texts, for the OpenAPI document."""
    return {200: {"model": model, "description": "The texts, or events of them"}, **ERRORS}


def _event_schema(path: str) -> dict[str, Any]:
    """What each event of a route's streams looks like."""
    kinds = answers.EVENTS[path], answers.ErrorBody
    contents = [{"$ref": REFERENCE.format(model=kind.__name__)} for kind in kinds]
    said = {"contentMediaType": "application/json", "contentSchema": {"anyOf": contents}}
    data = {"type": "string", "anyOf": [{"const": "[DONE]"}, said]}
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"itemSchema": event}


def _add_pages(app: FastAPI, place: Place) -> None:
    """Add the routes that write no text."""

    @app.get("/health", responses={200: {"model": answers.Health}, 503: {"model": answers.Health}})
    async def health() -> Response:
        """Say whether requests are taken."""
        return _json({"status": place.state}, 200 if place.state == "ok" else 503)

    @app.get("/v1/models", response_model=answers.ModelList, responses=ERRORS)
    async def models() -> Response:
        """List the models: the one that is served."""
        return _json({"object": "list", "data": [_card(place.ready())]})

    @app.get("/v1/models/{name:path}", response_model=answers.ModelCard, responses=ERRORS)
    async def model(name: str) -> Response:
        """Describe the model."""
        service = place.ready()
        service.check_model(name)
        return _json(_card(service))

    @app.get("/metrics", response_class=PlainTextResponse, responses=ERRORS)
    async def metrics() -> Response:
        """Give Prometheus its numbers."""
        place.ready()
        assert place.metrics is not None
        return Response(place.metrics.page(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI, place: Place) -> None:
    """Add the page, and what it asks for beside texts."""

    @app.get("/", response_class=HTMLResponse)
    async def page() -> Response:
        """Send the page on which people write, and see what happens inside the model."""
        return _file("index.html")

    @app.get("/page/{name}", response_class=PlainTextResponse, responses=PARTS)
    async def part(name: str) -> Response:
        """Send a file of the page."""
        if name not in page_files():
            raise ApiError(404, f"the page has no file {name[:200]!r}")
        return _file(name)

    @app.get("/v1/run", response_model=answers.RunStory | None, responses=ERRORS)
    async def run() -> Response:
        """Say what is on record of the run that the model came from; null without one."""
        return _json(await asyncio.to_thread(place.ready().story))

    @app.post("/v1/inspect", response_model=Inspected, responses=ERRORS)
    async def inspect(body: InspectRequest, request: Request) -> Response:
        """Look into a text: what the model computes on its way through it."""
        service = place.ready()
        service.check_model(body.model)
        wanted = body.wanted()
        is_read = not wanted.is_tokens_alone
        tokens = await asyncio.to_thread(service.prompt_tokens, body.prompt, is_read)
        check_size(body, len(tokens))
        place.open += 1
        try:
            found = await unless_gone(service.inspector.answer(tokens, wanted), request)
        finally:
            place.open -= 1
        head = {"model": service.name, "system_fingerprint": service.fingerprint}
        return Response(await asyncio.to_thread(as_json, found | head), media_type=JSON)


def _file(name: str) -> Response:
    """Send a file of the page. Browsers ask whether it has changed each time."""
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    headers |= {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    return Response(page_files()[name], headers=headers, media_type=media_type(name))


def _card(service: Service) -> dict[str, Any]:
    known = {"id": service.name, "object": "model", "created": service.created}
    return known | {"owned_by": "groundup", "max_model_len": service.context}


def _json(value: Any, status: int = 200) -> Response:
    return Response(as_json(value), status, media_type=JSON)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    response = _json(error.body, error.status)
    if error.status in (429, 503):
        response.headers["retry-after"] = "1"
    return response


async def _invalid(_request: Request, error: Exception) -> Response:
    """Answer a body that has a wrong field with the first of them."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _json(ApiError(400, f"the body is no JSON: {first['ctx']['error']}").body, 400)
    # pydantic names functions in brackets, too
    where = [str(each) for each in first["loc"] if each != "body" and "[" not in str(each)]
    message = str(first["msg"])
    if first["type"] == "missing" and not where:
        return _json(ApiError(400, "the request has no body: send JSON").body, 400)
    if not where:  # of several fields, of which the message names one
        name, _, message = message.partition(": ")
        where = [name] if message else []
        message = message or name
    shown = ".".join(where)[:200]
    error = ApiError(400, f"{shown}: {message}" if shown else message, where[0] if where else None)
    return _json(error.body, 400)


async def _fault(_request: Request, _error: Exception) -> Response:
    """Answer where the server itself is wrong; uvicorn logs the error."""
    return _json(ApiError(500, "a fault of the server; its log has more").body, 500)


async def _no_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json(ApiError(error.status_code, str(error.detail)).body, error.status_code)
    response.headers.update(error.headers or {})
    return response
