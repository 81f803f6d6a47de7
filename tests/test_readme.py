"""The README: no placeholder, no missing picture, and every command and snippet in it runs as it
stands.
"""

import json
import re
import shlex
from pathlib import Path

from commands import groundup
from conftest import TINY, some_text

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The contents of the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of each `groundup` command, in the order in which a reader types them."""
    lines = "".join(blocks("sh")).replace(".venv/bin/groundup", "groundup").splitlines()
    found = [re.search(r"(?:^|&& )groundup (.*)$", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


PLACES = {
    **{
        "path/to/your/text": "text.txt",
        "path/to/much/text": "much.txt",
        "5000": "4",
        "4096": "300",
    },
    "data/mine:0.7,data/other:0.3": "data/mine",
}


# One thread, because tests share the cores; little of a text is enough for an evaluation.
CHEAP = ["--train.threads", "1", "--train.compile", "off", "--eval.tokens", "64"]


def shrunk(words: list[str]) -> list[str]:
    """The same command on a tiny model and text, and over in a few steps."""
    words = [PLACES.get(word, word) for word in words]
    if words[0] == "prepare":  # with the tokenizer that the page has just made, of few tokens
        return [*words, "--tokenizer", "my-tokenizer", "--workers", "1"]
    if words == ["verify"]:
        return [*words, "quickstart-1"]
    # the hub's models have tests of their own
    if words[0] in ("generate", "evaluate", "compare") or "--init" in words:
        words = ["quickstart-1" if word == "gpt2" else word for word in words]
    if (words[0] == "evaluate" and "--task" not in words) or "hellaswag" in words:
        return [*words, "--file", "items.jsonl"]
    if "--init" in words:
        return [*words, "--steps", "2", "--train.batch-size", "2", *CHEAP]
    if words[0] == "bench":
        return [*words, "--repeat", "2", *([] if "--model" in words else TINY)]
    if words[0] == "ladder":  # without a compiler the last rung is trained as it is
        return [*words, "--budget", "0.01s", "--seeds", "1", "--threads", "1", "--rungs", "bigram"]
    if words[0] == "plan" and ("--gpu" in words or "--model" in words):
        return words
    if words[0] in ("train", "plan") and "--resume" not in words:
        words += ["--steps", "2", *TINY]
        words += ["--eval.tokens", "64"] if words[0] == "train" else []
        words += [] if "--corpus" in words else ["--corpus", "text.txt"]
    return words


def test_nothing_is_left_to_fill_in_and_every_link_leads_somewhere():
    # not what a model wrote
    own_words = re.sub(r"^```\w*\n.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    capitals = set(re.findall(r"\b[A-Z]{8,}\b", own_words)) - {"CHANGELOG", "CONTRIBUTING"}
    assert not capitals, "a placeholder, or a text in capitals"
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_command_and_snippet_runs_in_its_order(tmp_path: Path):
    (tmp_path / "text.txt").write_text(some_text() + "Return the: .\n", "utf-8")
    (tmp_path / "much.txt").write_text(
        "\n\n".join(f"{n} {some_text()}" for n in range(40)), "utf-8"
    )
    item = {
        "ind": 1,
        "activity_label": "a text",
        "ctx": "Return",
        "endings": ["a", "the", "text", "that"],
        "label": 1,
    }
    (tmp_path / "items.jsonl").write_text(json.dumps(item) + "\n", "utf-8")
    without_compiler = {"PATH": "", "CXX": ""}  # what `verify` compiles has tests of its own
    ran = commands()
    assert len(ran) >= 8
    for words in ran:
        if words[0] == "serve":  # until it is stopped: tests/serving/test_docs.py runs it
            continue
        finished = groundup(*shrunk(words), folder=tmp_path, env=without_compiler)
        finished_already = words[:2] == ["train", "--resume"] and "is finished" in finished.stderr
        assert finished.returncode == 0 or finished_already, (words, finished.stderr)
    for snippet in blocks("python"):
        exec(compile(snippet.replace('"runs/', f'"{tmp_path}/runs/'), "README.md", "exec"), {})
