"""No number has changed: small runs equal a listed commit's on this kind of CPU, bit for bit."""

import json
from pathlib import Path
from typing import Any

import golden_runs
import pytest
from golden_runs import BY_TWO, COMPILED, EAGER, Variant, assert_equal

from commands import groundup

CHANGES = [["--optim.weight-decay", "0.1001"], ["--seed", "5"]]  # one that hardly changes anything


def golden_of(variant: Variant) -> dict[str, Any]:
    """What the listed commit measured on this kind; skips where nobody has made it."""
    file, kind = golden_runs.golden_file(), golden_runs.kind()
    recorded = json.loads(file.read_text("utf-8")) if file.exists() else {}
    remedy = f"python tests/golden/remake.py {variant.recipe}"
    if variant.name not in recorded:
        pytest.skip(f"no golden of {variant.name} for the kind {kind}. Make one: {remedy}")
    golden = recorded[variant.name]
    listed = golden_runs.commits("golden")[variant.recipe]
    made = golden["commit"]
    assert made == listed, f"{file.name} is of {made}, but commits.toml lists {listed}: {remedy}"
    return golden


def trained(variant: Variant, folder: Path) -> tuple[dict[str, Any], str]:
    """What this code measures, and what it said; forked from a process that knows torch."""
    golden_runs.prepare(folder)
    finished = groundup(*variant.words, folder=folder)
    assert finished.returncode == 0, finished.stderr
    return golden_runs.measured(folder / "runs" / variant.recipe), finished.stdout


@pytest.mark.parametrize("variant", EAGER, ids=lambda variant: variant.recipe)
def test_a_recipe_trains_to_the_same_bits(variant: Variant, tmp_path: Path) -> None:
    golden = golden_of(variant)
    found, _said = trained(variant, tmp_path)
    assert_equal(found, golden, variant.name)


def test_two_processes_train_to_the_same_bits(tmp_path: Path) -> None:
    golden = golden_of(BY_TWO)
    golden_runs.train(BY_TWO, golden_runs.prepare(tmp_path))
    assert_equal(golden_runs.measured(tmp_path / "runs" / BY_TWO.recipe), golden, BY_TWO.name)


@pytest.mark.long
def test_a_compiled_recipe_trains_to_the_same_bits(tmp_path: Path) -> None:
    """Or, where `commits.toml` says why its graph is another, to the same losses but for 1e-6."""
    golden = golden_of(COMPILED)
    made_with, here = golden["compiler"], golden_runs.compiler()
    if made_with != here:
        pytest.skip(f"the golden of {COMPILED.name} is of {made_with}, not of {here or 'none'}")
    found, said = trained(COMPILED, tmp_path)
    assert ", compiled" in said  # and no fallback
    if COMPILED.name not in golden_runs.commits("graphs"):
        assert_equal(found, golden, COMPILED.name)
    losses, expected = ([step["loss"] for step in of["steps"]] for of in (found, golden))
    assert losses == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_another_run_is_seen(change: list[str], tmp_path: Path) -> None:
    """What the others compare could differ: even a weight decay that hardly does."""
    golden = golden_of(EAGER[1])
    golden_runs.prepare(tmp_path)
    finished = groundup(*EAGER[1].words, *change, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    with pytest.raises(AssertionError, match="gpt2, eager: "):
        assert_equal(golden_runs.measured(tmp_path / "runs" / "gpt2"), golden, "gpt2, eager")


def test_a_digest_is_of_tensors_and_not_of_their_file(tmp_path: Path) -> None:
    """Metadata may change; a name, a shape or a bit may not."""
    base = golden_runs.INPUTS / "base" / "model.safetensors"
    whole = golden_runs.digest_of_file(base)
    copy = tmp_path / "copy.safetensors"
    content = base.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]

    def digest(changed: dict[str, Any], tensors: bytes) -> str:
        text = json.dumps(changed).encode()
        copy.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
        return golden_runs.digest_of_file(copy)

    other_order = {"__metadata__": {"format": "other"}} | dict(reversed(header.items()))
    assert digest(other_order, body) == whole
    assert digest(header, body[:-1] + bytes([body[-1] ^ 1])) != whole
    name = next(key for key in header if key != "__metadata__")
    renamed = {("other" if key == name else key): value for key, value in header.items()}
    assert digest(renamed, body) != whole
