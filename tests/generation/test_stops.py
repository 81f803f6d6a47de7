"""Stop strings against `str.find` on the whole text, which is cut into pieces in any way."""

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.generation.stops import StopFilter

# few characters, so that stop strings overlap themselves and each other
texts = st.text("ab", max_size=6) | st.text("ab", max_size=24) | st.text("abc\n", max_size=40)
stop_sets = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4).map(tuple)


def cut(text: str, places: list[int]) -> list[str]:
    """A text in pieces, some of them empty."""
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def before_stop(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """What is shown of a text in the end, and whether it holds a stop string."""
    starts = [start for stop in stops if (start := text.find(stop)) >= 0]
    return (text[: min(starts)], True) if starts else (text, False)


@given(text=texts, stops=stop_sets, places=st.lists(st.integers(0, 40), max_size=40))
@settings(max_examples=300)
@example(text="abc", stops=("abc", "b"), places=[1, 2])
@example(text="abd", stops=("abc", "b"), places=[1, 2])
@example(text="ab", stops=("abc", "b"), places=[1])
@example(text="aab", stops=("abb", "b"), places=[])
@example(text="aaab", stops=("aab",), places=[1, 2, 3])
def test_the_text_ends_before_the_first_stop_string(
    text: str, stops: tuple[str, ...], places: list[int]
):
    """Also where a stop string is complete while a longer one that begins before it is open."""
    stop_filter = StopFilter(stops)
    shown = "".join(stop_filter.push(piece) for piece in cut(text, places))
    shown += stop_filter.finish()
    assert (shown, stop_filter.found) == before_stop(text, stops)
    assert not stop_filter.found or stop_filter.push("more") == stop_filter.finish() == ""


@given(text=texts, stops=stop_sets, places=st.lists(st.integers(0, 40), max_size=40))
@settings(max_examples=300)
def test_only_what_may_begin_a_stop_string_is_held_back(
    text: str, stops: tuple[str, ...], places: list[int]
):
    """After each piece the text so far, up to the first place from which a stop string could still
    come true: none of what is shown could be taken back, and all that is certain is shown.
    """
    stop_filter, shown, so_far = StopFilter(stops), "", ""
    for piece in cut(text, places):
        so_far += piece
        shown += stop_filter.push(piece)
        open_at = min(
            (
                start
                for start in range(len(so_far))
                if any(stop.startswith(so_far[start:]) and stop != so_far[start:] for stop in stops)
            ),
            default=len(so_far),
        )
        before, is_there = before_stop(so_far, stops)
        is_certain = is_there and len(before) <= open_at
        assert shown == (before if is_certain else so_far[:open_at])
        assert stop_filter.found == is_certain
        if is_certain:
            break


@pytest.mark.parametrize("stop", ["a" * 200_000 + "b", "ab" * 100_000])
def test_a_long_stop_string_costs_no_more_for_each_character(stop: str):
    """Compared at each character, 20,000 pieces would be 2 * 10^8 comparisons of strings."""
    began = time.process_time()
    stop_filter = StopFilter((stop,))
    for _ in range(20_000):
        assert stop_filter.push("a") in ("", "a")
    stop_filter.finish()
    assert time.process_time() - began < 5


def test_without_stop_strings_all_is_shown_at_once():
    stop_filter = StopFilter(())
    assert stop_filter.push("a\n") == "a\n"
    assert stop_filter.finish() == ""
    assert not stop_filter.found
