"""The character tokenizer loses nothing, refuses what it doesn't know by name, and reads back only
what it wrote.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import TokenizerError
from groundup.tokenizers.base import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from groundup.tokenizers.characters import CharacterTokenizer

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(text=texts)
def test_a_text_survives_the_round_trip(text: str) -> None:
    tokenizer = CharacterTokenizer(text)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)  # a token a character, emoji and combining marks among them
    assert ids.dtype == np.int64
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@given(text=texts)
def test_ids_are_the_order_of_the_code_points(text: str) -> None:
    tokenizer = CharacterTokenizer(text)
    assert tokenizer.characters == sorted(set(text))
    assert tokenizer.vocab_size == len(set(text))
    assert tokenizer.encode(text).tolist() == [
        tokenizer.characters.index(character) for character in text
    ]
    assert tokenizer.encode(text[::-1]).tolist() == tokenizer.encode(text).tolist()[::-1]


@given(known=texts, text=st.text(max_size=50))
def test_the_first_unknown_character_is_named_with_its_position(known: str, text: str) -> None:
    tokenizer = CharacterTokenizer(known)
    unknown = [position for position, character in enumerate(text) if character not in known]
    if not unknown:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        return
    with pytest.raises(TokenizerError) as refusal:
        tokenizer.encode(text)
    character = text[unknown[0]]
    assert f"character {character!r} (U+{ord(character):04X}) at position {unknown[0]} " in str(
        refusal.value
    )
    str(refusal.value).encode("utf-8")  # printable, even where the character isn't


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("abQ", "'Q' (U+0051) at position 2"),
        ("\0", "'\\x00' (U+0000) at position 0"),
        # how Python hands over a byte that isn't UTF-8
        ("ab\udc80c", "'\\udc80' (U+DC80) at position 2"),
        ("a😀\ud83d", "'😀' (U+1F600) at position 1"),
        ("cab" * 100 + "\U0010ffff", "'\\U0010ffff' (U+10FFFF) at position 300"),
    ],
)
def test_unknown_characters_by_hand(text: str, named: str) -> None:
    with pytest.raises(TokenizerError) as refusal:
        CharacterTokenizer("abc").encode(text)
    assert (
        str(refusal.value)
        == f"character {named} is not among the 3 characters that the tokenizer knows: 'abc'"
    )


def test_a_long_vocabulary_is_cut_in_the_message() -> None:
    with pytest.raises(TokenizerError) as refusal:
        CharacterTokenizer(map(chr, range(0x4E00, 0x6E00))).encode("a")
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).endswith(" ...")


@pytest.mark.parametrize("token", [-1, 3, 2**40])
def test_an_id_outside_the_vocabulary_is_named_with_its_position(token: int) -> None:
    with pytest.raises(TokenizerError, match=rf"token {token} at position 2 is outside \[0, 3\)"):
        CharacterTokenizer("abc").decode([0, 2, token, 1])


@settings(max_examples=30)
@given(text=texts)
def test_what_is_saved_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder, again = tmp_path_factory.mktemp("saved"), tmp_path_factory.mktemp("again")
    tokenizer = CharacterTokenizer(text)
    tokenizer.save(folder)
    loaded = CharacterTokenizer.from_folder(folder)
    assert loaded.characters == tokenizer.characters
    assert loaded.encode(text).tolist() == tokenizer.encode(text).tolist()
    loaded.save(again)
    for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def written(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with the tokenizer of "abc" whose file went through `change`."""
    CharacterTokenizer("abc").save(folder)
    path = folder / TOKENIZER_FILE
    contents = json.loads(path.read_text("utf-8"))
    change(contents)
    path.write_text(json.dumps(contents), "utf-8")
    return folder


KINDS = {  # model: what its refusal names
    "BPE": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    "WordPiece": {"type": "WordPiece", "vocab": {"[UNK]": 0, "##a": 1}, "unk_token": "[UNK]"},
    "Unigram": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]], "unk_id": 0},
    "BPE of characters": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    "WordLevel of words": {"type": "WordLevel", "vocab": {"a": 0, "the": 1}, "unk_token": "<unk>"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_tokenizer_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = written(tmp_path, lambda contents: contents.update(model=KINDS[kind]))
    with pytest.raises(TokenizerError) as refusal:
        CharacterTokenizer.from_folder(folder)
    assert str(tmp_path / TOKENIZER_FILE) in str(refusal.value)
    assert f" is a {KINDS[kind]['type']} tokenizer, not a character tokenizer" in str(refusal.value)


@pytest.mark.parametrize(
    "vocabulary",
    [
        {"a": 0, "b": 1, "c": 3},
        {"a": 1, "b": 2, "c": 3},
        {"b": 0, "a": 1},
        {"a": 1, "b": 0},
        {"a": 0, "": 1},
        {"a": "0"},
        {"a": None},
        {"a": [0]},
    ],
    ids=str,
)
def test_ids_that_are_not_the_order_are_refused(vocabulary: dict[str, Any], tmp_path: Path) -> None:
    folder = written(tmp_path, lambda contents: contents["model"].update(vocab=vocabulary))
    with pytest.raises(
        TokenizerError, match="WordLevel tokenizer, not a character tokenizer of groundup"
    ):
        CharacterTokenizer.from_folder(folder)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"model": null}',
        b'{"model": []}',
        b'{"model": {"type": "WordLevel"}}',
        b'{"model": {"type": "WordLevel", "vocab": null}}',
        b'{"model": {"type": "WordLevel", "vocab": 3}}',
        b'{"model": {"type": "WordLevel", "vocab": ' + b"9" * 5000 + b"}}",
        b"[" * 100_000,
    ],
    ids=lambda contents: contents[:40].decode("latin-1"),
)
def test_a_damaged_file_is_refused_by_name(contents: bytes, tmp_path: Path) -> None:
    (tmp_path / TOKENIZER_FILE).write_bytes(contents)
    with pytest.raises(TokenizerError) as refusal:
        CharacterTokenizer.from_folder(tmp_path)
    assert str(tmp_path / TOKENIZER_FILE) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError) as refusal:
        CharacterTokenizer.from_folder(tmp_path)
    assert str(tmp_path / TOKENIZER_FILE) in str(refusal.value)
