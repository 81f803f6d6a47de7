"""The plan of the house as a test: imports go down only, torch.distributed has one room, models
know nobody above.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from house import FLOORS
from source_tree import FILES, SOURCE, imported, module_name, ours, room_of, tree_of

FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
UPWARD_DOORS = {  # (module, what it imports), each with its reason
    # `from_pretrained`: who has the class has its published weights, as everywhere in this field.
    ("groundup.models.gpt2", "groundup.checkpoints.model_folder"),
    ("groundup.models.modern", "groundup.checkpoints.model_folder"),
}


def test_every_room_is_on_a_floor():
    rooms = {room_of(module_name(path)) for path in FILES}
    assert rooms <= set(FLOOR_OF), f"which floor is {rooms - set(FLOOR_OF)} on?"
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_down_only(path: Path):
    module = module_name(path)
    # lazy: the names of the house's front door, imported for type checkers alone
    if module == "groundup":
        return
    for name in ours(path):
        if (module, name) in UPWARD_DOORS:
            continue
        here, there = FLOOR_OF[room_of(module)], FLOOR_OF[room_of(name)]
        assert there >= here, f"{module} imports {name}, from a floor above"


def test_doors_upwards_are_local_to_one_function():
    """At the top of a file they would drag the house in with a model."""
    for module, name in UPWARD_DOORS:
        tree = tree_of(SOURCE.parent.joinpath(*module.split(".")).with_suffix(".py"))
        functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and name in imported(node)
        ]
        assert [function.name for function in functions] == ["from_pretrained"]
        at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert name not in {other for node in at_once for other in imported(node)}


def test_rooms_on_one_floor_do_not_need_each_other_in_a_circle():
    needs: dict[str, set[str]] = {}
    for path in FILES:
        room = room_of(module_name(path))
        if room != "__init__":
            doors = {name for module, name in UPWARD_DOORS if module == module_name(path)}
            needs.setdefault(room, set()).update(
                {room_of(name) for name in ours(path) - doors} - {room}
            )
    order = list(TopologicalSorter(needs).static_order())  # raises CycleError
    assert order.index("errors") < order.index("cli")


def test_the_front_door_is_lazy():
    tree = tree_of(SOURCE / "__init__.py")
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {name for node in at_once for name in imported(node)} == {"importlib", "typing"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_torch_distributed_has_one_room(path: Path):
    text = path.read_text("utf-8")
    mentions = any(
        name in text
        for name in ("torch.distributed", "DistributedDataParallel", "torch import distributed")
    )
    assert not mentions or path.parent.name == "parallel"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_the_kinds_of_devices_have_one_room(path: Path):
    """A device for tests goes the way of a GPU only where nobody asks for its name."""
    strings = {
        str(node.value).partition(":")[0]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant)
    }
    names = {
        ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)
    }
    asks = strings & {"cuda", "mps"} or names & {"torch.cuda", "torch.mps"}
    assert not asks or path.parent.name == "machine"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == "models"], ids=module_name
)
def test_models_import_torch_config_and_each_other(path: Path):
    allowed = {
        "torch",
        "math",
        "typing",
        "collections",
        "functools",
        "dataclasses",
        "re",
        "pathlib",
    }
    for name in imported(tree_of(path)):
        if (module_name(path), name) in UPWARD_DOORS:
            continue
        if (path.name, name) == ("config.py", "groundup.errors"):
            continue
        if (path.name, name) == ("sampling.py", "groundup.machine.kinds"):
            continue  # not every device has float64
        if (path.name, name) == ("sampling.py", "hashlib"):
            continue  # a random number that depends on seed, choice and position alone
        assert name.split(".")[0] in allowed or name.startswith("groundup.models")
        if path.name == "readable.py":
            assert name.split(".")[0] in {"torch", "math"} or name == "groundup.models.config"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_runs_on_import(path: Path):
    """At module level: definitions, imports and constants, and no code that only acts."""
    for node in tree_of(path).body:
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) in {"TYPE_CHECKING", "__name__ == '__main__'"}
        else:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            definitions = (
                ast.Import,
                ast.ImportFrom,
                ast.ClassDef,
                ast.FunctionDef,
                ast.AsyncFunctionDef,
                ast.Assign,
                ast.AnnAssign,
            )
            assert is_docstring or isinstance(node, (*definitions, ast.AugAssign)), ast.unparse(
                node
            )


def test_no_pickle_is_read():
    for path in FILES:
        names = {name.split(".")[0] for name in imported(tree_of(path))}
        assert not names & {"pickle", "dill", "joblib", "shelve", "marshal"}, path
        calls = {
            ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)
        }
        assert "torch.load" not in calls, path
