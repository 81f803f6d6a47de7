"""The first call of a preparation: what there is to read, by which tokenizer, into how many
shards.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.console import report
from groundup.data.shard_folder import TOKENIZER_FOLDER
from groundup.errors import CorpusError
from groundup.prepare.documents import Reading, read_documents
from groundup.prepare.encoding import SHARD_TOKENS, Layout, encode_anyway, repaired
from groundup.prepare.inputs import Part, find_parts
from groundup.prepare.steps import WORK, Plan, Preparation, explained
from groundup.tokenizers.base import Tokenizer, tokenizer_sha256
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.load import load_tokenizer

SAMPLE_BYTES = 2**18  # of the source, to judge how many tokens it has


def make_plan(out: str, preparation: dict[str, Any]) -> dict[str, Any]:
    """Leave the plan of a preparation in its folder, and its tokenizer. Raises GroundupError."""
    wanted, folder = Preparation(**preparation), Path(out)
    parts = tuple(find_parts(wanted.source, wanted.column, wanted.sample, report))
    reading = wanted.reading(folder)
    tokenizer = _tokenizer_of(wanted, parts, reading)
    size, tokens = _sample(parts, reading, tokenizer)
    expected = sum(part.size for part in parts) * tokens / size
    expected = min(expected, wanted.limit or expected)
    validation = round(expected * wanted.validation)
    layout = Layout(
        seed=wanted.seed,
        validation=wanted.validation,
        training_shards=max(1, round((expected - validation) / SHARD_TOKENS)),
        validation_shards=max(1, round(validation / SHARD_TOKENS)) if wanted.validation else 0,
    )
    plan = Plan(
        preparation=wanted,
        inputs=inputs_of(parts),
        layout=layout,
        tokens_per_byte=tokens / size,
        vocab_size=tokenizer.vocab_size,
        made_by=tokenizer_sha256(tokenizer),
        parts=parts,
    )
    with explained(folder):
        (folder / TOKENIZER_FOLDER).mkdir(exist_ok=True)
        tokenizer.save(folder / TOKENIZER_FOLDER)
        plan.write(folder / WORK)
    return {}


def inputs_of(parts: Iterable[Part]) -> str:
    """SHA-256 of what there is to read: which files, of what size, and when they were changed."""
    return hashlib.sha256(json.dumps([part.to_json() for part in parts]).encode()).hexdigest()


def _tokenizer_of(preparation: Preparation, parts: Iterable[Part], reading: Reading) -> Tokenizer:
    """The tokenizer that is named; `characters` is made of those that the source has."""
    if preparation.tokenizer != "characters":
        return load_tokenizer(preparation.tokenizer, report)
    if any(part.remote for part in parts):
        raise CorpusError(
            f"--tokenizer characters reads the whole source first, so not {preparation.source}: "
            "take gpt2"
        )
    characters: set[str] = {"\n"}  # it comes between documents
    for part in parts:
        for document in read_documents(part, reading):
            characters |= set(repaired(document.text))
    return CharacterTokenizer(characters)


def _sample(parts: Iterable[Part], reading: Reading, tokenizer: Tokenizer) -> tuple[int, int]:
    """Bytes and tokens of the first documents. Raises CorpusError if there are none."""
    for part in parts:
        size = tokens = 0
        for document in read_documents(part, reading):
            text = repaired(document.text)[:SAMPLE_BYTES]
            size, tokens = size + len(text.encode()), tokens + len(encode_anyway(tokenizer, text))
            if size >= SAMPLE_BYTES:
                break
        if tokens:
            return size, tokens
    raise CorpusError("the source is empty: it has no documents with any text")
