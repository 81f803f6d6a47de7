"""docs/design.md shows the rooms as they are, and docs/gpu.md all that only a GPU takes."""

import re
from pathlib import Path

import pytest
from house import PAGE, with_rooms
from source_tree import FILES, module_name

ASKS = r"machine\.kinds import|device\.type\b|fused=True|enable_gqa"


def test_the_page_of_rooms_is_what_the_house_makes_of_it():
    page = PAGE.read_text("utf-8")
    assert with_rooms(page) == page, "run: python tests/architecture/house.py"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_what_only_a_gpu_takes_is_in_the_table(path: Path):
    """Whatever asks what a device can do goes another way on a GPU."""
    asks = re.search(
        r"machine\.kinds import|device\.type\b|fused=True|enable_gqa", path.read_text("utf-8")
    )
    page = PAGE.with_name("gpu.md").read_text("utf-8")
    assert not asks or f"`{path.parent.name}/{path.name}`" in page
