"""What a user installs is what lies in `src/groundup`, and that is what git keeps."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from source_tree import ROOT, SOURCE

from groundup.recipes.files import packaged_names


def git(*args: str, given: str = "") -> list[str]:
    """The lines that a git command prints in this repository."""
    command = ["git", "-c", "core.quotePath=off", *args]
    finished = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, text=True, check=False
    )
    assert finished.returncode in (0, 1), finished.stderr  # 1: check-ignore found nothing
    return finished.stdout.splitlines()


def files_on_disk() -> set[str]:
    """The package's files, less what Python makes of them."""
    found = (path for path in SOURCE.rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_every_folder_of_code_is_a_package_in_git_and_in_the_wheel():
    """Hatchling takes what lies in the package's folder, less what a line of .gitignore matches."""
    if not (ROOT / ".git").exists():
        pytest.skip("an unpacked archive has no git to ask")
    on_disk = files_on_disk()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    assert settings["build"]["targets"]["wheel"] == {
        "packages": ["src/groundup"],
        "hooks": {"custom": {}},  # hatch_build.py
    }
    assert not git("check-ignore", "--no-index", "--stdin", given="\n".join(sorted(on_disk)))
    assert set(git("ls-files", "src/groundup")) == on_disk, "what is missing in git needs a git add"


def test_every_folder_of_code_is_a_package_that_says_what_it_is_for():
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


CPP = "step.cpp", "products.h", "tiles.h", "vectors.h"


def test_the_recipes_and_the_types_are_in_the_package():
    data = {path for path in files_on_disk() if not path.endswith(".py")}
    recipes = {f"src/groundup/recipes/{name}.toml" for name in packaged_names()}
    sources = {f"src/groundup/generation/cpp/{name}" for name in CPP}
    page = {path for path in data if path.startswith("src/groundup/page/assets/")}
    assert {Path(path).suffix for path in page} == {".html", ".css", ".js"}
    others = {"src/groundup/py.typed", "src/groundup/ladder/rates.toml"}
    others |= {"src/groundup/evaluation/invented_items.jsonl"}
    assert data == recipes | sources | page | others


@pytest.mark.long
def test_the_wheel_holds_the_package(tmp_path: Path):
    """Built as a user's pip builds it, which fetches hatchling for it."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("groundup-*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = {f"src/{name}" for name in opened.namelist() if ".dist-info/" not in name}
        page = [each for each in opened.infolist() if "/page/assets/" in each.filename]
        texts = [opened.read(name).decode("utf-8") for name in opened.namelist() if "/note" in name]
    lessons = {path.name for path in (ROOT / "notebooks").iterdir() if path.suffix != ".py"}
    lessons = {f"src/groundup/notebooks/{name}" for name in lessons if name.count(".") == 1}
    assert names == files_on_disk() | lessons
    assert len(texts) == len(lessons)
    assert not any('"output_type"' in text for text in texts)
    assert wheel.stat().st_size < 2_000_000
    assert sum(each.compress_size for each in page) < 150_000
