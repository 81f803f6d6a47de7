"""lm-evaluation-harness itself scores our folders: the same log-likelihoods and choices, command
line against it.
"""

import json
import os
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import straightforward
from commands import groundup
from conftest import model_of, perturb
from groundup.checkpoints import model_folder
from groundup.hub.cache import cache_folder
from groundup.models.config import GPTConfig
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.gpt2 import gpt2_tokenizer
from groundup.tokenizers.train import learn_tokenizer
from invented_items import invented, small_model, tokenizer, write_items
from serving.servers import served

# a processor's 10 seconds each; more on a busy machine
pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

TEXT_EDITION = "hellaswag/text_edition.jsonl"  # the items with ctx, but without ctx_a and ctx_b
TASK = Path(__file__).parent / "harness_task"
MEASURES = ("acc", "acc_norm", "acc_bytes")


def run_harness(folder: Path, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Let the harness score `model` on `items.jsonl`, with these arguments of its model class."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }
    return subprocess.run(
        [sys.executable, str(TASK / "run.py"), json.dumps(more)],
        cwd=folder,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )


def harness(folder: Path, **more: Any) -> tuple[dict[int, dict[str, Any]], dict[str, float]]:
    """What the harness finds with `model` and `items.jsonl`: each item by its `ind`, and the
    accuracies.
    """
    finished = run_harness(folder, **more)
    assert finished.returncode == 0, finished.stderr[:9000]
    found = json.loads(finished.stdout.splitlines()[-1])
    accuracies = {measure: found["results"][f"{measure},none"] for measure in MEASURES}
    return {sample["doc"]["ind"]: sample for sample in found["samples"]}, accuracies


def assert_agreement(folder: Path, count: int, within: float, **more: Any) -> dict[str, Any]:
    """`groundup evaluate` and the harness, on `model` and `items.jsonl`, find the same; what
    groundup printed.
    """
    flags = ("--file", "items.jsonl", "--convention", "harness", "--device", "cpu", "--json")
    finished = groundup("evaluate", "model", *flags, "--per-item", "each.jsonl", folder=folder)
    assert finished.returncode == 0, finished.stderr
    ours = [json.loads(line) for line in (folder / "each.jsonl").read_text("utf-8").splitlines()]
    theirs, accuracies = harness(folder, **more)
    assert len(ours) == len(theirs) == count
    worst = 0.0
    for line in ours:
        peer = theirs[line["ind"]]
        found = np.array([float(total) for ((total, _greedy),) in peer["resps"]])
        worst = max(worst, np.abs(found - line["harness"]["log_probabilities"]).max())
        endings = peer["doc"]["choices"]
        lengths = [
            np.ones(4),
            [len(text) for text in endings],
            [len(text.encode()) for text in endings],
        ]
        chosen = {
            m: int((found / length).argmax()) for m, length in zip(MEASURES, lengths, strict=True)
        }
        assert line["harness"]["choices"] == chosen, (line["ind"], found, line["harness"], worst)
        right = {measure: float(choice == line["label"]) for measure, choice in chosen.items()}
        # the harness chose by these lengths too
        assert {measure: peer[measure] for measure in MEASURES} == right
    assert worst < within
    printed = json.loads(finished.stdout)
    assert {row["measure"]: row["accuracy"] for row in printed["results"]} == pytest.approx(
        accuracies
    )
    return printed


@pytest.mark.parametrize(
    ("architecture", "block_size", "within"),
    [("gpt2", 256, 1e-9), ("gpt2", 40, 1e-9), ("modern", 256, 1e-4)],
)
def test_invented_items_with_brackets_and_titles(
    architecture: str, block_size: int, within: float, tmp_path: Path
):
    """40 tokens are too few for many: those lose their beginning, as they do there."""
    model_folder.save(tmp_path / "model", small_model(architecture, block_size), tokenizer())
    items = [
        item
        for item in invented(200, seed=4)
        if len(set(map(straightforward.preprocess, item["endings"]))) == 4
    ]
    # of endings that are the same, rounding would choose
    write_items(tmp_path / "items.jsonl", items[:120])
    printed = assert_agreement(tmp_path, 120, within)
    assert (printed["cut"]["harness"] > 20) == (block_size == 40)


def test_a_server_gives_the_harness_what_evaluate_finds(tmp_path: Path):
    """By its class `local-completions`, which sends tokens and reads the prompt's scores."""
    torch.manual_seed(1337)
    model_folder.save(tmp_path / "model", small_model("gpt2", 256).float(), tokenizer())
    items = [
        item
        for item in invented(300, seed=5)
        if len(set(map(straightforward.preprocess, item["endings"]))) == 4
    ]
    write_items(tmp_path / "items.jsonl", items[:200])
    with served(tmp_path / "model", "--dtype", "float32", "--max-waiting", "500") as server:
        asked = {"base_url": f"{server.url}/completions", "model": "model", "tokenizer": "model"}
        options = {"num_concurrent": 4, "max_length": 256, "max_retries": 1}
        more = asked | options | {"model_class": "local-completions"}
        assert_agreement(tmp_path, 200, 1e-3, **more)
        assert "POST '/v1/completions' 200" in server.log


def test_characters_need_a_token_to_begin_with(tmp_path: Path):
    """As docs/interop.md says: without one the harness refuses them, with any it agrees."""
    items = invented(20, seed=4)
    write_items(tmp_path / "items.jsonl", items)
    characters = CharacterTokenizer(string.printable + json.dumps(items, ensure_ascii=False) + "Č")
    config = GPTConfig(
        block_size=512, vocab_size=characters.vocab_size, n_layer=1, n_head=2, n_embd=16
    )
    torch.manual_seed(1337)
    model = model_of("gpt2", config).double()
    perturb(model, seed=0, scale=0.1)
    model_folder.save(tmp_path / "model", model.eval(), characters)
    assert "'None' is not an instance of 'Sequence'" in run_harness(tmp_path).stderr
    assert_agreement(tmp_path, 20, 1e-9, prefix_token_id=0)


@pytest.mark.parametrize(("tokens", "count"), [("learned from the items", 500), ("GPT-2's", 25)])
def test_items_of_hellaswag(tokens: str, count: int, tmp_path: Path):
    """In float64: in float32, a sum of -900 has digits to 6e-5 only."""
    cached = cache_folder() / TEXT_EDITION
    if not cached.is_file():
        pytest.skip("HellaSwag's text edition is not in the cache")
    lines = cached.read_text("utf-8").splitlines()
    # from all of the file: both of its sources, every length
    lines = lines[:: len(lines) // count][:count]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    reader = gpt2_tokenizer() if tokens == "GPT-2's" else learn_tokenizer(lines, 2000)
    torch.manual_seed(1337)
    config = GPTConfig(
        block_size=1024, vocab_size=reader.vocab_size, n_layer=2, n_head=2, n_embd=32
    )
    model = model_of("gpt2", config).double()
    perturb(model, seed=0, scale=0.1)
    model_folder.save(tmp_path / "model", model.eval(), reader)
    assert_agreement(tmp_path, count, 1e-9)
