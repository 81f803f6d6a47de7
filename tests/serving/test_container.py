"""The lines of the container file in docs/serving.md, run as they are, but in a folder."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.servers import small_model
from serving.test_docs import ROOT, lines_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
# of the machine, which isn't ours to change: a compiler, and a user
OF_THE_SYSTEM = "RUN apt-get update && apt-get install ", "RUN useradd "


def build(folder: Path) -> tuple[list[str], str]:
    """Do what the lines say in a folder with a venv; return the entry point and the check."""
    place, pip = folder / "groundup", folder / "venv" / "bin" / "pip"
    entry, check = list[str](), ""
    for line in lines_of("dockerfile"):
        kind, _, words = line.partition(" ")
        if kind == "COPY":
            *sources, target = words.split()
            inside = folder / target.lstrip("/")
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, inside)
                else:
                    inside.mkdir(exist_ok=True)
                    shutil.copy(ROOT / source, inside)
        elif kind == "RUN" and not line.startswith(OF_THE_SYSTEM):
            command = words.replace("/groundup", str(place)).replace("pip", str(pip), 1)
            subprocess.run(command, shell=True, check=True, cwd=folder, capture_output=True)
        elif kind == "HEALTHCHECK":
            check = words.removeprefix("CMD ")
        elif kind == "ENTRYPOINT":
            entry = json.loads(words)
    return entry, check


def test_the_container_files_lines_make_a_server_that_answers(tmp_path: Path) -> None:
    """What the extra `serve` installs is enough to serve; without docker no more can be said."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    entry, check = build(tmp_path)
    bin_, work = tmp_path / "venv" / "bin", tmp_path / "work"
    small_model(work / "runs" / "small")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(bin_ / entry[0]), *entry[1:], "runs/small", "--port", str(port)]
    environment = {"PATH": f"{bin_}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment["GROUNDUP_API_KEY"] = "choose-a-long-one"
    here = shlex.split(check.replace(":8000", f":{port}"))
    with subprocess.Popen(words, cwd=work, env=environment, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(
                here, env=environment, check=False, capture_output=True
            ).returncode:
                assert time.monotonic() < deadline
                assert process.poll() is None
            asked = [
                "curl",
                "-s",
                f"http://127.0.0.1:{port}/v1/completions",
                "-d",
                '{"prompt": "a"}',
            ]
            asked += ["-H", "Content-Type: application/json"]
            asked += ["-H", "Authorization: Bearer choose-a-long-one"]
            answer = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
            assert json.loads(answer)["usage"]["completion_tokens"] == 16
        finally:
            process.terminate()
            said = process.communicate()[1].decode()
    assert process.returncode == 0, said
    assert re.search(r"ready: small, 16 texts at once", said), said
