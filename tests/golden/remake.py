"""Make goldens from the commits in `commits.toml`: `python tests/golden/remake.py [RECIPE ...]`.

Each recipe is trained by the commit that the list names, in a work tree of its own, for this kind
of CPU and this torch. With `--runs` the runs in `runs/` are written instead, stopped half-way.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import golden_runs
from golden_runs import (
    COMPILED,
    GENERATE,
    HERE,
    NAMES,
    RUNS,
    STEPS,
    STOPPED,
    VARIANTS,
    WRITTEN,
    Variant,
)


@contextmanager
def work_tree(commit: str) -> Iterator[tuple[Path, Path]]:
    """A commit's `src`, and an empty folder beside it; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="golden-") as temporary:
        tree, folder = Path(temporary) / "tree", Path(temporary) / "folder"
        folder.mkdir()
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            show = ["-c", "import groundup; print(groundup.__file__)"]
            found = Path(golden_runs.python(show, folder, tree / "src").strip())
            assert found.is_relative_to(tree), f"{found} isn't of {commit}"
            yield tree / "src", folder
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=HERE, check=True)


def remake_golden(recipe: str) -> None:
    """Train every variant of a recipe, and put its numbers into the golden of this kind."""
    file, commit = golden_runs.golden_file(), golden_runs.commits("golden")[recipe]
    golden: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    with work_tree(commit) as (source, folder):
        for variant in [variant for variant in VARIANTS if variant.recipe == recipe]:
            run = golden_runs.prepare(folder / variant.how) / "runs" / recipe
            said = golden_runs.train(variant, run.parents[1], source)
            golden[variant.name] = {"commit": commit, **golden_runs.measured(run)}
            if variant == COMPILED:
                assert ", compiled" in said, said
                golden[variant.name]["compiler"] = golden_runs.compiler()
    _write(file, golden)


def rewrite_run(recipe: str) -> None:
    """Write the run of a recipe as a kill after its first checkpoint would have left it.

    What the rest of it was, and what the model says, stands in WRITTEN.
    """
    commit = golden_runs.commits("runs")[recipe]
    with work_tree(commit) as (source, folder):
        golden_runs.prepare(folder)
        golden_runs.train(Variant(recipe), folder, source)
        run = folder / "runs" / recipe
        facts = {"commit": commit, "kind": golden_runs.kind(), "ended": golden_runs.measured(run)}
        _cut(run)
        load = f"import golden_runs; print(golden_runs.digest_of_loaded({recipe!r}))"
        generate = ["-m", "groundup", "generate", recipe, *GENERATE]
        facts["loaded"] = golden_runs.python(["-c", load], folder, source).strip()
        facts["text"] = golden_runs.python(generate, folder, source)
        shutil.rmtree(RUNS / recipe, ignore_errors=True)
        shutil.copytree(run, RUNS / recipe, symlinks=True)
    written = json.loads(WRITTEN.read_text("utf-8")) if WRITTEN.exists() else {}
    _write(WRITTEN, written | {recipe: facts})


def _cut(run: Path) -> None:
    """Take away what came after the first checkpoint, and the picture."""
    (run / "loss.png").unlink()
    shutil.rmtree(run / "checkpoints" / f"step-{STEPS:06d}")
    (run / "checkpoints" / "steps.json").unlink()  # the links below are enough
    for link in ("best", "latest"):
        (run / "checkpoints" / link).unlink()
        (run / "checkpoints" / link).symlink_to(f"step-{STOPPED:06d}")
    metrics, samples = run / "metrics.jsonl", run / "samples.txt"
    lines = metrics.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= STOPPED]
    metrics.write_text("".join(kept), "utf-8")
    kept_text = samples.read_text("utf-8").partition(f"======== step {STEPS} ")[0]
    samples.write_text(kept_text, "utf-8")


def _write(file: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8")
    print(f"wrote {file.relative_to(HERE)}")  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(NAMES))
    parser.add_argument("--runs", action="store_true", help="write the runs in runs/ instead")
    asked = parser.parse_args()
    RUNS.mkdir(exist_ok=True)
    for name in asked.recipes or NAMES:
        rewrite_run(name) if asked.runs else remake_golden(name)
