"""docs/design.md shows the rooms as they are."""

from house import PAGE, with_rooms


def test_the_page_of_rooms_is_what_the_house_makes_of_it():
    page = PAGE.read_text("utf-8")
    assert with_rooms(page) == page, "run: python tests/architecture/house.py"
