"""An environment that describes a part of a group of processes is refused in a line."""

from pathlib import Path

import pytest

from commands import flags, groundup, trained, write_text


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, and no RANK, LOCAL_RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "3"}, "RANK=3"),
    ],
)
def test_a_stray_variable_is_named(tmp_path: Path, environment: dict[str, str], named: str) -> None:
    write_text(tmp_path)
    finished = groundup("train", *flags({"--steps": 1}), folder=tmp_path, env=environment)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    assert f"the environment has {named}" in finished.stderr
    assert "torchrun --nproc-per-node N -m groundup" in finished.stderr
    assert not (tmp_path / "runs").exists()


def test_patience_without_evaluations_is_said(tmp_path: Path) -> None:
    write_text(tmp_path)
    finished = trained(*flags({"--steps": 1, "--eval.patience": 3}), folder=tmp_path)
    assert "eval.patience = 3 stops nothing, because eval.every = 0" in finished.stdout
