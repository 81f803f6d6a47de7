"""The readable BPE is the oracle of the fast ones: the same pairs, the same ids, on real text and
on invented ones.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.corpora import load_corpus
from groundup.errors import TokenizerError
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.readable_bytepair import ReadableBytePair
from groundup.tokenizers.train import learn_tokenizer

# Few letters, so that pairs repeat; and anything else that Unicode has, but for code points without
# a character (Cn):
# which of them are letters by now is answered by `regex` and by rustbpe from tables of different
# years.
repetitive = st.text(alphabet="ab c'\n1é🙂", max_size=200)
texts = repetitive | st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]), max_size=100)


def agree(fast: BytePairTokenizer, readable: ReadableBytePair) -> None:
    """Both learned the same pairs in the same order; the fast one has `<|endoftext|>` besides."""
    learned = [
        (readable.bytes_of[left], readable.bytes_of[right]) for left, right in readable.merges
    ]
    assert fast.identity[1] == learned
    assert fast.vocab_size == readable.vocab_size + 1


@pytest.mark.parametrize(
    "characters", [150_000, pytest.param(1_115_394, marks=pytest.mark.long)], ids=["part", "whole"]
)
def test_both_learn_and_encode_shakespeare_alike(characters: int) -> None:
    text = load_corpus("shakespeare").text[:characters]
    assert len(text) == characters
    fast, readable = learn_tokenizer([text], 513), ReadableBytePair.train(text, 512)
    agree(fast, readable)
    sample = text[characters // 2 :][:100_000]
    ids = readable.encode(sample)
    assert fast.encode(sample).tolist() == ids
    assert readable.decode(ids) == sample
    assert len(ids) < 0.6 * len(sample)


@settings(max_examples=300)
@given(text=texts, other=texts, vocab_size=st.integers(256, 300))
def test_both_learn_and_encode_any_text_alike(text: str, other: str, vocab_size: int) -> None:
    fast, readable = (
        learn_tokenizer([text], vocab_size + 1),
        ReadableBytePair.train(text, vocab_size),
    )
    agree(fast, readable)
    for sample in (text, other):
        ids = readable.encode(sample)
        assert fast.encode(sample).tolist() == ids
        assert readable.decode_bytes(ids) == sample.encode("utf-8")
        assert readable.decode(ids) == sample


def test_pairs_by_hand() -> None:
    """Of "aaabdaaabac" Gage 1994 makes XdXac: Z = aa, Y = ab, X = ZY."""
    learned = ReadableBytePair.train("aaabdaaabac", 259)
    assert [learned.bytes_of[256 + place] for place in range(3)] == [b"aa", b"ab", b"aaab"]
    assert learned.encode("aaabdaaabac") == [258, ord("d"), 258, ord("a"), ord("c")]


def test_pairs_never_cross_words() -> None:
    learned = ReadableBytePair.train("ab ab ab", 300)
    assert [learned.bytes_of[token] for token in range(256, learned.vocab_size)] == [b"ab", b" ab"]


@pytest.mark.parametrize("text", ["a\ud800", "\udfff"])
def test_half_a_pair_is_refused_by_name(text: str) -> None:
    with pytest.raises(TokenizerError, match="lone surrogate"):
        ReadableBytePair.train(text, 260)
    with pytest.raises(TokenizerError, match="lone surrogate"):
        ReadableBytePair([]).encode(text)
    with pytest.raises(TokenizerError, match="lone surrogate"):
        learn_tokenizer([text], 260)


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(TokenizerError, match="vocab_size = 255 must be at least 256"):
        ReadableBytePair.train("a", 255)
    with pytest.raises(TokenizerError, match="vocab_size = 256 must be at least 257"):
        learn_tokenizer(["a"], 256)
