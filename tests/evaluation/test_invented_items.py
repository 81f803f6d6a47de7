"""The invented items that ship with the package: sound, balanced, and scored by their one name."""

import groundup
from groundup.checkpoints.model_folder import LoadedModel
from groundup.data.hellaswag_items import preprocessed, read_items
from invented_items import small_model, tokenizer


def test_they_are_balanced_and_no_two_are_alike():
    items = read_items(groundup.invented_items())
    assert [item.number for item in items] == list(range(40))
    assert [[item.label for item in items].count(place) for place in range(4)] == [10] * 4
    assert len({item.context for item in items}) == 40
    assert len({item.activity for item in items}) == 40
    endings = [ending for item in items for ending in item.endings]
    assert len(set(endings)) == len(endings) == 160
    for item in items:
        context, cleaned = preprocessed(item)
        assert context == f"{item.activity}: {item.context}"  # nothing that has to be cleaned
        assert cleaned == list(item.endings)
        assert all(ending.endswith(".") and ending.isascii() for ending in item.endings)


def test_the_length_of_an_ending_gives_nothing_away():
    lengths = [
        ([len(ending) for ending in item.endings], item.label)
        for item in read_items(groundup.invented_items())
    ]
    for extreme in (max, min):
        guessed = [each.index(extreme(each)) == label for each, label in lengths]
        assert 4 <= sum(guessed) <= 16
    assert all(max(each) - min(each) <= 16 for each, _ in lengths)


def test_evaluate_takes_them():
    model = LoadedModel(small_model(), tokenizer(), groundup.invented_items().parent)
    file = groundup.invented_items()
    found = groundup.evaluate(model, "hellaswag", file=file, convention="harness").to_json()
    assert found["items"] == 40
    assert not found["official"]
    assert {row["measure"] for row in found["results"]} == {"acc", "acc_norm", "acc_bytes"}
