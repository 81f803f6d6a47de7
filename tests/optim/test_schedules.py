"""The learning rate is a pure function of the step: its ends, its bounds and its shape, for any
recipe.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from groundup.optim.schedules import Schedule
from groundup.recipes.schema import OptimSection, field_types

SHAPES = get_args(field_types("optim")["schedule"][0])


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """What recipe_files.py lets through: a floor from 0 to the peak, any warm-up, at least one
    step.
    """
    peak = draw(st.floats(1e-8, 10.0))
    section = OptimSection(
        learning_rate=peak,
        min_learning_rate=peak * draw(st.floats(0.0, 1.0)),
        warmup_steps=draw(st.integers(0, 150)),
        schedule=draw(st.sampled_from(SHAPES)),
        decay_share=draw(st.floats(1e-6, 1.0)),
    )
    assume(section.min_learning_rate <= peak)
    return Schedule.of(section, steps=draw(st.integers(1, 300)))


def rates(schedule: Schedule) -> list[float]:
    """The learning rate of every update of the run."""
    return [schedule.at(step) for step in range(schedule.steps)]


@given(schedule=schedules(), beyond=st.integers(0, 1000))
@example(
    schedule=Schedule(
        "cosine", peak=3.75825409382946, floor=1.0570089638895357, warmup_steps=0, steps=1
    ),
    beyond=0,
)
def test_it_is_never_negative_and_never_above_the_peak(schedule: Schedule, beyond: int) -> None:
    for rate in [*rates(schedule), schedule.at(schedule.steps + beyond)]:
        assert 0.0 <= rate <= schedule.peak
    for rate in rates(schedule)[schedule.warmup_steps :]:
        assert rate >= schedule.floor


@given(schedule=schedules(), beyond=st.integers(0, 1000))
@example(
    schedule=Schedule("cosine", peak=0.99999, floor=0.09608029578093064, warmup_steps=0, steps=1),
    beyond=0,
)
def test_it_is_exact_at_its_ends(schedule: Schedule, beyond: int) -> None:
    assert schedule.at(schedule.warmup_steps) == schedule.peak
    if schedule.shape == "constant" or schedule.warmup_steps == schedule.steps:
        return
    assert schedule.at(schedule.steps) == schedule.floor
    assert schedule.at(schedule.steps + beyond) == schedule.floor


@given(schedule=schedules())
def test_it_rises_and_then_falls(schedule: Schedule) -> None:
    run = rates(schedule)
    warm, decay = run[: schedule.warmup_steps + 1], run[schedule.warmup_steps :]
    assert warm == sorted(warm)
    assert len(set(warm)) == len(warm)
    assert decay == sorted(decay, reverse=True)
    assert warm[0] > 0.0  # the first update is a real one


@given(schedule=schedules())
def test_it_never_jumps(schedule: Schedule) -> None:
    """No step changes it by more than its steepest slope: the warm-up's, or the cosine's middle."""
    decay_steps = max(1, schedule.steps - schedule.decay_begins)
    steepest = {"cosine": math.pi / 2, "linear": 1.0, "wsd": 1.0, "constant": 0.0}[schedule.shape]
    down = (schedule.peak - schedule.floor) * steepest / decay_steps
    up = schedule.peak / (schedule.warmup_steps + 1)
    run = rates(schedule)
    for before, after in pairwise(run):
        assert -down - 1e-12 * schedule.peak <= after - before <= up + 1e-12 * schedule.peak


@pytest.mark.parametrize("shape", SHAPES)
def test_by_hand(shape: str) -> None:
    """Warm-up over 4 steps to 1.0, then 8 steps down to 0.2."""
    schedule = Schedule(shape, peak=1.0, floor=0.2, warmup_steps=4, steps=12, decay_share=1.0)
    assert [schedule.at(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    halfway, quarter = {
        "cosine": (0.6, 0.6 + 0.4 / math.sqrt(2)),
        "linear": (0.6, 0.8),
        "wsd": (0.6, 0.8),  # with its whole length as the share, it is linear
        "constant": (1.0, 1.0),
    }[shape]
    assert schedule.at(8) == pytest.approx(halfway)
    assert schedule.at(6) == pytest.approx(quarter)


def test_wsd_holds_the_peak_until_its_last_share() -> None:
    """20 steps: 2 of warm-up, then the peak, then a straight line through the last 8 to zero."""
    schedule = Schedule("wsd", peak=1.0, floor=0.0, warmup_steps=2, steps=20, decay_share=0.4)
    assert rates(schedule)[2:13] == [1.0] * 11
    assert rates(schedule)[13:] == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert schedule.at(20) == 0.0


def test_a_share_larger_than_what_the_warm_up_left_begins_after_it() -> None:
    assert Schedule("wsd", 1.0, 0.0, warmup_steps=15, steps=20, decay_share=0.4).decay_begins == 15
    assert Schedule("wsd", 1.0, 0.0, warmup_steps=0, steps=20, decay_share=1e-6).at(20) == 0.0


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_torchs_own_schedulers_agree(shape: str) -> None:
    """LinearLR or CosineAnnealingLR over the decay, step by step."""
    schedule = Schedule(shape, peak=3e-3, floor=3e-4, warmup_steps=0, steps=50)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=schedule.peak)
    peer = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=schedule.floor)
        if shape == "cosine"
        else torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.1, total_iters=50
        )
    )
    for step in range(51):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule.at(step), rel=1e-9)
        optimizer.step()
        peer.step()


def test_a_run_shorter_than_its_warm_up_warms_up_to_its_end() -> None:
    schedule = Schedule.of(OptimSection(warmup_steps=100), steps=10)
    assert schedule.warmup_steps == 10
    assert rates(schedule) == sorted(rates(schedule))
    assert schedule.at(9) < schedule.at(10) == schedule.peak


def test_of_takes_every_field_of_the_recipe() -> None:
    section = OptimSection(
        learning_rate=0.5, min_learning_rate=0.05, warmup_steps=7, schedule="linear"
    )
    section = replace(section, decay_share=0.25)
    assert Schedule.of(section, 40) == Schedule(
        "linear", 0.5, 0.05, warmup_steps=7, steps=40, decay_share=0.25
    )
    assert Schedule.of(replace(section, schedule="constant"), 40).shape == "constant"


def test_what_python_leaves_out_is_as_a_recipe_leaves_it_out() -> None:
    section = OptimSection(schedule="wsd")
    rates_of_it = section.learning_rate, section.min_learning_rate
    assert Schedule("wsd", *rates_of_it, section.warmup_steps, 400) == Schedule.of(section, 400)


def test_apply_sets_every_group() -> None:
    parameters: Iterator[torch.nn.Parameter] = (
        torch.nn.Parameter(torch.zeros(1)) for _ in range(3)
    )
    peaks = (1.0, 1.0, 3.0)
    groups = [
        {"params": [parameter], "initial_lr": peak}
        for parameter, peak in zip(parameters, peaks, strict=True)
    ]
    optimizers = [torch.optim.AdamW(groups[:1], lr=7.0), torch.optim.SGD(groups[1:], lr=7.0)]
    schedule = Schedule("cosine", peak=1.0, floor=0.1, warmup_steps=2, steps=10)
    assert schedule.apply(optimizers, 5) == schedule.at(5)
    rate = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    # each in proportion to its own peak
    assert rate == [schedule.at(5), schedule.at(5), 3.0 * schedule.at(5)]
