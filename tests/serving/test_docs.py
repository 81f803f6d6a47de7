"""What docs/serving.md and the README tell a newcomer to do, done."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from commands import flags, groundup, trained, write_text
from serving.servers import served

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")


def lines_of(kind: str) -> list[str]:
    """The lines of all blocks of a kind."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_a_newcomer_trains_serves_and_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path)
    (tmp_path / "text.txt").write_text(
        (tmp_path / "text.txt").read_text("utf-8")
        + "Return the: User: Assistant: What is a list? same text\n",
        "utf-8",
    )
    trained(*flags({"--steps": 2, "--model.block-size": 64}), folder=tmp_path)
    lines = lines_of("sh")
    assert lines[:3] == [
        "pip install 'groundup[serve]'",
        "groundup train",
        "groundup serve quickstart-1",
    ]
    (run,) = (tmp_path / "runs").iterdir()
    run.rename(run.with_name("quickstart-1"))
    asked = [line for line in lines if line.startswith("curl")]
    assert len(asked) >= 5
    with served(tmp_path / "runs" / "quickstart-1") as server:
        for line in asked:
            here = line.replace(":8000", f":{server.port}")
            found = subprocess.run(
                shlex.split(here), capture_output=True, text=True, check=True, timeout=60
            )
            assert found.stdout.startswith(("{", "data: {")), found.stdout
            assert "error" not in found.stdout, found.stdout
        (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
        exec(compile(snippet.replace(":8000", f":{server.port}"), "serving.md", "exec"), {})
        assert len(capsys.readouterr().out) > 64
    shutil.copytree(run.with_name("quickstart-1"), run.with_name("shakespeare-fast-1"))
    looks = [line for line in lines if line.startswith("groundup look")]
    assert len(looks) == 2
    for line in looks:
        finished = groundup(*shlex.split(line)[1:], folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
    (line,) = (line for line in lines if line.startswith("GROUNDUP_API_KEY"))
    setting, command, *words = shlex.split(line)
    name, _, key = setting.partition("=")
    assert (command, words[:2]) == ("groundup", ["serve", "quickstart-1"])
    with served(tmp_path / "runs" / "quickstart-1", *words[2:4], env={name: key}) as server:
        assert "everybody" not in server.log
        assert server.ask("/v1/models", headers={"Authorization": f"Bearer {key}"}).status == 200
        assert server.ask("/v1/models").status == 401


def test_the_unit_and_the_readme_name_commands_that_exist() -> None:
    (started,) = re.findall(r"^ExecStart=(.*)$", PAGE, flags=re.MULTILINE)
    assert shlex.split(started)[1:] == ["serve", "quickstart-1", "--log-format", "json"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "groundup serve quickstart-1 " in readme
