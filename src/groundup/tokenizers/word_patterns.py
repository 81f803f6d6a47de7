r"""The patterns by which a `tokenizer.json` cuts a text into words: known ones, and others.

Engines of regular expressions backtrack, so that a hostile pattern takes for ever on a few
letters. Whole texts are shown to the patterns of published tokenizers alone. Any other
pattern is tried when its file is loaded, in a process whose time is limited, and is then shown a
few characters of a text at a time.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.errors import ForeignTokenizerError, TokenizerError
from groundup.tokenizers.base import Contents

SHOWN = 2000  # characters of a text that a pattern that isn't known is shown at a time
LONGEST = 4000  # characters of a pattern
STRETCH = 500_000  # of one white space character; engines give up on a million
PATIENCE = 20  # seconds on a clock, where a process's time can't be limited

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LATER = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
QWEN2, LLAMA3 = _LATER % "", _LATER % "{1,3}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BY_CASE = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    rf"|\p{{N}}%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)

# Taken to whole texts by tiktoken and by `tokenizers` alike.
KNOWN = frozenset(
    {
        GPT2,
        QWEN2,  # Qwen 2, 2.5 and 3
        LLAMA3,  # Llama 3, OLMo 2, Phi 4, SmolLM 3
        rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",  # Qwen 3.5
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",  # nanochat
        _BY_CASE % (f"{_ENDINGS}?", f"{_ENDINGS}?", "{1,3}"),  # gpt-oss, Llama 4
        _BY_CASE % ("", "", ""),  # Mistral's Tekken
    }
)
# Of tokenizers with several patterns one after the other, which `tokenizers` alone encodes.
KNOWN_STEPS = frozenset(
    {
        r"\p{N}{1,3}",  # DeepSeek's three
        r"[一-龥぀-ゟ゠-ヿ]+",
        r'[!"#$%&'
        r"'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[0-9][0-9][0-9]",  # Falcon's
        r" ?[^(\s|[.,!?…。，、।۔،])]+",  # BLOOM's
    }
)

TOO_LONG = f"it takes too long on {SHOWN:,} characters"

# What may look at what stands before a piece of text: anchors, words' edges, looking behind.
LOOKS_BACK = re.compile(r"\\[AbBGKyY]|\(\?<[=!]|(?<![\[\\])\^")
# Steps whose result doesn't depend on where a piece of text begins.
STEPS = {"Split", "ByteLevel", "Digits", "NFC", "NFD", "NFKC", "NFKD", "Lowercase"}

# Between half a second and one and a half of a processor, after the library is loaded.
TRIAL = """
import json, sys
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
patterns, texts = json.load(sys.stdin)
try:
    import resource
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + 0.5) + 1
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
except ImportError:  # on Windows
    pass
for pattern in patterns:
    split = Split(Regex(pattern), "isolated")
    for text in texts:
        split.pre_tokenize_str(text)
"""


def unknown_patterns(contents: Contents, path: Path | str) -> tuple[str, ...]:
    """Find the patterns of a `tokenizer.json` that groundup doesn't know, and try them.

    Args:
        contents: What the file says.
        path: Where the contents came from, for messages.

    Returns:
        These patterns. If there are any, texts must be shown to them in pieces.

    Raises:
        ForeignTokenizerError: A pattern takes too long, isn't understood by `tokenizers`, or
            belongs to a file whose other steps depend on where a piece of text begins.
    """
    parts = [value for part, value in contents.items() if part not in ("model", "added_tokens")]
    found = dict.fromkeys(_patterns(parts))
    unknown = tuple(pattern for pattern in found if pattern not in KNOWN | KNOWN_STEPS)
    if unknown:
        both = contents.get("normalizer"), contents.get("pre_tokenizer")
        steps = [step for part in both for step in steps_of(part)]
        others = {str(step.get("type")) for step in steps} - STEPS
        others |= {"add_prefix_space" for step in steps if step.get("add_prefix_space")}
        problem = f"it asks for {', '.join(sorted(others))} besides" if others else _try(unknown)
        if problem is not None:
            raise ForeignTokenizerError(
                f"{path} cuts words by {unknown[0][:200]!r}, which isn't a pattern that groundup "
                f"knows, and {problem}"
            )
    return unknown


def _patterns(steps: Any) -> Iterator[str]:
    if isinstance(steps, dict) and isinstance(pattern := steps.get("Regex"), str):
        yield pattern
    for inner in (
        steps.values() if isinstance(steps, dict) else steps if isinstance(steps, list) else ()
    ):
        yield from _patterns(inner)


def steps_of(part: Any) -> Iterator[dict[str, Any]]:
    """Give the steps of a part of a `tokenizer.json`, with all sequences unfolded.

    Args:
        part: The normalizer, the pre-tokenizer or the decoder, or None.

    Yields:
        A step that is no sequence.
    """
    if isinstance(part, dict) and part.get("type") == "Sequence":
        for steps in part.values():
            for step in steps if isinstance(steps, list) else []:
                yield from steps_of(step)
    elif isinstance(part, dict):
        yield part


@lru_cache(maxsize=256)
def _try(patterns: tuple[str, ...]) -> str | None:
    """What is wrong with patterns, found out by a process of limited time; None if nothing is."""
    if any(len(pattern) > LONGEST for pattern in patterns):
        return f"it has more than {LONGEST:,} characters"
    if any(map(LOOKS_BACK.search, patterns)):
        return "it looks back, beyond the piece of a text that it may be shown"
    letters = [*"aA0 \n!_é中", *sorted(set("".join(patterns)))[-20:]]
    texts = [letter * (SHOWN - 1) + "\0" for letter in dict.fromkeys(letters)]
    task = json.dumps([patterns, [*texts, "aA0 !\n" * (SHOWN // 6)]])
    try:
        tried = subprocess.run(
            [sys.executable, "-c", TRIAL],
            input=task,
            text=True,
            errors="replace",
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return TOO_LONG
    except OSError as error:
        return f"it can't be tried: {error}"
    if tried.returncode > 0:
        said = (tried.stderr.strip().splitlines() or ["it failed"])[-1]
        return f"`tokenizers` refuses it: {said[:200]}"
    return None if tried.returncode == 0 else TOO_LONG


def check_stretches(text: str) -> None:
    """Check that a text has no white space that is too long for a pattern to cut it into words.

    Raises:
        TokenizerError: A white space character stands 500,000 times or more in a row.
    """
    if len(text) < STRETCH:
        return
    for space, name in ((" ", "spaces"), ("\n", "line ends"), ("\t", "tabs"), ("\r", "returns")):
        if space * STRETCH in text:
            raise TokenizerError(
                f"a text has {STRETCH:,} or more {name} in a row, too many to be cut into words. "
                "Shorten them"
            )


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn whatever a library in Rust raises in a `with` block into an error of one line.

    Args:
        what: What the library refuses, as the beginning of a sentence.

    Raises:
        TokenizerError: The library raised an error or panicked. A panic isn't an `Exception`.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = (str(error).splitlines() or [""])[0][:200]
        raise TokenizerError(f"{what}: {type(error).__name__}: {said}") from error
