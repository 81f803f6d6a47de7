"""What every request passes before the app: keys, hosts, sizes and times, and a line in the log.

All of it is pure ASGI, so that streams pass as they are.
"""

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from groundup.serving.answers import ApiError, as_json

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

access = logging.getLogger(__name__)

MOST_HEADERS = 64
MOST_HEADER_BYTES = 32 * 2**10
MOST_BODY_BYTES = 2**20
BODY_SECONDS = 30
# what is still read of the body of a request that was refused, so that its client sees the answer
MOST_BYTES_AFTER, SECONDS_AFTER = 16 * 2**20, 5
OPEN_PATHS, OPEN_FOLDER = ("/health", "/"), "/page/"  # without a key
TEXTS = "/v1/completions", "/v1/chat/completions"
POSTS = *TEXTS, "/v1/inspect"
LOOPBACK = "localhost", "127.0.0.1", "[::1]"
ABSOLUTE = re.compile(r"^https?://[^/]*", re.IGNORECASE)
REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Limits:
    """Who may ask, and for how much.

    Args:
        api_key: The key that clients must send, or None.
        hosts: The names in `Host` that are answered without a key; empty answers all.
        body_seconds: The seconds in which a body must have arrived.
    """

    api_key: str | None = None
    hosts: frozenset[str] = frozenset()
    body_seconds: float = BODY_SECONDS


@dataclass
class Visit:
    """What is known of one request, for the log.

    Attributes:
        id: The number of the request, the client's own if it gave one.
        status: The status of the answer.
        numbers: Tokens and times that the app adds.
    """

    id: str
    status: int = 0
    numbers: dict[str, int | float | str] = field(default_factory=dict)


class Gate:
    """Lets requests through to an app, or refuses them.

    Args:
        app: The app.
        limits: Who may ask, and for how much.
        log: Takes a line for each request.
        check_room: Refuses, by an ApiError, where no more texts can be asked for.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        log: Callable[[Visit, str, str, float], None],
        check_room: Callable[[], None],
    ) -> None:
        self.app, self.limits, self.log, self.check_room = app, limits, log, check_room

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI calls it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, visit, method = time.perf_counter(), Visit(_request_id(scope)), scope["method"]
        scope["path"] = ABSOLUTE.sub("", scope["path"]) or "/"  # as proxies are asked
        scope["state"] = {**scope.get("state", {}), "visit": visit}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", visit.id.encode("ascii")),
                ]
            await send(message)

        arriving = Arriving(receive, _header(scope["headers"], b"expect").lower())
        if method == "HEAD":  # the protocol leaves the body out
            scope = {**scope, "method": "GET"}
        try:
            self._check(scope)
            body = await self._body(scope, arriving)
            if scope["path"] in TEXTS:  # before anything else is done for it
                self.check_room()
            await self.app(scope, _replay(body, receive), answer)
        except ApiError as error:
            await send_error(error, answer, arriving)
        finally:
            seconds = time.perf_counter() - begun
            self.log(visit, method, scope["path"], seconds)

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        """Refuse by headers alone."""
        headers = scope["headers"]
        size = sum(len(name) + len(value) for name, value in headers)
        if len(headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
            allowed = f"{MOST_HEADERS} headers of {MOST_HEADER_BYTES:,} bytes are allowed"
            raise ApiError(431, f"{len(headers)} headers of {size:,} bytes: {allowed}")
        if self.limits.api_key is None:
            self._check_host(_header(headers, b"host"))
        elif not _is_open(scope["path"]):
            _check_key(_header(headers, b"authorization"), self.limits.api_key)
        if scope["method"] == "POST" and scope["path"] in POSTS:
            kind = _header(headers, b"content-type").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                problem = f"content-type {kind[:100].decode('latin-1')!r} must be application/json"
                raise ApiError(415, problem)
            encoding = _header(headers, b"content-encoding").strip().lower()
            if encoding not in (b"", b"identity"):
                problem = f"content-encoding {encoding[:100].decode('latin-1')!r} is not understood"
                raise ApiError(415, f"{problem}: send the body as it is")

    def _check_host(self, host: bytes) -> None:
        """Refuse names that a web page could have led here by DNS."""
        name = re.sub(r":[0-9]*$", "", host.decode("latin-1").lower())
        if self.limits.hosts and name not in self.limits.hosts:
            remedy = "start the server with --allow-host for that name, or with --api-key"
            raise ApiError(421, f"Host {name[:200]!r} is not this server's; {remedy}")

    async def _body(self, scope: MutableMapping[str, Any], arriving: "Arriving") -> bytes:
        """Receive a whole body, of a limited size and in a limited time."""
        stated = _header(scope["headers"], b"content-length")
        too_large = f"the body is larger than {MOST_BODY_BYTES:,} bytes"
        if stated.isdigit() and int(stated[:20]) > MOST_BODY_BYTES:
            raise ApiError(413, too_large)
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while not arriving.ended:
                    body += await arriving.next()
                    if len(body) > MOST_BODY_BYTES:
                        raise ApiError(413, too_large)
        except TimeoutError:
            late = f"the body wasn't there after {self.limits.body_seconds:g} seconds"
            raise ApiError(408, late) from None
        if arriving.left:
            raise ApiError(408, "the client left before its body was there")
        return bytes(body)


class Arriving:
    """The body of a request, part by part.

    Args:
        receive: Waits for the next part, as ASGI has it.
        expect: The header by which a client may wait until its body is asked for.

    Attributes:
        ended: Whether nothing comes any more.
        left: Whether that is because the client has gone.
        is_held_back: Whether the client doesn't send it before it is asked to.
    """

    def __init__(self, receive: Receive, expect: bytes = b"") -> None:
        self.receive, self.ended, self.left = receive, False, False
        self.is_held_back = expect == b"100-continue"

    async def next(self) -> bytes:
        """Return the next part."""
        self.is_held_back = False
        message = await self.receive()
        self.left = message["type"] == "http.disconnect"
        self.ended = self.left or not message.get("more_body")
        return message.get("body", b"")

    async def discard(self) -> None:
        """Read what else comes, within limits: who closes before, takes back what it has said."""
        size = 0
        if self.is_held_back:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_AFTER):
                while not self.ended and size < MOST_BYTES_AFTER:
                    size += len(await self.next())


def _is_open(path: str) -> bool:
    """Whether a path is answered without a key: the page, which asks for one, and /health."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _check_key(authorization: bytes, key: str) -> None:
    """Compare keys in a time that doesn't tell where they differ."""
    scheme, _, given = authorization.partition(b" ")
    right = hmac.compare_digest(given.strip(), key.encode("utf-8", "surrogateescape"))
    if scheme.lower() != b"bearer" or not right:
        raise ApiError(401, "the key is missing or wrong: send Authorization: Bearer KEY")


def _header(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((value for each, value in headers if each == name), b"")


def _request_id(scope: MutableMapping[str, Any]) -> str:
    """The client's own id, if it is harmless, or a new one."""
    given = _header(scope["headers"], b"x-request-id")
    return given.decode("ascii") if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the app a body that was received, and then what else comes: the client's leaving."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def send_error(error: ApiError, send: Send, arriving: Arriving) -> None:
    """Answer with an error, and close if the client is still sending, once it has sent that.

    Args:
        error: What is wrong.
        send: Sends a message of the answer.
        arriving: The request's body, of which parts may be on their way.
    """
    headers = [(b"content-type", b"application/json")]
    if not arriving.ended:
        headers.append((b"connection", b"close"))
    if error.status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = as_json(error.body)
    headers.append((b"content-length", str(len(body)).encode("ascii")))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await arriving.discard()
    await send({"type": "http.response.body", "body": b""})
