"""Ask a server: with a limit on its silence, and again after a failure that passes."""

import email.utils
import http.client
import math
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from groundup.errors import CorpusError

Result = TypeVar("Result")

PROGRESS = 1 << 20  # bytes that make a try worth forgetting the failures before it
LARGEST_ANSWER = 1 << 26  # bytes of a listing
SHORT_ANSWER = 15  # times the silence
LONGEST_WAIT = 300.0  # seconds; the hub counts requests in windows of five minutes


class TransferError(OSError):
    """An answer that ended early or never would: asking again may help."""


@dataclass(frozen=True)
class Patience:
    """How long a server may be silent, in seconds, and how many tries in a row may bring nothing.

    The waits between tries begin at a fortieth of the silence and double; `notice` is told of each.
    """

    silence: float
    tries: int = 1
    notice: Callable[[str], None] | None = None

    def wait(self, failures: int, error: Exception) -> float:
        """Seconds until the next try: what the server asked for, or more each time."""
        asked = asked_wait(error.headers) if isinstance(error, HTTPError) else None
        return self.silence / 40 * 2 ** (failures - 1) if asked is None else asked


def silence_limit() -> float:
    """`GROUNDUP_NETWORK_TIMEOUT`, in seconds, else 20. Raises CorpusError."""
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


def persist(
    attempt: Callable[[], Result], patience: Patience, position: Callable[[], int] = lambda: 0
) -> Result:
    """What `attempt` returns, called again after failures that pass; `position` is how many bytes
    have come so far.

    Raises what the last attempt raised: an OSError (URLError, HTTPError and TimeoutError are) or an
    HTTPException.
    """
    failures, reached = 0, position()
    while True:
        try:
            return attempt()
        except (OSError, http.client.HTTPException) as error:
            if position() - reached >= PROGRESS:
                failures, reached = 0, position()
            failures += 1
            wait = patience.wait(failures, error)
            if failures >= patience.tries or wait > LONGEST_WAIT or not passes(error):
                raise
            if patience.notice:
                patience.notice(
                    f"{reason(error)}: try {failures + 1} of {patience.tries} in {wait:.1f} s"
                )
        time.sleep(wait)


def passes(error: Exception) -> bool:
    """Whether a failure may be gone when asked again; a full disk, a refusal or a bad certificate
    won't.
    """
    if isinstance(error, HTTPError):
        return error.code in (408, 429) or error.code >= 500
    if isinstance(error, URLError):
        return not isinstance(error.reason, ssl.SSLCertVerificationError)
    return is_of_network(error)


def is_of_network(error: Exception) -> bool:
    """Whether the network failed, and not the disk."""
    kinds = (
        URLError,
        TransferError,
        TimeoutError,
        ConnectionError,
        ssl.SSLError,
        http.client.HTTPException,
    )
    return isinstance(error, kinds)


def reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.headers.get('X-Error-Message') or error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def read_all(response: Any, silence: float) -> bytes:
    """The body of a short answer: at most 64 MB, within 15 times the silence. Raises
    TransferError.
    """
    deadline, pieces, size = time.monotonic() + SHORT_ANSWER * silence, [], 0
    while piece := response.read1(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_ANSWER or time.monotonic() > deadline:
            raise TransferError(
                f"the answer didn't end: {size:,} bytes in {SHORT_ANSWER * silence:.0f} s or less"
            )
    # which `read1` leaves above 0 where the connection ended early
    if getattr(response, "length", None):
        raise TransferError(f"the answer ended early, after {size:,} bytes")
    return b"".join(pieces)


def asked_wait(headers: Message) -> float | None:
    """Seconds to wait by `Retry-After` (a number or a date), or by the hub's `RateLimit:
    "api";r=0;t=55`.
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


def open_url(
    url: str, silence: float, headers: Mapping[str, str] | None = None, token: str | None = None
) -> Any:
    """The answer to a GET, an open `http.client.HTTPResponse`; `token` goes to the server of `url`
    alone.

    Raises OSError (HTTPError for a refusal) or HTTPException.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}))
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.build_opener(_Redirects).open(request, timeout=silence)
