"""A hundred thousand hostile model files: each is loaded or refused in one line, soon and in little
memory.

`fuzz` sees crashes of Python and of the libraries below it, hangs, and more than 400 MB of memory.
The first of each kind are in every run of the suite; .ci/run loads all of them.
"""

from pathlib import Path

import pytest

from fuzzing import KINDS, fuzz

OF_A_KIND, AT_ONCE = 25_000, 5_000
EACH_TIME = 500


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_file_loads_or_is_refused(kind: str, tmp_path: Path) -> None:
    """faults.md, 21 to 23: config.json, tokenizer.json, safetensors headers, and the index over
    several.
    """
    assert fuzz(kind, range(EACH_TIME), tmp_path) == {}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, OF_A_KIND, AT_ONCE))
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_thousand_hostile_files_load_or_are_refused(
    kind: str, first: int, tmp_path: Path
) -> None:
    """faults.md, 21 to 23."""
    assert fuzz(kind, range(first, first + AT_ONCE), tmp_path) == {}
