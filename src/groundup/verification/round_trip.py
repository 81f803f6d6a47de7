"""The claim about tokenizers: every text comes back from its tokens as it was."""

import random
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from groundup.console import messages_to
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.foreign import ForeignTokenizer
from groundup.tokenizers.load import load_tokenizer
from groundup.verification.model_under_test import Measurement, ModelUnderTest, Skipped

HARD = (
    "It's 3,14159\u00a0€ — don't.\r\n\r\n\tdef f(x):\n        return x  \n \n   trailing   "
    "\t\u200b\u2028\u2029\x00\x1f\x7fe\u0301 é ǆ ﬁ Å "
    "ẞß İı ÅΩ 한글 각 中文字、。ひらがな カﾞ हिन्दी ไทย "
    "العربية עברית👩‍👩‍👧‍👦🏳️‍🌈🇨🇿 𝔘𝔫𝔦 "
    "\ufeff\ufffd\uffff\U0010ffff <|endoftext|><unk>▁Ġ\\n"
)
RANDOM_CHARACTERS = 500


def tokenizer_round_trip(tested: ModelUnderTest) -> Iterator[Measurement]:
    """Count the errors after a hard text is encoded by the model's tokenizer and decoded again.

    The text is decoded as a whole and token by token, and is encoded once more by a copy of the
    tokenizer that was saved and loaded. Ids that the model doesn't know count as errors too.
    """
    tokenizer = tested.tokenizer
    if tokenizer is None:
        raise Skipped("the model has no tokenizer that groundup knows")
    text = sample_for(tokenizer)
    ids = tokenizer.encode(text).tolist()
    known = range(min(tokenizer.vocab_size, tested.model.config.vocab_size))
    yield Measurement("unknown ids", sum(token not in known for token in ids), 0.0)
    yield Measurement("characters", count_differences(tokenizer.decode(ids), text), 0.0)
    pieces = b"".join(tokenizer.decode_bytes([token]) for token in ids)
    yield Measurement("pieces", count_differences(pieces, text.encode("utf-8")), 0.0)
    with TemporaryDirectory(prefix="groundup-verify-") as folder:
        tokenizer.save(Path(folder))
        with messages_to(lambda _: None):  # said when the model was loaded
            again = load_tokenizer(folder)
    yield Measurement("saved", count_differences(again.encode(text).tolist(), ids), 0.0)


def sample_for(tokenizer: Tokenizer) -> str:
    """Return a hard text that the tokenizer promises to give back.

    The text has only characters that the tokenizer knows, and is in the tokenizer's normal form.
    """
    text = HARD + random_characters()
    if isinstance(tokenizer, CharacterTokenizer):
        known = set(tokenizer.characters)
        return "".join([*(one for one in text if one in known), *tokenizer.characters])
    if isinstance(tokenizer, BytePairTokenizer) and tokenizer.normal_form:
        return unicodedata.normalize("NFC", text)
    if isinstance(tokenizer, ForeignTokenizer) and tokenizer.contents.get("normalizer"):
        # any normal form, so what it leaves of the text must stay
        return tokenizer.decode(tokenizer.encode(text))
    return text


def random_characters() -> str:
    """Return characters from all over Unicode, surrogates left out: always the same ones."""
    generator = random.Random(1)
    points = (generator.randrange(0x10F800) for _ in range(RANDOM_CHARACTERS))
    return "".join(chr(point if point < 0xD800 else point + 0x800) for point in points)


def count_differences(found: Sequence[object], expected: Sequence[object]) -> int:
    """Count the positions at which two sequences differ, and add the difference in length."""
    common = sum(one != other for one, other in zip(found, expected, strict=False))
    return common + abs(len(found) - len(expected))
