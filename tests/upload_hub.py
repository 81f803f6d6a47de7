"""What the hub answers to an upload, in addition to `hub_server.py`: a repository made, its large
files, a commit.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hub_server import LARGE, Handler, Hub, running_hub


class UploadHandler(Handler):
    """The addresses to which huggingface_hub posts where Xet is switched off."""

    def do_POST(self) -> None:  # noqa: N802
        body = self.body()
        self.record()
        if self.fault and self.fault.kind == "status":
            self.answer(self.fault.status, b'{"error": "as the test wants it"}', self.fault.headers)
        elif self.fault and self.fault.kind == "hang":
            self.server.closing.wait(20)
        elif (
            self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}"
        ):
            self.refuse(401, "", "Invalid username or password.")
        else:
            self.posted(body)

    def posted(self, body: bytes) -> None:
        """One of the five kinds of posts."""
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self.send({"errors": [], "warnings": []})
        elif parts[-2:] == ["preupload", "main"]:
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(LARGE) else "regular" for path in paths}
            self.send(
                {
                    "files": [
                        {"path": p, "uploadMode": m, "shouldIgnore": False}
                        for p, m in modes.items()
                    ]
                }
            )
        elif parts[-1] == "batch":
            listed = json.loads(body)["objects"]
            self.send(
                {"objects": [entry | {"actions": self.actions(entry["oid"])} for entry in listed]}
            )
        else:
            assert parts[-2:] == ["commit", "main"], self.path
            self.commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])

    def actions(self, digest: str) -> dict[str, Any]:
        return {"upload": {"href": f"{self.server.url}/upload/{digest}"}}

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if ("models", name) in self.server.repositories:
            known = {
                "error": "You already created this model repo",
                "url": f"{self.server.url}/{name}",
            }
            return self.answer(409, json.dumps(known).encode(), {})
        self.server.add("models", name, {})
        self.server.visibility[name] = asked.get("visibility")  # type: ignore[attr-defined]
        return self.send({"url": f"{self.server.url}/{name}"})

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.server.repositories["models", name]["main"])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = self.server.add("models", name, files)
        self.send({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})

    def do_PUT(self) -> None:  # noqa: N802
        content = self.body()
        self.record()
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == digest
        self.server.stored[digest] = content
        self.answer(200, b"", {})

    def record(self) -> None:
        self.server.posts.append(self.path)  # type: ignore[attr-defined]
        self.fault = self.server.fault_for(self.path)

    def body(self) -> bytes:
        """What was sent, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def send(self, answer: object) -> None:
        self.answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


@contextmanager
def receiving_hub() -> Iterator[Hub]:
    """A hub that takes uploads; `visibility` is what was asked for each new repository, `posts`
    what was posted to.
    """
    with running_hub() as hub:
        hub.RequestHandlerClass = UploadHandler
        hub.visibility, hub.posts = {}, []  # type: ignore[attr-defined]
        yield hub
