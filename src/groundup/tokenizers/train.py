"""A tokenizer of your own: byte-level BPE learned from a text, by rustbpe."""

from collections.abc import Iterable

import rustbpe

from groundup.errors import TokenizerError
from groundup.tokenizers import bytepair
from groundup.tokenizers.base import END_OF_TEXT, check_text
from groundup.tokenizers.bytepair import BytePairTokenizer, merged, to_letters
from groundup.tokenizers.word_patterns import check_stretches, explained

LARGEST = 2**24


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> BytePairTokenizer:
    """Learn byte-level BPE from texts, which are cut into words as GPT-2's tokenizer does.

    The last token of the vocabulary is `<|endoftext|>`.

    Args:
        texts: The texts, which are read once. Bytes of two texts are never merged.
        vocab_size: The size of the vocabulary, which becomes smaller if the texts have too few
            pairs of bytes to merge.

    Raises:
        TokenizerError: `vocab_size` is less than 257 or more than 2^24, or a text has a lone
            surrogate.
    """
    if not 257 <= vocab_size <= LARGEST:
        need = f"at least 257, for each byte and {END_OF_TEXT}, and at most {LARGEST:,}"
        raise TokenizerError(f"vocab_size = {vocab_size} must be {need}")
    learner = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    with explained("a text can't be cut into words"):
        words = bytepair.GPT2_PATTERN
        learner.train_from_iterator(map(_checked, texts), vocab_size - 1, pattern=words)
    ranks = {bytes(token): rank for token, rank in learner.get_mergeable_ranks()}
    pairs = [merged(token, ranks, rank) for token, rank in ranks.items() if rank >= 256]
    vocabulary = {to_letters(token): rank for token, rank in ranks.items()}
    merges = [[to_letters(left), to_letters(right)] for left, right in pairs]
    contents = bytepair.contents_of(vocabulary, merges, {END_OF_TEXT: len(ranks)})
    return BytePairTokenizer(contents, "what was learned")


def _checked(text: str) -> str:
    check_text(text)
    check_stretches(text)
    return text
