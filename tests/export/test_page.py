"""docs/interop.md: every command on it runs, in its order, on a small model in the place of
gpt2.
"""

import json
import re
import shlex
from pathlib import Path

import torch

from commands import groundup, write_text
from groundup import GPT2, GPTConfig
from groundup.checkpoints.model_folder import save
from shard_files import learned

PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text("utf-8")


def shrunk(words: list[str]) -> list[str]:
    """The same command on what is here, and over soon."""
    words = [
        {"path/to/your/text": "text.txt", "OWNER/NAME": "someone/small"}.get(word, word)
        for word in words
    ]
    if words[0] == "train":
        short = ("--steps", "1", "--eval.every", "0", "--eval.tokens", "64")
        cheap = ("--train.batch-size", "2", "--train.threads", "1", "--train.compile", "off")
        return [*words, *short, *cheap, "--name", "quickstart-1"]
    if words[0] == "generate":
        words[words.index("--length") + 1] = "3"
    return (
        [*words, "--file", "items.jsonl"]
        if words[0] == "evaluate" and "--task" not in words
        else words
    )


def test_every_command_runs(tmp_path: Path) -> None:
    tokenizer = learned()
    torch.manual_seed(0)
    save(tmp_path / "gpt2", GPT2(GPTConfig(16, tokenizer.vocab_size, 1, 2, 8)), tokenizer)
    write_text(tmp_path)
    item = {
        "ind": 0,
        "label": 1,
        "ctx": "the quick",
        "endings": ["fox", "dog", "lazy", "a"],
        "activity_label": "x",
    }
    (tmp_path / "items.jsonl").write_text(json.dumps(item) + "\n", "utf-8")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).splitlines()
    assert len(lines) >= 8
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "groundup"
        no_compiler = {"PATH": "", "CXX": ""}  # what `verify` compiles has tests of its own
        finished = groundup(*shrunk(words), folder=tmp_path, env=no_compiler)
        assert finished.returncode == 0, (line, finished.stderr)
    assert {"gpt2-q8_0.gguf", "gpt2.onnx", "my-model"} <= {path.name for path in tmp_path.iterdir()}
