"""A hub of Hugging Face on this machine: repositories of files, a file server behind it, and faults
on request.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

# what the hub keeps in LFS, as it does by .gitattributes
LARGE = (".parquet", ".safetensors", ".bin", ".gguf")
NEVER_MIND = 20.0  # seconds that a hanging answer hangs


@dataclass
class Fault:
    """What happens to the next `times` requests whose path contains `where`.

    kind: "drop" sends bytes up to position `at` of the file and cuts the line; "hang" does so and
    falls silent (at = -1 is before the headers); "status" answers `status` with `headers`; "wrong"
    sends other bytes; "deaf" ignores the range; "shifted" sends all again and calls it a part;
    "short" answers with another, short page.
    """

    where: str
    kind: str
    times: int = 1
    at: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request that came; `when` in seconds of a clock that only goes on."""

    method: str
    host: str
    path: str
    range: str | None
    token: str | None
    when: float


class Hub(ThreadingHTTPServer):
    """`repositories[kind, name][revision]` is a dictionary of path to content; the commit is made
    from it.

    Large files are redirected to another host name (localhost), as the hub's are to its file
    servers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.stored: dict[str, bytes] = {}  # large files by SHA-256
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.page_size = 1000
        self.token: str | None = None  # what the hub itself demands, where it demands one
        self.closing = threading.Event()
        # of this file; a test that makes one must fail
        self.mistakes: list[BaseException | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, kind: str, name: str, files: dict[str, bytes], revision: str = "main") -> str:
        """A repository, or another commit of it: its name."""
        branches = self.repositories.setdefault((kind, name), {})
        digest = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        branches[revision] = branches[digest] = files
        self.stored |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}
        return digest

    def fail(self, where: str, kind: str, times: int = 1, **how: object) -> None:
        """Let the next requests whose path contains `where` fail, in the order of the calls."""
        self.faults.append(Fault(where, kind, times, **how))  # type: ignore[arg-type]

    def fault_for(self, path: str) -> Fault | None:
        """The fault that this request meets, one time less for the next."""
        fault = next((fault for fault in self.faults if fault.times and fault.where in path), None)
        if fault:
            fault.times -= 1
        return fault

    def ranges(self, where: str = "/files/") -> list[str | None]:
        """The Range headers of the requests for files so far."""
        return [
            asked.range for asked in self.asked if where in asked.path and asked.method == "GET"
        ]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gives up in the middle is part of these tests; any other error is ours."""
        if not isinstance(error := sys.exc_info()[1], ConnectionError):
            self.mistakes.append(error)


class Handler(BaseHTTPRequestHandler):
    """The hub's addresses, and below /files/ the server that its large files lie on."""

    server: Hub
    fault: Fault | None = None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        host, asked = self.headers["Host"], self.headers.get("Range")
        token = self.headers.get("Authorization")
        self.server.asked.append(
            Asked(self.command, host, self.path, asked, token, time.monotonic())
        )
        self.fault = self.server.fault_for(unquote(self.path))
        path = urlsplit(self.path).path
        if self.fault and self.fault.kind == "hang" and self.fault.at < 0:
            self.server.closing.wait(NEVER_MIND)
        elif self.fault and self.fault.kind == "status":
            self.answer(self.fault.status, b"{}", self.fault.headers)
        elif path.startswith("/files/"):
            self.content(self.server.stored[path.removeprefix("/files/")], {})
        elif self.server.token and token != f"Bearer {self.server.token}":
            self.refuse(401, "RepoNotFound", "Invalid username or password.")
        elif path.startswith("/api/"):
            self.api(path.split("/")[2:])
        else:
            self.resolve(path.split("/")[1:])

    def files(self, kind: str, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision is, and its files; what there isn't is refused as the hub
        does.
        """
        branches = self.server.repositories.get((kind, name))
        if branches is None:
            return self.refuse(401, "RepoNotFound", "Repository not found")
        if (files := branches.get(unquote(revision))) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return next(
            name for name, other in branches.items() if other is files and len(name) == 40
        ), files

    def api(self, parts: list[str]) -> None:
        """/api/KIND/OWNER/NAME[/revision/REVISION] and .../tree/REVISION/FOLDER, slashes of the
        last two as %2F.
        """
        if parts[0] not in ("models", "datasets"):  # huggingface_hub asks more of a hub than we do
            self.refuse(404, "EntryNotFound", "Not found")
            return
        kind, owner, name, verb, revision, *folder = (
            parts if len(parts) > 3 else [*parts, "revision", "main"]
        )
        if (found := self.files(kind, f"{owner}/{name}", revision)) is None:
            return
        commit, files = found
        if verb == "revision":
            siblings = [{"rfilename": path} for path in sorted(files)]
            described = {
                "id": f"{owner}/{name}",
                "sha": commit,
                "private": False,
                "tags": [],
                "siblings": siblings,
            }
            self.answer(200, json.dumps(described).encode(), {})
        else:
            self.tree(files, unquote("/".join(folder)).strip("/"))

    def tree(self, files: dict[str, bytes], folder: str) -> None:
        """A page of what is below a folder, with the address of the next one."""
        below = {
            path: content
            for path, content in files.items()
            if not folder or path.startswith(f"{folder}/")
        }
        if not below:
            return self.refuse(404, "EntryNotFound", f"{folder} does not exist")
        folders = {
            "/".join(path.split("/")[:depth])
            for path in below
            for depth in range(1, path.count("/") + 1)
        }
        entries: list[dict[str, object]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            for path in sorted(folders - {folder})
        ]
        for path, content in reversed(below.items()):  # not in the order of paths
            entry: dict[str, object] = {
                "type": "file",
                "oid": git_hash(content),
                "size": len(content),
                "path": path,
            }
            if path.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
                entry["xetHash"] = digest[::-1]
            entries.append(entry)
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end, headers = start + self.server.page_size, {}
        if end < len(entries):
            address = self.server.url + urlsplit(self.path).path + f"?recursive=true&cursor={end}"
            headers["Link"] = f'<{address}>; rel="next"'
        return self.answer(200, json.dumps(entries[start:end]).encode(), headers)

    def resolve(self, parts: list[str]) -> None:
        """/datasets/OWNER/NAME/resolve/REVISION/PATH, and without its first part for a model."""
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        owner, name, _resolve, revision, *rest = parts
        if (found := self.files(kind, f"{owner}/{name}", revision)) is None:
            return None
        commit, files = found
        path = unquote("/".join(rest))
        if (content := files.get(path)) is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if not path.endswith(LARGE):
            return self.content(content, headers | {"ETag": f'"{git_hash(content)}"'})
        digest = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
        location = (
            f"http://localhost:{self.server.server_address[1]}/files/{quote(digest)}?signature=once"
        )
        return self.answer(302, b"Found", headers | {"Location": location})

    def content(self, content: bytes, headers: dict[str, str]) -> None:
        """The bytes of a file from where they were asked for, with the faults that need them."""
        kind, at = (self.fault.kind, self.fault.at) if self.fault else ("", 0)
        if kind == "wrong":
            content = content[::-1]
        if kind == "short":
            content = b"<html>Please log in</html>"
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").split("-")[0]) if asked and kind != "deaf" else 0
        if first >= len(content) and first:
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        if kind == "shifted":
            return self.answer(
                206, content, {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
            )
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        end = max(at, first) if kind in ("drop", "hang") else len(content)
        self.answer(206 if first else 200, content[first:end], headers, len(content) - first)
        if kind == "hang":
            self.wfile.flush()
            self.server.closing.wait(NEVER_MIND)
        return None

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def answer(
        self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None
    ) -> None:
        """Headers and body; `announced` is its length where not all of it is sent."""
        self.send_response(status)
        headers = {"Content-Length": str(len(body) if announced is None else announced), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(
                body[: len(body) // 2] if self.fault and self.fault.kind == "cut" else body
            )

    def log_message(self, *args: object) -> None:
        """Nothing: the tests read what came."""


def git_hash(content: bytes) -> str:
    """What git calls a file: SHA-1 of its length and content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub while the body runs, without repositories yet."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            hub.shutdown()
            thread.join()
        assert not hub.mistakes, hub.mistakes


def wait_until(condition: Callable[[], bool], timeout: float = 30) -> None:
    """Until a condition holds that another process brings about."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"it didn't happen in {timeout} s"
        time.sleep(0.005)
