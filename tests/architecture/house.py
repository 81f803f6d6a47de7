"""The plan of the house: its rooms, floor by floor, to which the tests hold the code.

`python tests/architecture/house.py` writes it into docs/design.md, between the two comments there.
"""

import re
from pathlib import Path

# From the street to the cellar. A room is a folder or a file beside the folders; one that isn't
# listed fails.
FLOORS: list[dict[str, str]] = [
    {"__main__": "`python -m groundup`"},
    {"cli": "the command line: a file for each command; what the commands print"},
    {
        "profiling": (
            "what a recipe costs, and how fast a model writes: measured by `bench`, predicted by "
            "`plan`, estimated for other GPUs"
        ),
        "verification": "what groundup claims of its models, measured on the machine at hand",
    },
    {
        "ladder": "what each step from a bigram to the modern GPT buys: rungs, cells, tables",
    },
    {
        "export": "models for other programs: GGUF, ONNX, Hugging Face's hub with a model card",
        "page": "the glass box: a page that writes with a model and shows what happens inside",
        "serving": "models over HTTP: the OpenAI-compatible server, its limits, chat templates",
        "training": "from a recipe to a trained model: setting up, the trainer, its journal",
    },
    {
        "evaluation": "how good a model is, alone or beside another",
        "prepare": "from any text to shuffled, verified shards of tokens",
    },
    {
        "checkpoints": (
            "models on disk: folders written whole, Hugging Face's layouts, adapters, models "
            "found by name"
        ),
        "data_inspection": "what a training run should know of its data",
        "inspection": "what a model computes on its way through a text",
    },
    {
        "data": "what training reads: corpora, shards, windows, batches",
        "generation": "texts from a model: the engine, its slots, the C++ of a step",
        "runs": "what a run leaves behind: its folder, records and picture",
    },
    {
        "optim": "which parameter goes to which optimizer; schedules of the learning rate",
        "tokenizers": "text to tokens and back",
    },
    {
        "hub": "files from elsewhere: HTTP, verified downloads, Hugging Face's hub",
        "recipes": "what decides a run: fields, TOML files, flags, scaling; the packaged recipes",
    },
    {
        "files": "small files written whole, JSON from anywhere",
        "lessons": "where the lessons are, how long they train, their exercises",
        "models": "the architectures, a file each, and what they share",
    },
    {
        "machine": "devices and what they can do, cores, memory and time",
    },
    {
        "console": "what answers are printed with",
        "parallel": "the processes that share a run; the one room that names torch.distributed",
    },
    {
        "__init__": "the public names, imported when they are used",
        "errors": "what a user can do wrong, a class each",
    },
]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "design.md"
BEGIN, END = "<!-- rooms: made by tests/architecture/house.py -->", "<!-- end of rooms -->"


def as_markdown() -> str:
    """The floors as a table, the street first."""
    rows = [
        f"| {'' if at else len(FLOORS) - number} | `{room}` | {purpose} |"
        for number, rooms in enumerate(FLOORS)
        for at, (room, purpose) in enumerate(rooms.items())
    ]
    return "\n".join(["| floor | room | what it holds |", "|---|---|---|", *rows])


def with_rooms(page: str) -> str:
    """A page with the table between its two comments, which it must have."""
    assert page.count(BEGIN) == page.count(END) == 1, f"{PAGE.name} needs {BEGIN} and {END} once"
    block = f"{BEGIN}\n{as_markdown()}\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_rooms(PAGE.read_text("utf-8")), "utf-8")
