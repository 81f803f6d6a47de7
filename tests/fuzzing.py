"""Loads hostile model files by the thousand, in a process that can be watched: for crashes, hangs
and memory.
"""

import json
import os
import random
import resource
import shutil
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from commands import FORKED, forked
from groundup import GPT2, Bigram, GPTConfig, Modern, ModernConfig, ReadableGPT
from groundup.checkpoints.model_folder import fits, load_model, save
from groundup.console import messages_to
from groundup.errors import GroundupError
from groundup.tokenizers import CharacterTokenizer, load_tokenizer
from groundup.tokenizers.base import tokenizer_sha256
from hostile_files import hostile_json, hostile_safetensors, hostile_tokenizer
from model_files import INDEX, WHOLE, shard
from shard_files import learned

MEMORY = 400 << 20  # address space that loading a file of a few kilobytes may take, at most
SILENCE = 60.0  # seconds without an answer: a hang, on any machine
LIMIT = 2.0  # seconds of a processor for a file, those of processes that it needs included
LONGEST = 2000  # characters of a message
WORDS = (
    r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TRIED = "the quick\n\n  fox čtyři 中 😀 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac <|endoftext|>"
Verdict = str | None
KINDS = ("config", "tokenizer", "weights", "index")


def bases(folder: Path) -> dict[str, list[Path]]:
    """The valid folders that are changed, by the kind of file that is."""
    torch.manual_seed(0)
    config, modern = GPTConfig(8, 5, 1, 2, 4), ModernConfig(8, 5, 1, 2, 1, 4, 2, 4, tied=False)
    models = [
        GPT2(config),
        Modern(modern),
        Bigram(config),
        ReadableGPT(config),
        GPT2(config).bfloat16(),
    ]
    for number, model in enumerate(models):
        save(folder / f"model-{number}", model, CharacterTokenizer("abcde"))
        shutil.copytree(folder / f"model-{number}", folder / f"shards-{number}")
        shard(folder / f"shards-{number}")
    (folder / "characters").mkdir()
    CharacterTokenizer("abcde é中").save(folder / "characters")
    plain = learned()
    for name, change in TOKENIZERS.items():
        (folder / name).mkdir()
        plain.save(folder / name)
        file = folder / name / "tokenizer.json"
        contents = json.loads(file.read_text("utf-8"))
        change(contents)
        file.write_text(json.dumps(contents), "utf-8")
    folders = sorted(path for path in folder.iterdir())
    models, shards = (
        [path for path in folders if path.name.startswith(name)] for name in ("model", "shards")
    )
    return {
        "config": models,
        "tokenizer": [path for path in folders if path not in (*models, *shards)],
        "weights": models,
        "index": shards,
    }


def _split(contents: dict) -> None:
    letters = contents["decoder"] | {"use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    contents["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, letters]}
    contents["normalizer"] = {"type": "NFC"}


def _slow(contents: dict) -> None:
    contents["model"] |= {
        "ignore_merges": True,
        "dropout": None,
        "unk_token": None,
        "byte_fallback": False,
    }
    contents["added_tokens"].append(
        contents["added_tokens"][0] | {"id": 300, "content": "<x>", "special": False}
    )
    contents["truncation"] = {
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }


TOKENIZERS: dict[str, Callable[[dict], None]] = {
    "gpt2": lambda _: None,
    "split": _split,
    "slow": _slow,
}


def make(kind: str, number: int, base: Path, folder: Path) -> Path:
    """Put the hostile file of that number into `folder`, a copy of `base`: the file."""
    chosen = random.Random(f"{kind} {number}")
    if kind == "config":
        file = "config.json"
    elif kind == "tokenizer":
        file = "tokenizer_config.json" if chosen.random() < 0.03 else "tokenizer.json"
    elif kind == "index":
        file = chosen.choice([INDEX, *sorted(path.name for path in base.glob("*.safetensors"))])
    else:
        file = WHOLE
    content = (base / file).read_bytes()
    hostile = hostile_json if file.endswith(".json") else hostile_safetensors
    hostile = hostile_tokenizer if file == "tokenizer.json" else hostile
    return write_anew(folder / file, hostile(content, chosen))


def write_anew(file: Path, content: bytes) -> Path:
    """Write a file in the place of another; some disks flush a file that is cut and written."""
    file.unlink()
    file.write_bytes(content)
    return file


def use(kind: str, folder: Path) -> None:
    """Load what is in the folder, and do with it what every command does. Raises GroundupError."""
    told: list[str] = []
    if kind == "tokenizer":
        with messages_to(told.append):
            tokenizer = load_tokenizer(folder)
        tokenizer_sha256(tokenizer)
        fits(tokenizer, 5)
        tokenizer.decode(range(tokenizer.vocab_size))
        tokenizer.decode(tokenizer.encode(TRIED if tokenizer.vocab_size > 20 else "abc"))
    else:
        with messages_to(told.append):
            loaded = load_model(folder)
        if kind == "config" and loaded.tokenizer is not None:
            assert loaded.document_start is None or loaded.document_start >= 0
            with torch.no_grad():
                loaded.model(torch.zeros(1, 1, dtype=torch.int64))
    for line in told:
        check_line(line)


def check_line(line: str) -> None:
    """What a user reads is a line, of a length that can be read."""
    assert line.isprintable(), f"not printable: {line[:300]!r}"
    assert len(line) <= LONGEST, f"{len(line):,} characters: {line[:300]!r}"


def verdict(kind: str, folder: Path) -> Verdict:
    """What was wrong with how a folder was loaded or refused, or None."""
    try:
        use(kind, folder)
    except GroundupError as error:
        try:
            check_line(str(error))
        except AssertionError as complaint:
            return f"{type(error).__name__} {complaint}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return None


def spent() -> float:
    """The seconds of a processor that this process and those that it waited for have taken."""
    return sum(os.times()[:4])


def watched(kind: str, numbers: range, folder: str, sent: Connection) -> None:
    """Load the files of these numbers, one by one; say before each which, after each what was
    wrong.
    """
    warnings.simplefilter("error")
    found = bases(Path(folder))[kind]
    places = []
    for base in found:
        places.append(Path(shutil.copytree(base, base.with_name(f"now-{base.name}"))))
    for place in places:
        assert (complaint := verdict(kind, place)) is None, f"unchanged, {place}: {complaint}"
    taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for number in numbers:
        sent.send((number, None))
        base, place = found[number % len(found)], places[number % len(found)]
        file = make(kind, number, base, place)
        began = spent()
        if (complaint := verdict(kind, place)) is not None:
            sent.send((number, complaint))
        if (seconds := spent() - began) > LIMIT:
            sent.send((number, f"{seconds:.1f} s"))
        write_anew(file, (base / file.name).read_bytes())
    sent.send((numbers.stop, None))


def fuzz(kind: str, numbers: range, folder: Path) -> dict[int, str]:
    """What was wrong, by the number of the file: nothing, if each was loaded or refused as it
    should be.
    """
    complaints: dict[int, str] = {}
    number = numbers.start
    while number < numbers.stop:
        received, sent = FORKED.Pipe(duplex=False)
        home = folder / f"from-{number}"
        home.mkdir()
        process = forked(watched, kind, range(number, numbers.stop), str(home), sent)
        process.start()
        sent.close()
        try:
            while number < numbers.stop:
                if not received.poll(SILENCE):
                    complaints[number] = f"no answer in {SILENCE:.0f} s"
                    break
                number, complaint = received.recv()
                if complaint is not None:
                    complaints[number] = complaint
        except EOFError:
            process.join()
            complaints[number] = f"the process ended with {process.exitcode}"
        process.kill()
        process.join()
        shutil.rmtree(home)
        number += number < numbers.stop  # what ended the process is not tried again
    return complaints
