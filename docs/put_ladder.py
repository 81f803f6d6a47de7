"""Puts a climbed ladder into docs/ladder.md and the README: `python docs/put_ladder.py FOLDER`.

FOLDER is what `groundup ladder --out FOLDER` has written.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"(?<=<!-- ladder -->\n).*?(?=<!-- end of the ladder -->)", re.DOTALL)
PICTURE = "ladder.png"


def table_of(page: str, title: str) -> dict[str, list[str]]:
    """Return the rows of a table of the page, by the rung's name.

    Args:
        page: What `groundup ladder` has written.
        title: The heading above the table.
    """
    section = page.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {row[0].replace("\\*", ""): row for row in rows[2:]}


def short_table(page: str) -> str:
    """Return one table of both, with the losses and what each rung changed."""
    by_time, by_tokens = (table_of(page, f"At equal {what}") for what in ("time", "tokens"))
    lines = [
        "| rung | loss at equal time | change | loss at equal tokens | change | tokens/s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in by_time.items():
        other = by_tokens[name]
        cells = name, row[1], row[3], other[1], other[3], row[5]
        lines.append(f"| {' | '.join(cell.strip() for cell in cells)} |")
    return "\n".join(lines) + "\n"


def put(path: Path, text: str) -> None:
    """Replace what stands between the two comments of a file."""
    page, number = PLACE.subn(lambda _: text, path.read_text("utf-8"))
    assert number == 1, f"{path} has {number} places for the ladder"
    path.write_text(page, "utf-8")


def main(folder: Path) -> None:
    """Put the tables and the picture of a folder where readers look."""
    page = (folder / "ladder.md").read_text("utf-8")
    body = page.partition("\n")[2].lstrip().replace(f"({PICTURE})", f"(images/{PICTURE})")
    put(ROOT / "docs" / "ladder.md", body)
    put(ROOT / "README.md", short_table(page))
    shutil.copy(folder / PICTURE, ROOT / "docs" / "images" / PICTURE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
