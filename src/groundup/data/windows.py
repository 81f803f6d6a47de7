"""Windows that keep documents whole, unless a document is longer than a window."""

import numpy as np

from groundup.data.splits import Tokens

AT_ONCE = 2**24  # tokens to scan in one piece


def whole_windows(tokens: Tokens, end_of_text: int, block_size: int) -> tuple[np.ndarray, ...]:
    """Find where the windows of each stream start.

    A document begins with its end-of-text token. A window begins at a document; where the window
    cuts a later document, the next window begins with that document. A document of more than
    block_size tokens continues in further windows. The last window of a stream ends where the
    stream ends. So every token but the first of a stream is a target, and a document of at most
    block_size tokens is whole in some window. A stream that is shorter than a window has no
    windows. All tokens are read once.

    Returns:
        [windows] int64 for each stream.
    """
    documents = (document_starts(stream, end_of_text) for stream in tokens.streams)
    both = zip(documents, tokens.streams, strict=True)
    return tuple(window_starts(begins, len(stream), block_size) for begins, stream in both)


def document_starts(stream: np.ndarray, end_of_text: int) -> np.ndarray:
    """Find where documents begin in [tokens]: at their end-of-text tokens, and at 0.

    Returns:
        [documents] int64.
    """
    pieces = [np.zeros(1, dtype=np.int64)]
    for first in range(0, len(stream), AT_ONCE):
        found = np.flatnonzero(stream[first : first + AT_ONCE] == end_of_text) + first
        pieces.append(found[found > 0])
    return np.concatenate(pieces)


def window_starts(documents: np.ndarray, length: int, block_size: int) -> np.ndarray:
    """Find where the windows of a stream start.

    Args:
        documents: The positions where documents begin, the first at 0: [documents].
        length: The number of tokens of the stream.
        block_size: The number of inputs of a window, which holds one token more: the last target.

    Returns:
        [windows] int64.
    """
    if length <= block_size:
        return np.empty(0, dtype=np.int64)
    ends = np.append(documents[1:], length)
    # windows that a long document needs besides
    further = np.maximum(0, -(-(ends - documents) // block_size) - 1)
    following = np.searchsorted(documents, documents + (further + 1) * block_size, side="right") - 1
    chosen, document = [], 0
    steps = following.tolist()
    while True:
        chosen.append(document)
        if steps[document] == document:  # only of the last one, which ends with the stream
            break
        document = steps[document]
    taken = np.array(chosen)
    counts = further[taken] + 1
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(documents[taken], counts) + inside * block_size
    last = length - 1 - block_size  # of a window that ends with the stream
    return np.append(starts[starts < last], last)
