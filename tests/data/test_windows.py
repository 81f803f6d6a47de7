"""Windows that keep documents whole: nothing is lost, and what fits isn't cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import windows
from groundup.data.sampler import Sampler
from groundup.data.splits import Tokens
from groundup.data.windows import document_starts, whole_windows

END = 7


def stream_of(lengths: list[int], first: bool) -> np.ndarray:
    """Documents of these lengths, each begun by END; without `first`, the stream begins in the
    middle of one.
    """
    parts = [np.concatenate([[END], np.arange(100, 99 + length)]) for length in lengths]
    stream = np.concatenate(parts).astype(np.uint16)
    return stream if first else stream[1:]


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@settings(max_examples=300)
@given(lengths=LENGTHS, first=st.booleans(), block_size=st.integers(1, 12))
def test_every_document_that_fits_is_whole_and_every_token_is_a_target(
    lengths: list[int], first: bool, block_size: int
) -> None:
    stream = stream_of(lengths, first)
    (starts,) = whole_windows(Tokens.of(stream), END, block_size)
    if len(stream) <= block_size:
        assert starts.tolist() == []
        return
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    targets = np.unique(starts[:, None] + 1 + np.arange(block_size))
    assert targets.tolist() == list(range(1, len(stream)))
    documents = sorted({0, *np.flatnonzero(stream == END).tolist()})
    for begin, end in zip(documents, [*documents[1:], len(stream)], strict=True):
        if end - begin <= block_size:  # with what follows it, which is its last target
            assert any(
                start <= begin and min(end, len(stream) - 1) <= start + block_size
                for start in starts
            )
    ends = dict(zip(documents, [*documents[1:], len(stream)], strict=True))
    # the last window ends with the stream; others begin or go on with a document
    for start in starts[:-1].tolist():
        if start not in ends:
            begin = max(document for document in documents if document < start)
            assert ends[begin] - begin > block_size
            assert (start - begin) % block_size == 0


@given(lengths=LENGTHS, at_once=st.integers(1, 20))
def test_documents_are_found_piece_by_piece(lengths: list[int], at_once: int) -> None:
    stream = stream_of(lengths, first=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "AT_ONCE", at_once)
        assert document_starts(stream, END).tolist() == np.flatnonzero(stream == END).tolist()


@given(lengths=st.lists(LENGTHS, min_size=1, max_size=4), seed=st.integers(0, 2**63 - 1))
def test_an_epoch_has_each_window_once(lengths: list[list[int]], seed: int) -> None:
    streams = tuple(stream_of(part, first=True) for part in [*lengths, [30]])
    tokens = Tokens(streams, tuple(map(str, range(len(streams)))))
    starts = whole_windows(tokens, END, 5)
    sampler = Sampler(tokens, 5, 1, seed, starts)
    assert sampler.windows_per_epoch == sum(map(len, starts))
    for epoch in range(2):
        numbers = epoch * sampler.windows_per_epoch + np.arange(sampler.windows_per_epoch)
        found = sampler.windows(numbers).tolist()
        expected = [
            streams[stream][start : start + 6].tolist()
            for stream, part in enumerate(starts)
            for start in part
        ]
        assert sorted(found) == sorted(expected)
