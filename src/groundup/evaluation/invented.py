"""Items in HellaSwag's form that ship with the package, so that none need be downloaded."""

from pathlib import Path


def invented_items() -> Path:
    """Return the file of 40 invented items, to try scoring with; too few to compare models by.

        groundup.evaluate(loaded, "hellaswag", file=groundup.invented_items())

    They are everyday scenes in HellaSwag's form (Zellers et al. 2019), written for groundup. Each
    of the four places holds the right ending ten times.
    """
    return Path(__file__).with_name("invented_items.jsonl")
