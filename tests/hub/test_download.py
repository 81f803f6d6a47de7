"""Downloads from a real server on this machine that drops, hangs, lies and dribbles: only the right
file is kept.
"""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import Cli, error_line
from groundup.errors import CorpusError
from groundup.hub.cache import fetch
from groundup.hub.download import RemoteFile
from groundup.hub.http import TransferError, read_all

CONTENT = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path; the path says how. `ranges` are the Range headers
    that came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up in the middle is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    """The ways of a server, good and bad."""

    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        getattr(self, self.path.strip("/"))(first)

    def good(self, first: int) -> None:
        self.send_content(CONTENT, first)

    def slow(self, first: int) -> None:
        """Long enough for others to come."""
        self.send_content(CONTENT, first, send=len(CONTENT) // 2)
        self.server.closing.wait(0.3)
        self.wfile.write(CONTENT[first + len(CONTENT) // 2 :])

    def half(self, first: int) -> None:
        """The first half, then the line is dead."""
        self.send_content(CONTENT, first, send=len(CONTENT) // 2 - first)
        self.connection.close()

    def deaf(self, first: int) -> None:
        """Ranges are ignored."""
        self.send_content(CONTENT, 0)

    def wrong(self, first: int) -> None:
        """As long as it should be, and another text."""
        self.send_content(CONTENT[::-1], first)

    def longer(self, first: int) -> None:
        self.send_content(CONTENT + b"and more", first)

    def hang(self, first: int) -> None:
        """Headers, some bytes, and silence."""
        self.send_content(CONTENT, first, send=1000)
        self.server.closing.wait(20)

    def mute(self, first: int) -> None:
        """Not even headers."""
        self.server.closing.wait(20)

    def dribble(self, first: int) -> None:
        """A little now and then: never silent, never done."""
        self.send_content(CONTENT, first, send=0)
        while not self.server.closing.wait(0.02):
            self.wfile.write(b"\x00")

    def missing(self, first: int) -> None:
        self.send_error(404)

    def garbage(self, first: int) -> None:
        self.wfile.write(b"this is not HTTP\r\n\r\n")

    def chunks(self, first: int) -> None:
        """A chunked answer that breaks off inside a chunk."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nonly this")

    def endless(self, first: int) -> None:
        """The page of a network's log-in, whatever was asked for, its length unsaid."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"please log in")
        self.close_connection = True

    def login(self, first: int) -> None:
        """The same, and it says what it is."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def elsewhere(self, first: int) -> None:
        """As many bytes as were asked for, from the beginning."""
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-{first - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) - first])

    def send_content(self, content: bytes, first: int, send: int | None = None) -> None:
        """An answer that announces all from `first`, and sends it, or just `send` bytes of it."""
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:] if send is None else content[first : first + send])

    def log_message(self, *args: object) -> None:
        """Nothing: the tests read what came."""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server while the test runs."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no proxy in between."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def remote(server: Server, how: str) -> RemoteFile:
    """CONTENT, from a server that behaves in a certain way."""
    url = f"http://127.0.0.1:{server.server_address[1]}/{how}"
    return RemoteFile(
        url, "room/file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "do without"
    )


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder with its size, but the empty ones that processes lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.stat().st_size for path in found}


def test_a_file_is_fetched_once(server: Server, cache: Path):
    path = fetch(remote(server, "good"))
    assert path == cache / "room" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(remote(server, "good")) == path
    assert server.ranges == [None]
    assert files(cache) == {"room/file.bin": len(CONTENT)}


def test_of_several_at_once_one_writes(server: Server, cache: Path):
    with ThreadPoolExecutor(4) as several:
        found = list(several.map(lambda _: fetch(remote(server, "slow")).read_bytes(), range(4)))
    assert found == [CONTENT] * 4
    assert server.ranges == [None]
    assert files(cache) == {"room/file.bin": len(CONTENT)}


def test_a_short_answer_that_never_ends_is_given_up():
    class Endless:
        def __init__(self, piece: bytes) -> None:
            self.piece = piece

        def read1(self, most: int) -> bytes:
            time.sleep(0.001)
            return self.piece

    for piece, silence in ((b" ", 0.005), (bytes(1 << 24), 1000)):
        with pytest.raises(TransferError, match="the answer didn't end"):
            read_all(Endless(piece), silence)
    assert read_all(io.BytesIO(b"short"), 1.0) == b"short"


def test_a_dropped_download_goes_on_where_it_stopped(server: Server, cache: Path):
    with pytest.raises(
        CorpusError, match=f"ended after 128,000 of {len(CONTENT):,} bytes; run again to go on"
    ):
        fetch(remote(server, "half"))
    assert files(cache) == {"room/file.bin.part": len(CONTENT) // 2}
    assert fetch(remote(server, "good")).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert files(cache) == {"room/file.bin": len(CONTENT)}


def test_a_server_that_ignores_the_range_sends_it_all_again(server: Server, cache: Path):
    with pytest.raises(CorpusError):
        fetch(remote(server, "half"))
    assert fetch(remote(server, "deaf")).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(CONTENT) // 2}-"


def test_a_partial_download_that_was_complete_needs_no_server(server: Server, cache: Path):
    part = cache / "room" / "file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert fetch(remote(server, "missing")).read_bytes() == CONTENT
    assert server.ranges == []


@pytest.mark.parametrize(
    ("how", "complaint"), [("wrong", "SHA-256 "), ("longer", f"instead of {len(CONTENT):,}")]
)
def test_a_wrong_file_is_refused_and_removed(how: str, complaint: str, server: Server, cache: Path):
    with pytest.raises(CorpusError, match=complaint):
        fetch(remote(server, how))
    assert files(cache) == {}
    assert fetch(remote(server, "good")).read_bytes() == CONTENT


def test_a_partial_download_of_another_file_is_found_out(server: Server, cache: Path):
    part = cache / "room" / "file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\xff" * 1000)
    with pytest.raises(CorpusError, match="SHA-256"):
        fetch(remote(server, "good"))
    assert files(cache) == {}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("hang", "timed out"),
        ("mute", "timed out"),
        ("dribble", f"of {len(CONTENT):,} bytes came before the deadline"),
        ("missing", "Not Found"),
        ("garbage", "this is not HTTP"),
        ("chunks", ""),
    ],
)
def test_a_server_that_fails_is_one_line_with_the_way_out(
    how: str, reason: str, server: Server, cache: Path
):
    wanted = remote(server, how)
    started = time.monotonic()
    with pytest.raises(CorpusError) as raised:
        fetch(wanted, timeout=0.3, deadline=0.5)
    # the server would have kept us for 20 seconds, or for ever
    assert time.monotonic() - started < 15
    for part in (reason, wanted.url, str(cache / "room" / "file.bin"), "do without"):
        assert part in str(raised.value)
    assert "room/file.bin" not in files(cache)


def test_a_damaged_file_in_the_cache_is_named_and_kept(server: Server, cache: Path):
    path = fetch(remote(server, "good"))
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(CorpusError, match=f"{path} has SHA-256 .* Delete it to download it again"):
        fetch(remote(server, "good"))
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(CorpusError, match=f"{path} has 255,999 bytes instead of 256,000"):
        fetch(remote(server, "good"))
    assert path.read_bytes() == CONTENT[:-1]


def test_without_a_network_the_command_says_what_to_do(cli: Cli, tmp_path: Path):
    environment = {
        "GROUNDUP_CACHE": str(tmp_path / "empty"),
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
    }
    line = error_line(cli("train", "shakespeare-cpu", "--steps", "1", env=environment))
    assert (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
        in line
    )
    assert str(tmp_path / "empty" / "tinyshakespeare" / "input.txt") in line
    assert "--corpus python-docs" in line
    assert not (tmp_path / "runs").exists()


def test_a_damaged_shakespeare_is_named_by_the_command(cli: Cli, tmp_path: Path):
    path = tmp_path / "cache" / "tinyshakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_text("First Citizen:\n", "utf-8")
    line = error_line(cli("train", "shakespeare-cpu", "--steps", "1"))
    assert str(path) in line
    assert "15 bytes instead of 1,115,394" in line


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("endless", "of unknown length"),
        ("login", "answers with a web page"),
        ("longer", "another file answers there"),
        ("elsewhere", "the server sent: bytes 0-"),
    ],
)
def test_what_is_no_rest_of_the_file_is_refused_before_a_byte_is_kept(
    how: str, complaint: str, server: Server, cache: Path
):
    with pytest.raises(CorpusError):
        fetch(remote(server, "half"), timeout=0.3)
    part = cache / "room" / "file.bin.part"
    assert part.read_bytes() == CONTENT[: len(CONTENT) // 2]
    with pytest.raises(CorpusError, match=complaint):
        fetch(remote(server, how), timeout=0.3)
    assert part.read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert fetch(remote(server, "good")).read_bytes() == CONTENT


def test_a_web_page_is_no_beginning_of_a_file_but_a_file_of_its_own(server: Server, cache: Path):
    with pytest.raises(CorpusError, match="answers with a web page"):
        fetch(remote(server, "login"))
    assert files(cache) == {}
    page = replace(remote(server, "login"), path="room/page.html")
    assert fetch(page).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HF_ENDPOINT", "https://user:secret@host", "password"),
        ("HF_ENDPOINT", "https://[bad", "is no address"),
        ("HF_ENDPOINT", "https://host:99999", "is no address"),
        ("HF_ENDPOINT", "https://a b", "is no address"),
        ("HF_TOKEN", "“hf_secret”", "is no token"),
        ("HF_TOKEN", "hf_secret two", "is no token"),
    ],
)
def test_what_can_be_no_address_or_token_is_a_line_that_shows_no_secret(
    name: str, value: str, said: str, cli: Cli
):
    environment = {name: value, "HF_HUB_OFFLINE": "0"}
    line = error_line(cli("generate", "owner/model", env=environment))
    assert said in line
    assert "secret" not in line
