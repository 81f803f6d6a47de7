"""Two processes train the run that one process trains: the same batches, the same losses, one
folder.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from commands import (
    FORKED,
    checkpoint,
    forked,
    metrics,
    started,
    steps_so_far,
    tensors,
    trained,
)
from groundup.checkpoints import lifecycle as checkpoints
from groundup.data.corpora import Corpus, load_corpus
from groundup.data.dataset import make_dataset
from groundup.data.loader import hash_rows
from groundup.errors import RecipeError
from groundup.parallel.world import World, described_world, join_world
from groundup.recipes.schema import Recipe
from groundup.runs.folder import RunFolder
from groundup.training.checks import check_division
from groundup.training.session import Session
from groundup.training.setup import build_trainer
from groundup.training.trainer import Trainer
from invented_items import write_items
from shard_files import documents, learned, write_shards

# A constant learning rate, so that a run may be lengthened and still be the same run.
SMALL = [
    *("--model.architecture", "gpt2", "--optim.optimizer", "adamw"),
    *("--model.block-size", "16", "--model.n-layer", "2", "--model.n-head", "2"),
    *("--model.n-embd", "16", "--optim.learning-rate", "1e-3", "--optim.schedule", "constant"),
    *("--optim.warmup-steps", "2", "--train.batch-size", "8", "--train.device", "cpu"),
    *("--train.compile", "off", "--train.threads", "1"),
    *("--eval.every", "10", "--eval.train-tokens", "96", "--eval.sample-length", "10"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@contextlib.contextmanager
def torchrun_started(*args: object, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`torchrun --nproc-per-node 2 -m groundup ARGS...` in `folder`, in a process group as a
    terminal gives it.
    """
    logs = ["--log-dir", str(folder / "torchrun")]  # else they stay in the temporary folder
    command = [*TORCHRUN, *logs, "-m", "groundup", *map(str, args)]
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # torchrun ends its workers, which a kill would leave behind
            process.wait(timeout=60)


@contextlib.contextmanager
def places_of_two() -> Iterator[list[dict[str, str]]]:
    """The environment that torchrun gives to each of two processes, while their store is open."""
    # The store listens before anybody connects, as torchrun's does: a port that is only free might
    # be taken meanwhile.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **{"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
        **{"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
    }
    yield [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
    del store


def two(*args: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """`groundup ARGS...` by two processes, forked as in commands.py, from beginning to end."""
    with contextlib.ExitStack() as stack:
        both_started = [
            stack.enter_context(started(*args, folder=folder, env=place))
            for place in stack.enter_context(places_of_two())
        ]
        ended = [running.wait() for running in both_started]
    status = max(one.returncode for one in ended)
    out, err = ("".join(getattr(one, name) for one in ended) for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(ended[0].args, status, out, err)


def trained_by_two(*args: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """`groundup train ARGS...` by two processes, which must succeed."""
    finished = two("train", *args, folder=folder)
    assert finished.returncode == 0, finished.stderr
    return finished


def assert_same_run(run: Path, other: Path, tolerance: float) -> None:
    """Every step once, on the same batches; losses and evaluation losses within `tolerance`,
    relatively.
    """
    steps, others = metrics(run), metrics(other)
    assert [line["step"] for line in steps] == list(range(1, len(others) + 1))
    assert [line["batch_hash"] for line in steps] == [line["batch_hash"] for line in others]
    assert [line["loss"] for line in steps] == pytest.approx(
        [line["loss"] for line in others], rel=tolerance, abs=0
    )
    evaluations, expected = metrics(run, "evaluation"), metrics(other, "evaluation")
    assert [line["step"] for line in evaluations] == [line["step"] for line in expected]
    for name in ("train_loss", "validation_loss"):
        found = [line[name] for line in evaluations]
        assert found == pytest.approx([line[name] for line in expected], rel=tolerance, abs=0)


@pytest.mark.long  # tests/golden has it too, for each kind of CPU that has goldens
def test_torchrun_trains_what_one_process_trains(text_file: Path, tmp_path: Path) -> None:
    """With torch's own launcher once, as a user starts it."""
    args = ["--corpus", text_file, *SMALL, "--steps", 20, "--train.precision", "float64"]
    trained(*args, "--name", "one", folder=tmp_path)
    with torchrun_started("train", *args, "--name", "two", folder=tmp_path) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    runs = tmp_path / "runs"
    assert_same_run(runs / "two", runs / "one", 1e-13)
    assert sorted(path.name for path in runs.iterdir()) == ["one", "two"]
    assert out.count("reading") == 1  # one process speaks
    assert (runs / "two" / "samples.txt").read_text("utf-8").count("= step ") == 2  # and writes
    assert "groundup" not in err, err  # nothing to complain of, no warning


@pytest.mark.parametrize(
    ("precision", "micro_batch_size", "tolerance"),
    # losses are near 3: 1e-13 is below 1e-12
    [("float64", 0, 1e-13), ("float32", 0, 1e-5), ("float64", 2, 1e-13)],
    ids=["float64", "float32", "accumulation"],
)
def test_two_processes_train_what_one_trains(
    text_file: Path, tmp_path: Path, precision: str, micro_batch_size: int, tolerance: float
) -> None:
    args = ["--corpus", text_file, *SMALL, "--steps", 50, "--train.precision", precision]
    trained(*args, "--name", "one", folder=tmp_path)
    accumulation = ["--train.micro-batch-size", micro_batch_size]
    finished = trained_by_two(*args, *accumulation, "--name", "two", folder=tmp_path)
    runs = tmp_path / "runs"
    assert_same_run(runs / "two", runs / "one", tolerance)
    assert sorted(path.name for path in runs.iterdir()) == ["one", "two"]
    assert finished.stdout.count("reading") == 1  # one process speaks
    assert (runs / "two" / "samples.txt").read_text("utf-8").count("= step ") == 5  # and writes
    assert "groundup" not in finished.stderr, finished.stderr  # nothing to complain of, no warning


def test_two_processes_share_a_mixture_of_shards(text_file: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", learned(), documents())
    args = [
        "--corpus",
        "shards:2,text.txt:1",
        *SMALL,
        "--steps",
        20,
        "--train.precision",
        "float64",
    ]
    trained(*args, "--name", "one", folder=tmp_path)
    trained_by_two(*args, "--name", "two", folder=tmp_path)
    assert_same_run(tmp_path / "runs" / "two", tmp_path / "runs" / "one", 1e-13)


def test_a_corpus_that_nobody_can_read_is_refused_by_each_in_our_words(tmp_path: Path) -> None:
    """None hangs in a barrier, and none dies of another's end."""
    finished = two("train", "--corpus", "missing.txt", *SMALL, "--steps", 5, folder=tmp_path)
    assert finished.returncode != 0
    ours = re.findall(r"^groundup(?: \[process 1\])?: (.*)$", finished.stderr, re.MULTILINE)
    assert len(set(ours)) == 1
    assert ours[0].startswith("corpus missing.txt is neither a file or folder nor a known name")
    assert "gloo" not in finished.stderr.lower()


def test_a_run_goes_on_with_another_number_of_processes(text_file: Path, tmp_path: Path) -> None:
    args = ["--corpus", text_file, *SMALL, "--train.precision", "float64"]
    trained(*args, "--steps", 50, "--name", "unbroken", folder=tmp_path)
    trained(*args, "--steps", 20, "--name", "shared", folder=tmp_path)
    trained_by_two("--resume", "shared", "--steps", 30, folder=tmp_path)
    trained("--resume", "shared", "--steps", 50, folder=tmp_path)
    runs = tmp_path / "runs"
    facts = json.loads((runs / "shared" / "run.json").read_text("utf-8"))
    assert [
        (change["step"], change["was"], change["is"])
        for change in facts["changes"]
        if change["what"] == "processes"
    ] == [(20, 1, 2), (30, 2, 1)]
    assert_same_run(runs / "shared", runs / "unbroken", 1e-13)
    weights, expected = (
        tensors(checkpoint(runs / name, 50) / "model.safetensors")
        for name in ("shared", "unbroken")
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-11)


def test_adapters_learn_in_two_processes_what_they_learn_in_one(
    text_file: Path, tmp_path: Path
) -> None:
    args = ["--corpus", text_file, *SMALL, "--train.precision", "float64"]
    trained(*args, "--steps", 5, "--name", "base", folder=tmp_path)
    lora = [*args, "--init", "base", "--lora.rank", 4]
    trained(*lora, "--steps", 30, "--name", "one", folder=tmp_path)
    trained_by_two(*lora, "--steps", 20, "--name", "two", folder=tmp_path)
    trained("--resume", "two", "--steps", 30, folder=tmp_path)
    runs = tmp_path / "runs"
    assert_same_run(runs / "two", runs / "one", 1e-13)
    weights, expected = (
        tensors(checkpoint(runs / name, 30) / "adapter_model.safetensors")
        for name in ("two", "one")
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-11)


def test_a_batch_that_the_processes_cannot_share_is_refused_by_name(
    text_file: Path, tmp_path: Path
) -> None:
    shares = ["--train.batch-size", 12, "--train.micro-batch-size", 4]
    finished = two("train", "--corpus", text_file, "--steps", 5, *shares, folder=tmp_path)
    assert finished.returncode != 0
    refusal = (
        "train.batch_size = 12 can't be divided by 2 processes x micro_batch_size = 4. Choose "
        "train.micro_batch_size from 1, 2, 3, 6"
    )
    assert f"groundup: {refusal}" in finished.stderr.splitlines()
    assert not (tmp_path / "runs").exists()


def test_two_processes_share_the_items_of_hellaswag(text_file: Path, tmp_path: Path) -> None:
    """An odd number of them: each is asked once, and both processes come to the same sum."""
    words = ["the quick", "a lazy", "fox jumps", "over a", "dog;", "brown", "quick fox"]
    endings = [" brown", " dog;", " jumps", " over the"]
    items = [{"ind": 0, "ctx": word, "endings": endings, "label": len(word) % 4} for word in words]
    args = [
        "--corpus",
        text_file,
        *SMALL,
        "--steps",
        10,
        "--train.precision",
        "float64",
        "--eval.hellaswag-every",
        5,
    ]
    args += ["--eval.hellaswag-items", 0, "--eval.hellaswag-file", "items.jsonl"]
    write_items(tmp_path / "items.jsonl", items)
    trained(*args, "--name", "one", folder=tmp_path)
    trained_by_two(*args, "--name", "two", folder=tmp_path)
    found, expected = (metrics(tmp_path / "runs" / name, "hellaswag") for name in ("two", "one"))
    assert [line["step"] for line in found] == [0, 5, 10]
    assert [(line["right"], line["items"]) for line in found] == [
        (line["right"], 7) for line in expected
    ]
    assert_same_run(tmp_path / "runs" / "two", tmp_path / "runs" / "one", 1e-13)


@given(batch=st.integers(1, 64), micro=st.integers(0, 16), size=st.integers(1, 8))
def test_a_batch_is_refused_exactly_where_it_cannot_be_dealt_out(
    batch: int, micro: int, size: int
) -> None:
    recipe = replace(
        Recipe(), train=replace(Recipe().train, batch_size=batch, micro_batch_size=micro)
    )
    rounds = batch // (micro * size) if micro else 1
    rows_each = rounds * (micro or batch // size)  # in whole passes
    if rows_each * size == batch:
        check_division(recipe, World(size=size))
    else:
        with pytest.raises(
            RecipeError, match=f"train.batch_size = {batch} can't be divided by {size} processes"
        ):
            check_division(recipe, World(size=size))


def test_sigterm_and_ctrl_c_under_torchrun_save_and_leave_a_run_that_goes_on(
    text_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "stopped"
    args = ["--corpus", text_file, *SMALL, "--steps", 100_000, "--name", run.name]
    with torchrun_started("train", *args, folder=tmp_path) as process:
        wait_for_step(process, run, 5)
        process.send_signal(signal.SIGTERM)  # as a cluster does: to torchrun alone
        first_out, first_err = process.communicate(timeout=60)
    first = assert_stopped_after(run, process.returncode, first_out, first_err)
    with torchrun_started("train", "--resume", run.name, folder=tmp_path) as process:
        wait_for_step(process, run, first + 5)
        # as a terminal does: to every process in the foreground
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert f"resuming {run.name} at step {first:,}" in out
    assert assert_stopped_after(run, process.returncode, out, err) >= first + 5
    assert_each_batch_once(run, text_file)


def wait_for_step(
    process: subprocess.Popen[str], run: Path, step: int, timeout: float = 90
) -> None:
    """Until the run has logged `step` steps; fails where it ends before."""
    deadline = time.monotonic() + timeout
    while steps_so_far(run) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{run} logged {steps_so_far(run)} steps in {timeout} s"
        time.sleep(0.01)


def assert_stopped_after(run: Path, status: int, out: str, err: str) -> int:
    """The step after which a stopped run saved: its last, in an intact checkpoint that it names."""
    assert status != 0
    assert "finishing this step, then saving" in err
    step = metrics(run)[-1]["step"]
    checkpoints.verify(checkpoint(run, step))
    assert (run / "checkpoints" / "latest").resolve().name == checkpoint(run, step).name
    assert f"saved {checkpoint(run, step).relative_to(run.parents[1])}" in out
    torchrun = "torchrun --nproc-per-node 2 -m groundup"
    assert f"go on with: {torchrun} train --resume {run.name}" in out
    return step


def assert_each_batch_once(run: Path, text_file: Path) -> None:
    """The run's hashes are those of the sampler's whole batches, computed here, each step once."""
    recipe = RunFolder(run).read_recipe()
    text = make_dataset([load_corpus(str(text_file))], recipe, None)
    sampler = text.sampler(recipe)
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["batch_hash"] for line in lines] == [
        hash_rows(sampler.batch(step), 0) for step in range(len(lines))
    ]


def test_gradients_travel_once_a_step_and_leave_equal_weights() -> None:
    first, second = both(_train_and_watch, False)  # rows that differ
    assert first.passes == second.passes == 3 * 4  # three steps of four passes each
    # the model is smaller than one of DDP's buckets
    assert first.reductions == second.reductions == 3
    assert all(mine != other for mine, other in zip(first.inputs, second.inputs, strict=True))
    assert first.weights == second.weights
    assert first.weights != first.weights_before


def test_processes_drop_out_different_activations() -> None:
    first, second = both(_train_and_watch, True)  # rows that are all alike
    assert first.inputs == second.inputs
    # equal inputs and weights within a step
    assert len({*first.losses, *second.losses}) == 2 * first.passes
    assert first.weights == second.weights


def both(work: Any, argument: Any) -> list[Any]:
    """What `work(argument)` returns in each of two processes of a world, in the order of their
    ranks.
    """
    pipes = [FORKED.Pipe(duplex=False) for _ in range(2)]
    with places_of_two() as places:
        processes = [
            forked(_join, place, sender, work, argument)
            for place, (_, sender) in zip(places, pipes, strict=True)
        ]
        for process in processes:
            process.start()
        try:
            for receiver, sender in pipes:
                sender.close()  # so that a process that dies ends the wait
                assert receiver.poll(60), "no answer in 60 s"
            answers = [receiver.recv() for receiver, _ in pipes]
            for process in processes:
                process.join(30)
            assert [process.exitcode for process in processes] == [0, 0]
            return answers
        finally:
            for process in processes:
                process.kill()


def _join(place: dict[str, str], answer: Any, work: Any, argument: Any) -> None:
    """One of two processes, in the environment that torchrun gives; it ends as `train` does."""
    os.environ.update(place)
    answer.send(work(argument))
    os._exit(0)


# A trainer that is destroyed can wait, holding Python's lock, for a thread that wants the lock to
# let go of the hook below. In `train` the process ends first.
_kept: list[Trainer] = []


def _train_and_watch(rows_alike: bool) -> SimpleNamespace:
    """Three steps of four passes with dropout: what this process fed, lost, sent and has in the
    end.
    """
    torch.set_num_threads(1)
    world = described_world()
    with join_world(world, "gloo"):
        trainer = _trainer(Session(world), rows_alike)
        _kept.append(trainer)
        seen = SimpleNamespace(inputs=[], losses=[], reductions=0, weights_before=_flat(trainer))

        def reduce(
            group: Any, bucket: torch.distributed.GradBucket
        ) -> torch.futures.Future[torch.Tensor]:
            seen.reductions += 1
            return allreduce_hook(group, bucket)

        def watch(module: object, inputs: Any, loss: torch.Tensor) -> None:
            seen.inputs.append(inputs[0].tolist())
            seen.losses.append(loss.item())

        trainer.objective.register_comm_hook(None, reduce)  # type: ignore[operator]
        trainer.objective.register_forward_hook(watch)
        for step in range(3):
            trainer.train_step(step)
        seen.passes, seen.weights = len(seen.losses), _flat(trainer)
    return seen


def _trainer(session: Session, rows_alike: bool) -> Trainer:
    """A trainer of batches of 16 in passes of 2 by 2 processes; with `rows_alike`, every window is
    the same.
    """
    recipe = Recipe().with_steps(3)
    recipe = replace(
        recipe,
        model=replace(recipe.model, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.3),
        train=replace(
            recipe.train,
            batch_size=16,
            micro_batch_size=2,
            device="cpu",
            precision="float32",
            threads=1,
        ),
    )
    varied = "".join(chr(ord("a") + position * position % 23) for position in range(2000))
    # 8 characters over and over: each window of 8 is every other
    text = "abcdefgh" * 250 if rows_alike else varied
    dataset = make_dataset([Corpus("text", text)], recipe, None)
    return build_trainer(recipe, dataset, session)


def _flat(trainer: Trainer) -> list[float]:
    """All weights in a row: a list, because a tensor doesn't outlive the process that sends it."""
    return torch.cat(
        [parameter.detach().flatten() for parameter in trainer.model.parameters()]
    ).tolist()
