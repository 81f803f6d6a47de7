"""What the data doctor gathers, against plain Python that splits, counts and compares every
character.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepared_folders import repaired

from groundup.data_inspection.statistics import KINDS, MARKERS, Damage, Statistics
from groundup.errors import CorpusError

# Letters, and all that is looked for: often enough to meet.
PIECES = st.sampled_from(
    [
        *"ab é\n\n\r\t\f中😀Ââ€Ãï¿½»\x80",
        *("<|endoftext|>", "<eos>"),
        "\ufffd",
        "\ufeff",
        "\0",
        "\x01",
        "\x7f",
        "\x85",
        "\ud83d",
        "\udc00",
        "Ã©",
        "â€™",
        "a" * 70,
    ]
)
TEXTS = st.lists(st.lists(PIECES | st.characters(), max_size=30).map("".join), max_size=12)
CONTROLS = {*map(chr, range(32)), *map(chr, range(127, 160))} - set("\t\n\r\f\0")


def gathered(texts: list[str], first: int = 0) -> Statistics:
    statistics = Statistics()
    for number, text in enumerate(texts, start=first):
        statistics.examine(text, repaired(text).encode("utf-8"), f"text {number}")
    return statistics


def lines_of(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def damage_in(text: str) -> dict[str, int]:
    """Counted pair by pair and character by character."""
    pairs = [text[place : place + 2] for place in range(len(text) - 1)]
    threes = [text[place : place + 3] for place in range(len(text) - 2)]
    return {
        "literal markers": sum(len(text.split(marker)) - 1 for marker in MARKERS),
        "replacement characters": sum(character == "\ufffd" for character in text),
        "lone surrogates": sum(0xD800 <= ord(character) < 0xE000 for character in text),
        "NUL characters": sum(character == "\0" for character in text),
        "control characters": sum(character in CONTROLS for character in text),
        "byte-order marks": sum(character == "\ufeff" for character in text),
        "mojibake": sum(a in "ÂÃ" and "\x80" <= b <= "\xbf" for a, b in pairs)
        + sum(pair in {"â€", "â\x80", "ðŸ", "ð\x9f"} for pair in pairs)
        + sum(three in {"ï»¿", "ï¿½"} for three in threes),
    }


@given(TEXTS)
def test_everything_is_what_plain_counting_gives(texts: list[str]):
    statistics = gathered(texts)
    assert statistics.documents == len(texts)
    assert statistics.size == sum(len(repaired(text).encode()) for text in texts)
    assert statistics.characters == set(repaired("".join(texts)))
    lines = [
        (len(line), f"text {number}")
        for number, text in enumerate(texts)
        for line in lines_of(text)
    ]
    longest = sorted(lines, key=lambda line: -line[0])[:5]
    assert [(line.characters, line.origin) for line in statistics.longest_lines] == longest
    for kind in KINDS:
        counts = [damage_in(text)[kind] for text in texts]
        if not sum(counts):
            assert kind not in statistics.damage
        else:
            first = next(number for number, count in enumerate(counts) if count)
            found = Damage(sum(counts), sum(count > 0 for count in counts), f"text {first}")
            assert statistics.damage[kind] == found


@given(TEXTS, st.data())
def test_parts_merge_to_the_whole_however_they_are_grouped(texts: list[str], data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=4)))
    bounds = list(zip([0, *cuts], [*cuts, len(texts)], strict=True))
    parts = [gathered(texts[first:last], first) for first, last in bounds]
    parts = [Statistics.from_json(json.loads(json.dumps(part.to_json()))) for part in parts]
    while len(parts) > 1:  # neighbours, in any order
        place = data.draw(st.integers(0, len(parts) - 2))
        parts[place].merge(parts.pop(place + 1))
    assert parts[0].to_json() == gathered(texts).to_json()
    # what was merged goes on as if it had seen it all
    parts[0].examine("é\x01Ã©", "é\x01Ã©".encode(), "one more")
    whole = gathered(texts)
    whole.examine("é\x01Ã©", "é\x01Ã©".encode(), "one more")
    assert parts[0].to_json() == whole.to_json()


def test_long_documents_of_many_scripts_are_counted_alike():
    """Those for which numpy does the work."""
    generator = np.random.default_rng(1)
    texts = []
    for number in range(60):
        letters = generator.choice(list("abcdefgh \n中文字語言あいうдежзçéâ"), size=2000)
        letters[generator.integers(0, 2000, 3)] = "\ufffd" if number % 7 == 3 else "x"
        texts.append("".join(letters).replace("e", "e\n" * (number % 3)))
    test_everything_is_what_plain_counting_gives.hypothesis.inner_test(texts)


@pytest.mark.parametrize(
    "value", [None, [], {}, {"documents": 1}, Statistics().to_json() | {"damage": {"mojibake": 3}}]
)
def test_what_is_no_statistics_is_refused(value: object):
    with pytest.raises(CorpusError, match=r"index.json is damaged"):
        Statistics.from_json(value, "index.json")
