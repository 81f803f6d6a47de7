"""Keys of recipes by the names that they had when HellaSwag was the only task are still read."""

import pytest

from groundup.cli.flags import RecipeFlags
from groundup.cli.main import app
from groundup.errors import RecipeError
from groundup.recipes.files import load_recipe, overrides, packaged, parse_toml
from groundup.recipes.schema import Recipe, differences

BASE = packaged("quickstart")
OLD = '[eval]\nhellaswag_every = 4\nhellaswag_items = 9\nhellaswag_file = "items.jsonl"\n'
NEW = '[eval]\ntask = "hellaswag"\ntask_every = 4\ntask_items = 9\ntask_file = "items.jsonl"\n'


def read(*texts: str) -> Recipe:
    return load_recipe(BASE, *(parse_toml(text, f"{n}.toml") for n, text in enumerate(texts)))


def test_older_names_mean_the_same_and_are_written_as_those_of_today():
    assert read(OLD) == read(NEW)
    assert list(differences(read(OLD), read(NEW))) == []
    written = read(OLD).to_toml()
    assert "hellaswag_" not in written
    assert 'task = "hellaswag"' in written
    again = load_recipe(parse_toml(written, "recipe.toml"))
    assert again.eval == read(OLD).eval


def test_they_choose_hellaswag_over_a_layer_below():
    choices = '[eval]\ntask = "choices"\ntask_every = 5\ntask_file = "mine.jsonl"\n'
    below = read(choices, "[eval]\nhellaswag_every = 2\n").eval
    assert (below.task, below.task_every, below.task_file) == ("hellaswag", 2, "mine.jsonl")
    above = read(OLD, '[eval]\ntask = "choices"\n').eval
    assert (above.task, above.task_every, above.task_items) == ("choices", 4, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[eval]\nhellaswag_every = -1\n", r"eval.task_every = -1 is outside .* \(my.toml:2\)"),
        ("[eval]\n\nhellaswag_items = 1.5\n", r"eval.hellaswag_items = 1.5 \(my.toml:3\) must be"),
        (
            '[eval]\ntask = "choices"\nhellaswag_every = 2\n',
            r"eval.hellaswag_every \(my.toml:3\) is the older name of eval.task_every with "
            r"eval.task = hellaswag, and can't stand beside eval.task = choices",
        ),
        (
            "[eval]\ntask_items = 3\nhellaswag_items = 3\n",
            r"eval.hellaswag_items \(my.toml:3\) .* can't stand beside eval.task_items",
        ),
        ("[train]\nhellaswag_every = 2\n", "unknown key train.hellaswag_every"),
    ],
)
def test_errors_name_them_and_their_place(text: str, said: str):
    with pytest.raises(RecipeError, match=said):
        load_recipe(BASE, parse_toml(text, "my.toml"))


def test_they_are_flags_that_help_does_not_show(
    capsys: pytest.CaptureFixture[str],
):
    flags = RecipeFlags()
    assert {"hellaswag_every", "hellaswag_items", "hellaswag_file"} <= vars(flags.eval).keys()
    given = load_recipe(BASE, overrides({"eval": {"hellaswag_every": 4}})).eval
    assert (given.task, given.task_every) == ("hellaswag", 4)
    with pytest.raises(RecipeError, match=r"eval.task_every = -4 .* \(--eval.hellaswag-every\)"):
        load_recipe(BASE, overrides({"eval": {"hellaswag_every": -4}}))
    with pytest.raises(SystemExit):
        app(["train", "--help"], exit_on_error=False, print_error=False)
    shown = capsys.readouterr().out
    assert "--eval.task-every" in shown
    assert "hellaswag-every" not in shown
