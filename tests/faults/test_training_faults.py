"""Training that can't go well says why in one line, and leaves the last checkpoint alone
(faults.md, 5 and 8 to 10).
"""

import re
from pathlib import Path

import pytest
import torch

from commands import checkpoint, flags, groundup, metrics, tensors, trained, write_text
from conftest import error_line
from groundup.checkpoints.lifecycle import steps, verify

EXPLODING = {
    "--optim.weight-decay": 0.1,
    **{"--optim.learning-rate": 1e20, "--optim.min-learning-rate": 0, "--optim.clip-norm": 0},
    **{"--optim.schedule": "constant", "--steps": 50, "--name": "run"},
}


def assert_all_finite(run: Path) -> None:
    """Neither weights nor optimizer states of any checkpoint hold a NaN or an infinity."""
    for folder in steps(run / "checkpoints"):
        for name in ("model.safetensors", "training/optimizer.safetensors"):
            for key, tensor in tensors(folder / name).items():
                assert torch.isfinite(tensor).all(), f"{folder / name}: {key}"


@pytest.mark.parametrize("architecture", ["gpt2", "bigram"])
@pytest.mark.parametrize("every", [0, 1])
def test_a_loss_that_explodes_stops_the_run(tmp_path: Path, architecture: str, every: int) -> None:
    """faults.md, 5: noticed in the step, or in the evaluation after it; either way before anything
    is saved.
    """
    write_text(tmp_path)
    changes = EXPLODING | {"--model.architecture": architecture, "--eval.every": every}
    if architecture == "bigram" and not every:
        # its logits aren't normalised
        changes |= {"--optim.learning-rate": 1e30, "--optim.weight-decay": 1e6}
    finished = groundup("train", *flags(changes), folder=tmp_path)
    line = error_line(finished, status=1)
    named = re.search(r"(?:loss|norm) (?:became|is) (nan|-?inf) (?:at|after) step (\d+)", line)
    assert named, line
    assert "the learning rate is too high" in line
    run = tmp_path / "runs" / "run"
    done = [record["step"] for record in metrics(run)]
    # a refused update isn't a step
    assert done == list(range(1, int(named[2]) + (" after step " in line)))
    assert_all_finite(run)


def test_a_run_that_exploded_can_be_resumed(tmp_path: Path) -> None:
    """faults.md, 5: from its last good checkpoint, where it meets the same step again."""
    write_text(tmp_path)
    # Each update multiplies a weight by 1 - 1e3 * 1e3: finite for a few steps, and then past what
    # float32 holds.
    growing = {
        "--model.architecture": "bigram",
        "--optim.learning-rate": 1e3,
        "--optim.weight-decay": 1e3,
    }
    growing |= {"--optim.warmup-steps": 0, "--eval.every": 1}
    finished = groundup("train", *flags(EXPLODING | growing), folder=tmp_path)
    line = error_line(finished, status=1)
    run = tmp_path / "runs" / "run"
    newest = steps(run / "checkpoints")[0]
    verify(newest)
    assert_all_finite(run)
    again = groundup("train", "--resume", "run", folder=tmp_path)
    assert error_line(again, status=1) == line
    assert f"from runs/run/checkpoints/{newest.name}" in again.stdout


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"--train.batch-size": 200_000},
            ["200000 sequences", "block_size = 16", "n_layer = 2, n_embd = 16"],
        ),
        (
            {"--train.batch-size": 200_000, "--train.micro-batch-size": 100_000},
            ["100000 sequences", "block_size = 16"],
        ),
        ({"--model.n-embd": 8192}, ["4 sequences", "n_layer = 2, n_embd = 8192"]),
    ],
)
def test_out_of_memory_names_what_to_lower(
    tmp_path: Path, changes: dict[str, object], named: list[str]
) -> None:
    """faults.md, 8: 300 MB of address space more than the imports have taken."""
    write_text(tmp_path)
    finished = groundup(
        "train", *flags({"--steps": 5} | changes), folder=tmp_path, memory=300 << 20
    )
    line = error_line(finished)
    for part in [
        "out of memory",
        *named,
        "Lower train.micro_batch_size",
        "model.block_size",
        "model.n_layer",
    ]:
        assert part in line


@pytest.mark.parametrize(
    ("toml", "place", "named"),
    [
        (
            "[model]\nn_layr = 2\n",
            "my.toml:2",
            ["unknown key model.n_layr", "Did you mean model.n_layer?"],
        ),
        (
            "[optim]\n\nbatch_size = 2\n",
            "my.toml:3",
            ["unknown key optim.batch_size", "train.batch_size?"],
        ),
        ("[modle]\nn_layer = 2\n", "my.toml", ["unknown section modle", "Did you mean model?"]),
        ('[model]\nn_layer = "two"\n', "my.toml:2", ["model.n_layer = 'two'", "a whole number"]),
        ("[model]\nn_layer = 2.5\n", "my.toml:2", ["model.n_layer = 2.5", "a whole number"]),
        ("[model]\nn_layer = true\n", "my.toml:2", ["model.n_layer = True", "a whole number"]),
        ("[data]\ncorpus = 3\n", "my.toml:2", ["data.corpus = 3", "text in quotes"]),
        ("[optim]\nbetas = [0.9]\n", "my.toml:2", ["optim.betas = [0.9]", "two numbers"]),
        (
            '[optim]\nschedule = "cosin"\n',
            "my.toml:2",
            ["optim.schedule = 'cosin'", "cosine, linear, wsd, constant"],
        ),
        (
            "[model]\nn_embd = 30\nn_head = 4\n",
            "my.toml:3",
            ["n_embd = 30", "n_head = 4", "1, 2, 3, 5, 6, 10, 15"],
        ),
        ("[model]\nn_layer = = 2\n", "my.toml", ["is not valid TOML", "line 2"]),
    ],
)
def test_a_bad_recipe_names_key_place_and_remedy(
    tmp_path: Path, toml: str, place: str, named: list[str]
) -> None:
    """faults.md, 9 and 10."""
    (tmp_path / "my.toml").write_text(toml, "utf-8")
    line = error_line(groundup("train", "--config", "my.toml", "--steps", 5, folder=tmp_path))
    for part in [place, *named]:
        assert part in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.n-layr", "2"], ["--model.n-layr"]),
        (["--model.n-layer", "two"], ["--model.n-layer", "two"]),
        (
            ["--model.n-embd", "30", "--model.n-head", "4"],
            ["n_embd = 30", "n_head = 4", "--model.n-head"],
        ),
        (
            ["--train.batch-size", "12", "--train.micro-batch-size", "5"],
            ["12", "5", "--train.micro-batch-size"],
        ),
        (["--optim.learning-rate", "nan"], ["learning_rate = nan", "--optim.learning-rate"]),
    ],
)
def test_bad_flags_are_named(tmp_path: Path, arguments: list[str], named: list[str]) -> None:
    """faults.md, 9 and 10: the same on the command line."""
    line = error_line(groundup("train", *arguments, folder=tmp_path))
    for part in named:
        assert part in line
    assert not (tmp_path / "runs").exists()


def test_a_bad_recipe_leaves_an_existing_run_alone(tmp_path: Path) -> None:
    """faults.md: every existing file is untouched."""
    write_text(tmp_path)
    arguments = flags({"--steps": 2, "--name": "run"})
    trained(*arguments, folder=tmp_path)
    run = tmp_path / "runs" / "run"
    before = (
        (checkpoint(run, 2) / "model.safetensors").read_bytes(),
        (run / "metrics.jsonl").read_bytes(),
    )
    line = error_line(groundup("train", *arguments, folder=tmp_path))
    assert "runs/run already exists. Choose another --name" in line
    assert before == (
        (checkpoint(run, 2) / "model.safetensors").read_bytes(),
        (run / "metrics.jsonl").read_bytes(),
    )
