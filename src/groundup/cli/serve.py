"""The command `groundup serve`: a model for every program that speaks the OpenAI interface."""

import logging
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from groundup.cli.flags import WriterFlags
from groundup.errors import GroundupError, ServerError

if TYPE_CHECKING:
    from groundup.serving.server import Listening

logger = logging.getLogger(__name__)

MOST_STREAMS = 100_000


@Parameter(name="*")
@dataclass(frozen=True)
class Door:
    """Where a server listens, and to whom.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one.
        api_key: The key that clients must send; also taken from GROUNDUP_API_KEY.
        allow_host: Answer to this name as well, where there is no key; may be given several times.
        allow_origin: Let scripts of this web page ask, as https://example.org; may be given several
            times.
        log_format: text or json: the lines of the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: Annotated[str | None, Parameter(env_var="GROUNDUP_API_KEY")] = None
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    log_format: str = "text"

    def listening(self) -> "Listening":
        """Return where the server listens, and to whom.

        Raises:
            GroundupError: A value is out of its range.
        """
        from groundup.serving.gate import LOOPBACK, Limits
        from groundup.serving.server import Listening

        if self.log_format not in ("text", "json"):
            raise GroundupError(f"log-format = {self.log_format!r} must be text or json")
        if not 0 <= self.port < 2**16:
            raise GroundupError(f"port = {self.port} must be from 0 to 65535")
        if self.api_key is not None and not self.api_key.strip():
            raise GroundupError("api-key is empty: leave it out, or give at least one character")
        local = _is_local(self.host)
        if not local and self.api_key is None:
            where = f"{self.host}:{self.port}"
            logger.warning(f"everybody who reaches {where} may ask: give --api-key")
        own = (self.host,) if local else ()
        hosts = (*LOOPBACK, *own, *self.allow_host) if local or self.allow_host else ()
        key = None if self.api_key is None else self.api_key.strip()
        limits = Limits(key, frozenset(each.lower() for each in hosts))
        as_json = self.log_format == "json"
        return Listening(self.host, self.port, limits, self.allow_origin, as_json)


def serve(
    model: str,
    /,
    *,
    max_streams: int = 16,
    max_waiting: int = 64,
    name: str | None = None,
    device: str = "auto",
    batch_invariant: bool = False,
    allow_special_tokens: bool = False,
    weights: WriterFlags = WriterFlags(),
    door: Door = Door(),
) -> None:
    """Serve a model over HTTP, as the OpenAI interface has it.

    Args:
        model: A run, the path of a run or model folder, gpt2, or OWNER/NAME of the hub.
        max_streams: How many texts are written at once.
        max_waiting: How many more may wait; others are refused.
        name: The name that clients call the model by; else that of its run, folder or repository.
        device: auto, cpu, cuda, cuda:1 or mps.
        batch_invariant: Demand that a text doesn't depend on others, bit for bit, as on every CPU.
        allow_special_tokens: Let messages of a chat spell special tokens.
        weights: The weights that write, and what multiplies them.
        door: Where the server listens, and to whom.
    """
    try:
        from groundup.serving.begin import Wanted, begin
        from groundup.serving.server import log_of
        from groundup.serving.server import serve as answer
    except ImportError as error:
        missing = f"the server needs {error.name}"
        raise ServerError(f"{missing}: pip install 'groundup[serve]'") from error

    if not 1 <= max_streams <= MOST_STREAMS:
        raise GroundupError(f"max-streams = {max_streams} must be from 1 to {MOST_STREAMS:,}")
    if max_waiting < 0:
        raise GroundupError(f"max-waiting = {max_waiting} must be at least 0")
    wanted = Wanted(
        model,
        name or "",
        device,
        weights.precision(),
        max_streams,
        max_waiting,
        batch_invariant,
        allow_special_tokens,
    )
    with log_of(door.log_format == "json"):
        answer(door.listening(), lambda place: begin(place, wanted))


def _is_local(host: str) -> bool:
    """Whether an address reaches no other machine."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return bool(host) and all(ip_address(each[4][0]).is_loopback for each in found)
    except (OSError, UnicodeError, ValueError):  # listening on it says what is wrong
        return False
