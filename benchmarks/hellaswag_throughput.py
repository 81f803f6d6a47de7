"""Claim: HellaSwag's items are scored at least twice as fast as by lm-evaluation-harness, at 124M parameters on a CPU.

    python benchmarks/hellaswag_throughput.py [--items 40] [--file ITEMS.jsonl]

The same random GPT-2 in float32, the same items in the harness's convention, in one run. The peer is the harness's own
Hugging Face model class where `lm_eval` is installed, else its way written out: each ending with its whole context,
sorted by length, padded, the logits of all positions normalised. It gets its best of batches of 1, 8 and 16. Both must
find the same log-probabilities. The items: the official file, if it is in the cache or --file isn't given.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from common import result_line
from groundup import model_folder
from groundup.config import GPTConfig
from groundup.data.hellaswag import OFFICIAL, read_items
from groundup.download import fetch
from groundup.evaluation.conventions import Question, harness
from groundup.evaluation.scoring import Continuations, sums_of_endings
from groundup.models.gpt2 import GPT2
from groundup.tokenizers.gpt2 import gpt2_tokenizer

BATCHES = (1, 8, 16)
Pair = tuple[list[int], list[int]]  # the tokens of a context and of an ending


def pairs_of(questions: list[Question]) -> list[Pair]:
    """Each context with each of its endings."""
    return [(question.context.tolist(), ending.tolist()) for question in questions for ending in question.endings]


def plain_peer(model: Any) -> Callable[[list[Pair], int], list[float]]:
    """What lm-evaluation-harness 0.4 does in `_loglikelihood_tokens`, without what it counts and prints."""

    @torch.inference_mode()
    def score(pairs: list[Pair], batch_size: int) -> list[float]:
        order = sorted(range(len(pairs)), key=lambda place: -len(pairs[place][0]) - len(pairs[place][1]))
        found = [0.0] * len(pairs)
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            rows = [torch.tensor((pairs[place][0] + pairs[place][1])[:-1]) for place in places]
            inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            logits = F.log_softmax(model(inputs).logits, dim=-1)
            for place, row, scores in zip(places, rows, logits, strict=True):
                ending = torch.tensor(pairs[place][1])
                found[place] = float(scores[len(row) - len(ending) : len(row)].gather(1, ending[:, None]).sum())
        return found

    return score


def harness_peer(model: Any, folder: Path) -> Callable[[list[Pair], int], list[float]]:
    """lm-evaluation-harness itself, from where it has tokens to where it has sums."""
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    scorer = HFLM(pretrained=model, tokenizer=str(folder), device="cpu")

    def score(pairs: list[Pair], batch_size: int) -> list[float]:
        requests = [((str(place), ""), *pair) for place, pair in enumerate(pairs)]
        found = scorer._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=batch_size)
        return [total for total, _ in found]

    return score


def ours_of(model: GPT2, asked: list[Continuations], batch_size: int) -> list[float]:
    """The same sums by groundup, ending after ending."""
    return [total for sums in sums_of_endings(model, asked, batch_size) for total in sums]


def timed(score: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Seconds, and what was found."""
    started = time.perf_counter()
    found = score()
    return time.perf_counter() - started, found


def main(words: list[str] | None = None) -> None:
    """Ours, then the peer at each batch size, on the same items."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=8, help="ours: as `groundup evaluate` has it")
    given = parser.parse_args(words)
    items = read_items(given.file or fetch(OFFICIAL))
    chosen = items[:: max(1, len(items) // given.items)][: given.items]  # from all of the file: lengths differ
    tokenizer = gpt2_tokenizer()
    questions = [harness(item, tokenizer) for item in chosen]
    asked = [Continuations(question.context, question.endings) for question in questions]
    torch.manual_seed(1)
    model = GPT2(GPTConfig(n_layer=given.layers)).eval()
    with tempfile.TemporaryDirectory() as folder:
        model_folder.save(Path(folder), model, tokenizer)
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
        named = importlib.util.find_spec("lm_eval") is not None
        score = harness_peer(theirs, Path(folder)) if named else plain_peer(theirs)
        pairs = pairs_of(questions)
        score(pairs[:8], 8)  # warm
        sums_of_endings(model, asked[:2], given.batch_size)
        best, expected = float("inf"), list[float]()
        for batch_size in BATCHES:
            seconds, expected = timed(lambda size=batch_size: score(pairs, size))
            print(f"peer, batch {batch_size}: {len(chosen) / seconds:.2f} items/s", flush=True)
            best = min(best, seconds)
        seconds, found = timed(lambda: ours_of(model, asked, given.batch_size))
    difference = max(abs(one - other) for one, other in zip(found, expected, strict=True))
    print(f"ours, batch {given.batch_size}: {len(chosen) / seconds:.2f} items/s")
    print(f"largest difference of a sum: {difference:.2g}")
    assert difference < 1e-2, "they scored different things"
    who = "lm-evaluation-harness" if named else "its way, written out"
    claim = f"HellaSwag at 124M parameters is scored at least 2.0 times as fast as by {who}, at its best batch size"
    ours, peer = len(chosen) / seconds, len(chosen) / best
    print(result_line(claim, ours=ours, peer=2.0 * peer, ratio=ours / (2.0 * peer), unit="items/s, the peer's doubled"))


if __name__ == "__main__":
    main()
