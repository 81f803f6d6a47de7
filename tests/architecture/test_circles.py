"""Files import each other in one direction: whoever opens one needs no file that needs it back."""

import pytest
from source_tree import FILES, MODULES, module_name, ours

DOOR = "from_pretrained"  # who has the class has its published weights, as everywhere in this field
STILL_CIRCLES: list[set[str]] = []  # to be untied: each a set of modules, none may grow


def circles(needs: dict[str, set[str]]) -> list[set[str]]:
    """The sets of names in a graph that reach each other, each as large as it is."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [*needs[start]]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += needs.get(name, ())
        return found

    within = {name: reached(name) for name in needs}
    found = []
    for name in sorted(needs):
        if name in within[name] and not any(name in circle for circle in found):
            found.append({other for other in within[name] if name in within.get(other, ())})
    return found


def test_files_import_each_other_in_no_circle():
    """Imports inside functions and for type checkers count too."""
    needs = {
        # the front door names for type checkers what it imports lazily
        module_name(path): ours(path, DOOR) & MODULES - {"groundup", module_name(path)}
        for path in FILES
        if module_name(path) != "groundup"
    }
    assert sum(map(len, needs.values())) > 400
    for circle in circles(needs):
        assert any(circle <= known for known in STILL_CIRCLES), f"a circle: {sorted(circle)}"


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [{"a", "b"}]),
        (
            {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}},
            [{"a", "b", "c"}, {"d", "e"}],
        ),
    ],
)
def test_circles_are_found(needs: dict[str, set[str]], expected: list[set[str]]):
    assert circles(needs) == expected
