"""The benchmarks measure what they say: the peer trains the same model, and the last line can be
read.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from groundup.recipes.schema import Recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KEYS = ["claim", "ratio", "ours", "peer", "unit", "machine"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The throughput benchmark as a module; torch's determinism is what it was afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = torch.are_deterministic_algorithms_enabled()
    import train_throughput

    yield train_throughput
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def recipe(text_file: Path) -> Recipe:
    """A tiny model in float32, on the CPU; a low clipping norm, so that clipping counts."""
    plain = Recipe().with_steps(100)
    return replace(
        plain,
        model=replace(plain.model, block_size=16, n_layer=2, n_head=2, n_embd=16),
        data=replace(plain.data, corpus=str(text_file)),
        optim=replace(plain.optim, warmup_steps=2, clip_norm=0.5),
        train=replace(
            plain.train, batch_size=4, device="cpu", precision="float32", compile="off", threads=1
        ),
    )


def test_the_peer_trains_the_same_model_on_the_same_batches(
    benchmark: ModuleType, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders, trainer = benchmark.compare(recipe, steps=4, rounds=3)
    auto, plain, peer = contenders
    assert auto.loss == plain.loss  # both are float32 here
    assert peer.loss == pytest.approx(plain.loss, rel=1e-5)
    assert [contender.done for contender in contenders] == 3 * [benchmark.WARMUP_STEPS + 3 * 4]
    assert (auto.deterministic, peer.deterministic) == (True, False)
    assert all(len(contender.blocks) == 3 and min(contender.blocks) > 0 for contender in contenders)
    benchmark.report(contenders, trainer)
    printed = capsys.readouterr().out
    assert [line.partition(":")[0] for line in printed.splitlines()[:3]] == [
        "ours, auto",
        "ours, plain",
        "peer, GPT2LMHeadModel",
    ]


def test_a_ratio_compares_the_blocks_of_one_round(benchmark: ModuleType) -> None:
    fast, slow = (
        benchmark.Contender(name, float, "float32", deterministic=False)
        for name in ("fast", "slow")
    )
    # a machine that gets slower and slower
    slow.blocks, fast.blocks = [100.0, 10.0, 1.0], [200.0, 20.0, 3.0]
    assert benchmark.paired_ratio(fast, slow) == 2.0


def test_recipe_loss_trains_every_seed_and_ends_with_a_line_of_json(
    monkeypatch: pytest.MonkeyPatch, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import recipe_loss

    flags = ["--corpus", str(text_file), "--steps", "2", "--train.threads", "1"]
    flags += ["--eval.train-tokens", "0", "--eval.tokens", "64", "--eval.sample-length", "0"]
    recipe_loss.main(["bigram", "--seeds", "1", "2", *flags])
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.rpartition(" ")[2]) for line in lines[:2]]
    assert losses[0] != losses[1]
    result = json.loads(lines[-1])
    assert list(result) == KEYS
    assert result["ours"] == pytest.approx(sum(losses) / 2, abs=1e-4)
    assert result["peer"] == 2.49
    assert result["ratio"] == pytest.approx(result["peer"] / result["ours"])


def test_flags_become_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from common import recipe_with

    found = recipe_with(
        "shakespeare-fast",
        ["--optim.muon-momentum", "0.5", "--train.steps", "7", "--data.corpus", "a"],
    )
    assert (found.optim.muon_momentum, found.train.steps, found.data.corpus) == (0.5, 7, "a")
    assert found.model.architecture == "modern"
    with pytest.raises(KeyError):
        recipe_with("shakespeare-fast", ["--optim.momentum", "0.5"])


def test_a_sweep_is_a_table_with_a_row_for_each_variant(
    monkeypatch: pytest.MonkeyPatch, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sweep

    flags = ["--data.corpus", str(text_file), "--train.steps", "3", "--train.threads", "1"]
    variants = ["--vary", "slower: --optim.muon-learning-rate 0.001", "--vary", "the same:"]
    sweep.main(["shakespeare-fast", *flags, *variants, "--seeds", "1", "2"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == ["the recipe", "slower", "the same"]
    assert rows[0][1:] != rows[1][1:]
    assert rows[0][1:5] == rows[2][1:5]  # the same losses, spread and tokens
    assert json.loads(lines[-1])["ratio"] <= 1.0


def test_every_ablation_changes_the_training(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, text_file: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ablations
    import trained

    shape = replace(recipe.model, architecture="modern", n_embd=24)
    muon = replace(recipe.optim, optimizer="muon", schedule="wsd", clip_norm=0.0)
    train = replace(recipe.train, steps=12, precision="bfloat16")
    modern = replace(recipe, model=shape, optim=muon, train=train)
    text = trained.text_of(modern)
    losses = {
        variant.name: trained.train(variant.recipe, text, variant.change).loss
        for variant in ablations.variants_of(modern)
    }
    assert len(losses) == len(set(losses.values())) == 8
    assert all(loss < 4.0 for loss in losses.values())


def test_the_sampler_is_timed_over_shards_and_sparse_ones_are_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sampler_cost

    monkeypatch.setattr(sampler_cost, "TOKENS_OF_A_STREAM", 1000)
    quick = [
        "--streams",
        "3",
        "--steps",
        "3",
        "--tokens",
        "1000000000",
        "--shards",
        "10",
        "--train.threads",
        "1",
    ]
    sampler_cost.main(quick)
    step, opened, result = capsys.readouterr().out.splitlines()
    assert step.startswith("bigram: a step ")
    assert opened.startswith("1,000,000,000 tokens in 10 shards open")
    assert list(json.loads(result)) == KEYS


def test_an_exponent_is_a_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scaling

    assert scaling.slope((1, 10, 100), [3.0, 300.0, 30_000.0]) == pytest.approx(2.0)


def test_a_script_that_falls_short_of_the_readme_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    kinds = tomllib.loads((BENCHMARKS / "figures.toml").read_text("utf-8"))
    said = {"claim": "it is fast", "ours": 1.0, "peer": 1.0, "unit": "s"}
    monkeypatch.setattr(common, "figures", lambda: kinds["zen4"])
    common.conclude(**said, ratio=1.84, script="hellaswag_throughput")
    with pytest.raises(SystemExit) as ended:
        common.conclude(**said, ratio=1.6, script="hellaswag_throughput")
    assert ended.value.code == 1
    *_, says, line = capsys.readouterr().out.splitlines()
    assert says == "README.md says 1.85 of AMD EPYC, Zen 4; this is 1.6"
    assert list(json.loads(line)) == KEYS
    assert re.search(r"peaks float32 [\d,]+, bfloat16 [\d,]+ GFLOP/s", json.loads(line)["machine"])
    monkeypatch.setattr(common, "figures", lambda: None)
    common.conclude(**said, ratio=0.1, script="hellaswag_throughput")
    assert "no figure of this kind of CPU" in capsys.readouterr().out


def test_only_a_scripts_own_settings_are_held_against_the_readme(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from common import quoted

    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--file")
    for words, script in (([], "a"), (["--file", "b"], "a"), (["--layers", "1"], "")):
        assert quoted("a", parser, parser.parse_args(words), "file") == script


def test_the_readme_quotes_the_figures_of_each_kind() -> None:
    readme = (BENCHMARKS.parent / "README.md").read_text("utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    kinds = tomllib.loads((BENCHMARKS / "figures.toml").read_text("utf-8"))
    for place, kind in enumerate(kinds.values()):
        scripts = {name: value for name, value in kind.items() if isinstance(value, float)}
        for script, value in scripts.items():
            (row,) = [row for row in rows if row.startswith(f"| `{script}.py`")]
            assert f"{value:g}" in row.split("|")[2 + place], (script, kind["title"])
        assert f"{kind['title'].partition(', ')[2]} ({kind['peaks']})" in readme


@pytest.mark.peers
def test_writing_is_measured_against_transformers() -> None:
    command = [sys.executable, "decode.py", "--only", "small", "--rounds", "1"]
    finished = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert re.search(r"^  groundup, 1 thread: [\d,.]+ tokens/s", finished.stdout, re.MULTILINE)
    assert re.search(r"^  each at its best: [\d.]+ times$", finished.stdout, re.MULTILINE)
