"""The process of a server: its sockets, its signals and its end."""

import asyncio
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.middleware.cors import CORSMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.console import messages_to, report
from groundup.errors import ServerError
from groundup.serving.answers import ApiError, as_json
from groundup.serving.app import make_app
from groundup.serving.gate import (
    MOST_BYTES_AFTER,
    MOST_HEADER_BYTES,
    SECONDS_AFTER,
    Gate,
    Limits,
    Visit,
)
from groundup.serving.place import Place

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10  # in which the headers of a request must have arrived
DRAIN_SECONDS = 25  # that texts have to end, once the server is to stop; then answers have 3
END_SECONDS = 2  # that the last step of the engine has to end
MOST_CONNECTIONS = 1000
MOST_UNREAD = 2 * MOST_HEADER_BYTES  # of headers that aren't whole


class Protocol(H11Protocol):
    """HTTP/1.1, for clients that send their headers in time."""

    _late: asyncio.TimerHandle | None = None
    _after: int | None = None  # the bytes that came after this client was refused

    def connection_made(self, transport: Any) -> None:
        """Give a client some seconds for its first headers."""
        super().connection_made(transport)
        self._expect_headers(True)

    def handle_events(self) -> None:
        """Take what has arrived. The seconds for headers begin with their first byte."""
        super().handle_events()
        if ahead := len(self.conn.trailing_data[0]):
            self._go_on_reading(ahead)
        answered = self.cycle is None or self.cycle.response_complete
        self._expect_headers(answered and (self.cycle is None or bool(self.conn.trailing_data[0])))

    def _go_on_reading(self, ahead: int) -> None:
        """Read on though a request waits for the answer to another: its client may have gone.

        uvicorn stops reading then, and wouldn't see that.
        """
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy or self.conn.their_state is not h11.DONE:
            return
        if ahead > MOST_UNREAD:
            logger.info("a client that sent too much ahead of its answers was left")
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _expect_headers(self, expected: bool) -> None:
        if expected and self._late is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self._close_if_late)
        elif not expected and self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a client that has gone."""
        self._expect_headers(False)
        super().connection_lost(exc)

    def _close_if_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, f"the headers weren't there after {HEADER_SECONDS} seconds")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the shape of all errors."""
        if len(self.conn.trailing_data[0]) > MOST_UNREAD:
            self._refuse(431, f"headers of more than {MOST_HEADER_BYTES:,} bytes")
        else:
            self._refuse(400, "this is no HTTP/1.1 request")

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; of a client that was refused it is thrown away."""
        if self._after is None:
            super().data_received(data)
            return
        self._after += len(data)
        if self._after > MOST_BYTES_AFTER:
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Answer, and close once the client has seen that and closes, too."""
        logger.info(f"refused what is no request yet, with {status}: {message}")
        body = as_json(ApiError(status, message).body)
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\nconnection: close"
        head += f"\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        self.transport.write_eof()
        self._after = 0
        self.loop.call_later(SECONDS_AFTER, self.transport.close)


class Server(uvicorn.Server):
    """A server that ends its texts before it stops.

    Args:
        config: How it listens.
        place: What it has.
        begin: Loads the model, within the event loop.
    """

    def __init__(
        self, config: uvicorn.Config, place: Place, begin: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self.place, self._begin = place, begin
        self.failed: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and load the model meanwhile."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        host, port = sockets[0].getsockname()[:2] if sockets else ("", 0)
        host = f"[{host}]" if ":" in host else host
        logger.info(f"listening on http://{host}:{port}/v1; the model is loading")
        self._keep(self._load())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take nothing new, and stop when what was taken is done. A second signal stops at once."""
        work = self._end_now if self.place.draining else self._drain
        self.place.draining = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self._keep(work()))

    def _keep(self, work: Any) -> None:
        """Run something beside all else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self) -> None:
        try:
            await self._begin()
        except Exception as error:  # of the user's, or of the machine's: the command says it
            self.failed = error
            self.should_exit = True

    async def _drain(self) -> None:
        """Wait for the texts, at most for some seconds."""
        if self.place.open:
            logger.info(f"stopping: {self.place.open} requests have {DRAIN_SECONDS} s to end")
        for _ in range(DRAIN_SECONDS * 20):
            if not self.place.open:
                break
            await asyncio.sleep(0.05)
        await self._end_now()

    async def _end_now(self) -> None:
        """End all texts by an error, and stop."""
        if self.place.open and self.place.service is not None:
            self.place.service.driver.end_all("the server stops")
            await asyncio.sleep(0.5)  # in which their clients are told
        self.should_exit = True


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and to whom.

    Args:
        host: The address.
        port: The port; 0 takes a free one.
        limits: Who may ask. Without a key and without hosts, an address of this machine alone
            answers to its own names.
        origins: The web pages whose scripts may ask.
        log_json: Whether lines of the log are JSON.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = field(default_factory=Limits)
    origins: tuple[str, ...] = ()
    log_json: bool = False


def serve(listening: Listening, begin: Callable[[Place], Awaitable[None]]) -> None:
    """Answer requests until a signal ends it.

    Args:
        listening: Where and to whom.
        begin: Loads the model into a place, within the event loop.

    Raises:
        ServerError: The address can't be listened on.
        GroundupError: The model can't be loaded.
    """
    place = Place()
    log = log_line(listening.log_json)
    gate: Any = Gate(make_app(place), listening.limits, log, place.check_room)
    if listening.origins:  # before all else: a browser asks first, without a key
        gate = CORSMiddleware(
            gate,
            allow_origins=[*listening.origins],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    config = uvicorn.Config(
        gate,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MOST_UNREAD,
        limit_concurrency=None,
        backlog=MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
    )
    with listen(listening) as door:
        server = Server(config, place, lambda: begin(place))
        asyncio.run(server.serve([door]))
    if server.failed is not None:
        raise server.failed
    if place.service is None or not place.service.driver.stop(END_SECONDS):
        sys.stderr.flush()
        os._exit(0)  # a thread that still computes would abort the process on its way out


def listen(listening: Listening) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ServerError: Somebody else has the port, or there is no such address.
    """
    host, port = listening.host, listening.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        door = socket.socket(family, kind, protocol)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # a reader that takes nothing is seen after few events
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        door.bind(address)
    except (OSError, UnicodeError) as error:
        remedy = "choose another with --port, or 0 for a free one"
        what = error.strerror if isinstance(error, OSError) else "this is no name of a host"
        raise ServerError(f"can't listen on {host}:{port}: {what}; {remedy}") from error
    return door


def report_as_json(known: dict[str, Any]) -> None:
    """Write a line of the log as JSON, with the time of now."""
    report(json.dumps({"time": round(time.time(), 3), **known}))


@contextmanager
def log_of(as_json: bool) -> Iterator[None]:
    """Write all messages in one form, as long as a `with` block runs; also those of uvicorn.

    What uvicorn warns of is what strangers send.
    """
    uvicorns = logging.getLogger("uvicorn.error")
    before = uvicorns.level, uvicorns.parent
    uvicorns.setLevel(logging.ERROR)
    uvicorns.parent = logging.getLogger("groundup")
    try:
        with messages_to((lambda text: report_as_json({"message": text})) if as_json else report):
            yield
    finally:
        uvicorns.setLevel(before[0])
        uvicorns.parent = before[1]


def log_line(as_json: bool) -> Callable[[Visit, str, str, float], None]:
    """Return what writes a line for each request: never its text, nor its key."""

    def line(visit: Visit, method: str, path: str, seconds: float) -> None:
        known = {"method": method, "path": path[:200], "status": visit.status, "id": visit.id}
        known |= {"seconds": round(seconds, 3), **visit.numbers}
        if as_json:
            report_as_json(known)
            return
        numbers = "".join(f", {name} {value}" for name, value in visit.numbers.items())
        where = f"{method} {known['path']!r} {visit.status}"
        logger.info(f"{where} in {seconds:.3f} s, id {visit.id}{numbers}")

    return line
