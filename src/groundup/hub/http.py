"""Asks a server with a limit on its silence, and asks again after failures that may pass."""

import email.utils
import http.client
import logging
import math
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from groundup.errors import CorpusError

Result = TypeVar("Result")
logger = logging.getLogger(__name__)

PROGRESS = 1 << 20  # bytes that make a try worth forgetting the failures before it
LARGEST_ANSWER = 1 << 26  # bytes of a listing
SHORT_ANSWER = 15  # times the timeout
LONGEST_WAIT = 300.0  # seconds; the hub counts requests in windows of five minutes


class TransferError(OSError):
    """An answer from a server wasn't complete, and asking again may help."""


def network_timeout() -> float:
    """Return `GROUNDUP_NETWORK_TIMEOUT`, the seconds that a server may be silent, or else 20.

    Raises:
        CorpusError: The variable holds no number of seconds above 0 and up to a day.
    """
    text = os.environ.get("GROUNDUP_NETWORK_TIMEOUT") or "20"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise CorpusError(
            f"GROUNDUP_NETWORK_TIMEOUT={text} is no number of seconds above 0 and up to 86400 (a "
            "day)"
        )
    return seconds


@dataclass(frozen=True)
class RetryPolicy:
    """How long a server may be silent, and how often it is asked again.

    Args:
        timeout: Seconds without a byte after which a try has failed.
        tries: The number of failed tries in a row after which none follows. The waits between tries
            begin at a fortieth of the timeout and double, unless the server asks for another wait.
        deadline: Seconds for one try at a file; left out, what the size takes at 20 kB/s, but at
            least ten minutes.
    """

    timeout: float = field(default_factory=network_timeout)
    tries: int = 5
    deadline: float | None = None

    def wait(self, failures: int, error: Exception) -> float:
        """Return the seconds until the next try after a number of failures in a row.

        Args:
            failures: The number of failures.
            error: The last failure; an HTTP error may ask for a wait.
        """
        asked = asked_wait(error.headers) if isinstance(error, HTTPError) else None
        return self.timeout / 40 * 2 ** (failures - 1) if asked is None else asked


def with_retries(
    attempt: Callable[[], Result], policy: RetryPolicy, received: Callable[[], int] = lambda: 0
) -> Result:
    """Call `attempt`, and call it again after failures that may pass, with a warning each time.

    Args:
        attempt: What asks the server.
        policy: When to give up.
        received: Returns the number of bytes so far. After a try that brought a megabyte, earlier
            failures don't count any more.

    Returns:
        What `attempt` returned.

    Raises:
        OSError: The last try raised it, or URLError, HTTPError or TimeoutError, which are OSErrors.
        HTTPException: The last try raised it.
    """
    failures, before = 0, received()
    while True:
        try:
            return attempt()
        except (OSError, http.client.HTTPException) as error:
            if received() - before >= PROGRESS:
                failures, before = 0, received()
            failures += 1
            wait = policy.wait(failures, error)
            if failures >= policy.tries or wait > LONGEST_WAIT or not passes(error):
                raise
            logger.warning(f"{reason(error)}: try {failures + 1} of {policy.tries} in {wait:.1f} s")
        time.sleep(wait)


def passes(error: Exception) -> bool:
    """Return whether a failure may be gone when the server is asked again.

    A full disk, a refusal and a bad certificate don't pass.
    """
    if isinstance(error, HTTPError):
        return error.code in (408, 429) or error.code >= 500
    if isinstance(error, URLError):
        return not isinstance(error.reason, ssl.SSLCertVerificationError)
    return is_of_network(error)


def is_of_network(error: Exception) -> bool:
    """Return whether an error says that the network failed, and not the disk."""
    kinds = (URLError, TransferError, TimeoutError, ConnectionError, ssl.SSLError)
    return isinstance(error, (*kinds, http.client.HTTPException))


def reason(error: Exception) -> str:
    """Return in a few words what went wrong when a server was asked.

    For an HTTP error the words are its code and the server's message.
    """
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.headers.get('X-Error-Message') or error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def read_all(response: Any, timeout: float) -> bytes:
    """Return the body of a server's short answer.

    Args:
        response: The open answer.
        timeout: Seconds that the server may be silent; the whole body may take 15 times as long.

    Raises:
        TransferError: The body has more than 64 MB, takes too long or ends early.
    """
    deadline, pieces, size = time.monotonic() + SHORT_ANSWER * timeout, [], 0
    while piece := response.read1(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_ANSWER or time.monotonic() > deadline:
            raise TransferError(
                f"the answer didn't end: {size:,} bytes in {SHORT_ANSWER * timeout:.0f} s or less"
            )
    # which `read1` leaves above 0 where the connection ended early
    if getattr(response, "length", None):
        raise TransferError(f"the answer ended early, after {size:,} bytes")
    return b"".join(pieces)


def asked_wait(headers: Message) -> float | None:
    """Return the seconds that a server asks its client to wait, or None.

    The seconds stand in `Retry-After`, as a number or a date, or in the header of
    Hugging Face's hub, `RateLimit: "api";r=0;t=55`.
    """
    if after := headers.get("Retry-After"):
        if re.fullmatch(r"\d{1,9}", after.strip()):
            return float(after)
        if (date := email.utils.parsedate_tz(after)) is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    limit = re.search(r";\s*r=0\s*;\s*t=(\d{1,9})", headers.get("RateLimit") or "")
    return float(limit[1]) if limit else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, and takes the token along only where it stays the same server."""

    def redirect_request(  # noqa: PLR0917 (as it is in the library)
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if following and token and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            following.add_unredirected_header("Authorization", token)
        return following


def open_url(url: str, timeout: float, token: str | None, start: int = 0) -> Any:
    """Return the answer to a GET, an open `http.client.HTTPResponse`.

    Args:
        url: The address that is asked for.
        timeout: Seconds that the server may be silent.
        token: An account's token, which goes to the server of `url` alone.
        start: The position of the first byte that is asked for.

    Raises:
        OSError: The network failed, or the server refuses (HTTPError).
        HTTPException: The server doesn't speak HTTP.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.build_opener(_Redirects).open(request, timeout=timeout)
