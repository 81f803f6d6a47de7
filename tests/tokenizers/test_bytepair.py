"""Byte-level BPE against tiktoken, `tokenizers` and transformers: the same ids, whichever of them
encodes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

import tokenizers
from groundup.data.corpora import load_corpus
from groundup.errors import TokenizerError
from groundup.hub.cache import fetch
from groundup.tokenizers import BytePairTokenizer, CharacterTokenizer, load_tokenizer
from groundup.tokenizers.base import END_OF_TEXT, TOKENIZER_FILE, tokenizer_sha256
from groundup.tokenizers.bytepair import contents_of
from groundup.tokenizers.foreign import ForeignTokenizer
from groundup.tokenizers.gpt2 import MERGES, VOCABULARY, gpt2_tokenizer
from groundup.tokenizers.train import learn_tokenizer
from groundup.tokenizers.word_patterns import KNOWN, QWEN2, SHOWN
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

ODD = (
    "  Hello,\t world's\n\n 123 naïve “quotes” 日本語 🙂🙂🏽 "
    "e\u0301\u00e9 \u2028 don't DON'T I'll\r\n"
    "   \x00 <|endoftext|> x"
)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=300)


@pytest.fixture(scope="module")
def shakespeare() -> str:
    return load_corpus("shakespeare").text


@pytest.fixture(scope="module")
def gpt2() -> BytePairTokenizer:
    return gpt2_tokenizer()


@pytest.fixture(scope="module")
def oracle() -> tiktoken.Encoding:
    """GPT-2's encoding as tiktoken itself puts it together from the same files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # else it copies both into the temporary folder
        ranks = data_gym_to_mergeable_bpe_ranks(str(fetch(MERGES)), str(fetch(VOCABULARY)))
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    return tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: 50256}
    )


def test_gpt2_encodes_shakespeare_as_tiktoken_does(
    gpt2: BytePairTokenizer, oracle: tiktoken.Encoding, shakespeare: str
) -> None:
    ids = gpt2.encode(shakespeare)
    assert ids.dtype == np.int64
    assert ids.tolist() == oracle.encode_ordinary(shakespeare)
    assert len(ids) == 338_025
    assert gpt2.decode(ids) == shakespeare
    assert gpt2.vocab_size == oracle.n_vocab == 50_257


@settings(max_examples=1000)
@given(text=texts)
def test_gpt2_encodes_any_text_as_tiktoken_does(
    text: str, gpt2: BytePairTokenizer, oracle: tiktoken.Encoding
) -> None:
    ids = gpt2.encode(text)
    assert ids.tolist() == oracle.encode_ordinary(text)
    assert gpt2.decode(ids) == text
    assert b"".join(gpt2.decode_bytes([token]) for token in ids) == text.encode("utf-8")


def test_the_sha256_of_a_tokenizer_is_that_of_its_ids(
    gpt2: BytePairTokenizer, tmp_path: Path
) -> None:
    """Golden: shards state it, so it must stay what it was in every process and release."""
    gpt2.save(tmp_path)
    known = "7d8e8e1d445e80f5d5155b9e1001c150363feb3f8c93ef4941172b37d65ce35d"
    assert tokenizer_sha256(gpt2) == tokenizer_sha256(load_tokenizer(tmp_path)) == known
    hashes = {
        tokenizer_sha256(CharacterTokenizer(text))
        for text in ("abc", "cab", "ab", "abcd", "ab\ud800")
    }
    assert len(hashes) == 4
    assert "fa1844c2988ad15ab7b49e0ece09684500fad94df916859fb9a43ff85f5bb477" in hashes


def test_end_of_text_in_a_text_is_text(gpt2: BytePairTokenizer, oracle: tiktoken.Encoding) -> None:
    assert gpt2.special_tokens == {END_OF_TEXT: 50256}
    ids = gpt2.encode(f"a{END_OF_TEXT}b")
    assert ids.tolist() == oracle.encode(f"a{END_OF_TEXT}b", disallowed_special=())
    assert 50256 not in ids
    assert oracle.encode(END_OF_TEXT, allowed_special="all") == [50256]
    assert gpt2.decode([50256]) == END_OF_TEXT


@pytest.mark.parametrize("kind", ["gpt2", "learned"])
def test_half_a_pair_is_refused_by_name(kind: str, gpt2: BytePairTokenizer) -> None:
    tokenizer = gpt2 if kind == "gpt2" else learn_tokenizer(["some text"], 260)
    with pytest.raises(TokenizerError, match=r"'\\udc80' at position 2 .*lone surrogate"):
        tokenizer.encode("ab\udc80")


@pytest.mark.parametrize("token", [-1, 50_257])
def test_an_id_out_of_range_is_named(token: int, gpt2: BytePairTokenizer) -> None:
    with pytest.raises(
        TokenizerError, match=rf"token {token} at position 1 is outside \[0, 50257\)"
    ):
        gpt2.decode([0, token])


def test_bytes_that_are_no_utf8_are_replaced(gpt2: BytePairTokenizer) -> None:
    first, *_ = gpt2.encode("🙂")
    assert gpt2.decode([first]) == "\ufffd"
    assert "🙂".encode().startswith(gpt2.decode_bytes([first]))


def test_a_long_run_of_one_kind_is_encoded(gpt2: BytePairTokenizer) -> None:
    for character in (" ", "a", "\n", "7", "!"):
        text = character * 300_000 + "x"
        assert gpt2.decode(gpt2.encode(text)) == text


def test_a_run_too_long_for_the_pattern_is_refused_in_one_line(gpt2: BytePairTokenizer) -> None:
    for tokenizer in (gpt2.encode, lambda text: learn_tokenizer([text], 300)):
        with pytest.raises(TokenizerError, match="too many to be cut into words") as refusal:
            tokenizer(" " * 1_500_000 + "x")
        assert "\n" not in str(refusal.value)


def hugging_face(
    vocab_size: int,
    text: str,
    special: list[str],
    pattern: str | None = None,
    normal_form: bool = False,
) -> tokenizers.Tokenizer:
    """A byte-level tokenizer that `tokenizers` learned; special tokens get the first ids."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")] if pattern else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, letters]) if split else letters
    tokenizer.decoder = decoders.ByteLevel()
    if normal_form:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def contents(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    return json.loads(tokenizer.to_str())


SHAPES: dict[str, dict[str, Any]] = {
    "GPT-2's words": {"special": [END_OF_TEXT]},
    "special tokens first": {"special": ["<pad>", "<s>", END_OF_TEXT]},
    "Qwen's words and NFC": {"special": [], "pattern": QWEN2, "normal_form": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tokenizer_of_hugging_face_gives_the_same_ids_through_tiktoken(
    shape: str, shakespeare: str
) -> None:
    peer = hugging_face(1200, shakespeare[:200_000], **SHAPES[shape])
    ours = BytePairTokenizer(contents(peer), "tokenizer.json")
    peer.encode_special_tokens = True
    for text in (shakespeare, ODD, "", "\n"):
        assert ours.encode(text).tolist() == peer.encode(text, add_special_tokens=False).ids
    assert ours.vocab_size == peer.get_vocab_size()
    assert ours.decode(ours.encode(ODD)) == (
        ODD if "normal_form" not in SHAPES[shape] else peer.normalizer.normalize_str(ODD)
    )


@pytest.mark.parametrize("pattern", sorted(KNOWN))
def test_both_libraries_cut_by_a_known_pattern_alike(pattern: str, shakespeare: str) -> None:
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    ranks = {bytes([byte]): byte for byte in range(256)}

    @settings(max_examples=50)
    @given(texts)
    @example(ODD)
    @example(shakespeare[:5000])
    def check(text: str) -> None:
        words = [word.encode("utf-8") for word, _ in split.pre_tokenize_str(text)]
        assert b"".join(words) == text.encode("utf-8")
        whole = ranks | {word: 256 + at for at, word in enumerate({*words} - {*ranks})}
        words_alone = tiktoken.Encoding(
            "words", pat_str=pattern, mergeable_ranks=whole, special_tokens={}
        )
        found = words_alone.encode(text)
        assert [words_alone.decode_single_token_bytes(token) for token in found] == words

    check()


def test_a_pattern_that_is_not_known_sees_a_text_in_pieces(
    shakespeare: str, tmp_path: Path
) -> None:
    """With the ids of `tokenizers`, which sees it whole; but no word of thousands of letters."""
    made = contents(hugging_face(600, shakespeare[:20_000], [], r" ?\p{L}+(?!\d)|\s+(?!\S)|."))
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(made), "utf-8")
    ours, peer = load_tokenizer(tmp_path), tokenizers.Tokenizer.from_str(json.dumps(made))
    for text in (shakespeare[: 20 * SHOWN], (ODD + " \n  x1") * 300, "ab " * SHOWN):
        assert ours.encode(text).tolist() == peer.encode(text).ids
    with pytest.raises(TokenizerError, match="a word of more than 1,800 characters"):
        ours.encode("a" * 3 * SHOWN)


def test_dropout_is_for_learning_alone(shakespeare: str, tmp_path: Path) -> None:
    made = contents(hugging_face(600, shakespeare[:20_000], []))
    plain = BytePairTokenizer(made, "plain").encode(shakespeare[:2000]).tolist()
    made["model"] |= {"dropout": 0.5, "ignore_merges": True}  # what `tokenizers` alone does
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(made), "utf-8")
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, ForeignTokenizer)
    assert ours.encode(shakespeare[:2000]).tolist() == plain


def test_merges_that_double_a_letter_load_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The longest token has 16,384 letters: 14 merges that took 38 s."""
    vocabulary, merges = dict(learn_tokenizer([""], 257).contents["model"]["vocab"]), []
    for power in range(14):
        merges.append(["a" * 2**power] * 2)
        vocabulary["a" * 2 ** (power + 1)] = len(vocabulary)
    made = contents_of(vocabulary, merges, {})
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(made), "utf-8")
    ours = load_tokenizer(tmp_path)
    assert "too long to be compared" in caplog.text
    assert ours.encode("a" * 2**15).tolist() == [len(vocabulary) - 1] * 2


def add_ordinary_token(contents: dict[str, Any]) -> None:
    """`the` becomes a token wherever a text has it, as Qwen's `<think>` is one."""
    ordinary = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    contents["added_tokens"].append({"id": 600, "content": "the ", **ordinary})


def cut_by(pattern: str) -> Callable[[dict[str, Any]], object]:
    """A change of the words' pattern."""
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    letters = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return lambda contents: contents.update(
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split, letters]}
    )


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "the token 'the ' wherever a text has it": add_ordinary_token,
    "pre_tokenizer Split": cut_by(r"\p{L}*"),
    " pre_tokenizer Split,": cut_by(r"\p{L}+$|.+"),
    "Split, which": cut_by(r"\p{N}{1,3}+|\p{L}+|\s+"),
    "model.ignore_merges": lambda contents: contents["model"].update(ignore_merges=True),
    "normalizer Lowercase": lambda contents: contents.update(normalizer={"type": "Lowercase"}),
    "ByteLevel.add_prefix_space": lambda contents: contents["pre_tokenizer"].update(
        add_prefix_space=True
    ),
    "pre_tokenizer Digits, ByteLevel": lambda contents: contents.update(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                contents["pre_tokenizer"],
            ],
        }
    ),
}


@pytest.mark.parametrize("reason", CHANGES)
def test_what_tiktoken_does_not_do_is_done_by_tokenizers_and_said(
    reason: str, shakespeare: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = contents(hugging_face(600, shakespeare[:50_000], [END_OF_TEXT]))
    CHANGES[reason](made)
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(made), "utf-8")
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, ForeignTokenizer)
    (said,) = caplog.messages
    assert reason in said
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / TOKENIZER_FILE))
    peer.encode_special_tokens = True
    for text in (shakespeare[:20_000], ODD):
        assert ours.encode(text).tolist() == peer.encode(text, add_special_tokens=False).ids
    assert ours.special_tokens == {END_OF_TEXT: 0}
    assert ours.special_tokens[END_OF_TEXT] not in ours.encode(ODD)
    plain = "plain words, 12 of them"
    assert ours.decode(ours.encode(plain)).strip().lower() == plain
    with pytest.raises(TokenizerError, match="lone surrogate"):
        ours.encode("\ud800")


def test_merges_in_an_order_that_tiktoken_would_not_take_are_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """b c is merged before a b, so `ab c` is never reached: tokenizers makes two tokens of abc,
    tiktoken one.
    """
    base = learn_tokenizer([""], 257).contents["model"]["vocab"]
    vocabulary = base | {"bc": 256, "ab": 257, "abc": 258}
    made = contents_of(vocabulary, [["b", "c"], ["a", "b"], ["ab", "c"]], {})
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(made), "utf-8")
    ours = load_tokenizer(tmp_path)
    assert "merges b'abc' in another order than tiktoken would" in caplog.text
    assert ours.encode("abc").tolist() == [base["a"], 256]


@pytest.mark.parametrize("made_by", ["gpt2", "learned"])
def test_what_is_saved_loads_in_transformers_and_here(
    made_by: str, shakespeare: str, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = gpt2_tokenizer() if made_by == "gpt2" else learn_tokenizer([shakespeare[:100_000]], 700)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (shakespeare[:20_000], ODD.replace(END_OF_TEXT, "")):
        assert theirs(text)["input_ids"] == ours.encode(text).tolist()
        assert theirs.decode(ours.encode(text).tolist()) == text
    assert theirs.eos_token == END_OF_TEXT
    assert theirs.eos_token_id == ours.special_tokens[END_OF_TEXT] == ours.vocab_size - 1
    again = load_tokenizer(tmp_path)
    assert isinstance(again, BytePairTokenizer)
    assert again.encode(ODD).tolist() == ours.encode(ODD).tolist()
    assert load_tokenizer(tmp_path / TOKENIZER_FILE).vocab_size == ours.vocab_size


def test_a_character_tokenizer_is_loaded_as_one(tmp_path: Path) -> None:
    CharacterTokenizer("abc").save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), CharacterTokenizer)


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="tokenizer nowhere is neither gpt2 nor"):
        load_tokenizer("nowhere")
    with pytest.raises(TokenizerError, match="neither gpt2 nor a folder"):
        load_tokenizer(tmp_path)
    (tmp_path / TOKENIZER_FILE).write_text("{", "utf-8")
    with pytest.raises(TokenizerError, match="is not a tokenizer file"):
        load_tokenizer(tmp_path)


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a merge of one": lambda made: made["model"]["merges"].append(["x"]),
    "an unknown merge": lambda made: made["model"]["merges"].append(["nobody", "knows"]),
    "no merges": lambda made: made["model"].pop("merges"),
    "a letter that is no byte's": lambda made: made["model"]["vocab"].update({"漢": 258}),
    "a byte without a token": lambda made: made["model"]["vocab"].pop("a"),
    "a huge id": lambda made: made["model"]["vocab"].update({"zz": 10**12}),
    "a negative id": lambda made: made["model"]["vocab"].update({"zz": -5}),
    "an id that is no whole number": lambda made: made["model"]["vocab"].update({"zz": 5.5}),
    "an id twice": lambda made: made["model"]["vocab"].update({"zz": 3}),
    "a special token without an id": lambda made: made.update(
        added_tokens=[{"content": "x", "special": True}]
    ),
    "special tokens that are a number": lambda made: made.update(added_tokens=5),
    "a special token that is half a pair": lambda made: made.update(
        added_tokens=[{"content": "\ud800", "id": 258, "special": True}]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_vocabulary_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    made = json.loads(json.dumps(learn_tokenizer(["aaa bbb"], 258).contents))
    DAMAGES[damage](made)
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps(made), "utf-8")
    with pytest.raises(TokenizerError) as refusal:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
