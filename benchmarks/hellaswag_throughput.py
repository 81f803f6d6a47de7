"""Claim: HellaSwag's items are scored at least twice as fast as by lm-evaluation-harness, at 124M
parameters on a CPU.

    python benchmarks/hellaswag_throughput.py [--items 120] [--rounds 2] [--file ITEMS.jsonl]

A folder with a random GPT-2 in float32, written by groundup; the harness's own Hugging Face model
class (lm-eval, from the extra `peers`) scores it with batches of 1, 8 and 16 endings, groundup as
`groundup evaluate` does. Both begin with texts and end with a sum for each ending, which must
agree. The items, from all of the file, are dealt to rounds; in each, every contender scores the
same ones, and another begins. The peer's best batch size counts. Without --file, the items are
those of the official file.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from common import conclude, quoted
from groundup.checkpoints import model_folder
from groundup.data.choice_items import Item
from groundup.data.hellaswag_items import OFFICIAL, read_items
from groundup.evaluation.hellaswag import CONVENTIONS
from groundup.evaluation.requests import score_requests
from groundup.hub.cache import fetch
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
from groundup.models.registry import Model
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.gpt2 import gpt2_tokenizer

BATCHES = (1, 8, 16)
AGREE = 1e-2  # nats: sums of hundreds in float32
Score = Callable[[Sequence[Item]], list[float]]  # items -> the sum of each ending, item after item


@dataclass
class Contender:
    """A way to score items, and the seconds that it took in each round."""

    name: str
    score: Score
    seconds: list[float] = field(default_factory=list)

    def run(self, items: Sequence[Item]) -> list[float]:
        """Score a round's items."""
        started = time.perf_counter()
        found = self.score(items)
        self.seconds.append(time.perf_counter() - started)
        return found


def ours(model: Model, tokenizer: Tokenizer, batch_size: int) -> Contender:
    """What `groundup evaluate --convention harness` does."""

    def score(items: Sequence[Item]) -> list[float]:
        requests = CONVENTIONS["harness"].requests(items, tokenizer, model.block_size)
        scored = score_requests(model, requests, batch_size)
        return [total for each in scored for total in each.sums]

    return Contender(f"groundup, {batch_size} items at once", score)


def harness(folder: Path) -> list[Contender]:
    """lm-evaluation-harness on the model in `folder`, once for each batch size; the weights are
    there once.
    """
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks.hellaswag.utils import preprocess  # pyright: ignore[reportMissingImports]

    load: Any = HFLM  # untyped in the harness
    first = load(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1)

    def contender(batch_size: int) -> Contender:
        scorer = load(
            pretrained=first.model, tokenizer=first.tokenizer, device="cpu", batch_size=batch_size
        )
        assert scorer.batch_size == batch_size

        def score(items: Sequence[Item]) -> list[float]:
            texts = [
                (preprocess(f"{item.activity}: {item.context}"), f" {preprocess(ending)}")
                for item in items
                for ending in item.endings
            ]
            requests = [
                Instance("loglikelihood", {}, text, place) for place, text in enumerate(texts)
            ]
            return [total for total, _ in scorer.loglikelihood(requests, disable_tqdm=True)]

        return Contender(f"lm-evaluation-harness, batch {batch_size}", score)

    return [contender(batch_size) for batch_size in BATCHES]


def compare(contenders: list[Contender], items: Sequence[Item], rounds: int) -> float:
    """Every contender on each round's items, another one first in each; the largest difference of a
    sum, in nats.
    """
    worst = 0.0
    for number in range(rounds):
        some = items[number::rounds]
        turn = number % len(contenders)
        found = {
            contender.name: contender.run(some)
            for contender in contenders[turn:] + contenders[:turn]
        }
        expected = found[contenders[0].name]
        for sums in found.values():
            worst = max(
                worst, *(abs(one - other) for one, other in zip(sums, expected, strict=True))
            )
        speeds = ", ".join(f"{each.name} {len(some) / each.seconds[-1]:.2f}" for each in contenders)
        print(f"round {number + 1}, {len(some)} items, items/s: {speeds}", flush=True)
    return worst


def main(words: list[str] | None = None) -> None:
    """Ours and the peer at each batch size, on the same items."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--batch-size", type=int, default=8, help="ours: as `groundup evaluate` has it"
    )
    given = parser.parse_args(words)
    if importlib.util.find_spec("lm_eval") is None:
        parser.error(
            "lm-evaluation-harness isn't installed: pip install -c constraints.txt -e '.[peers]'"
        )
    items = read_items(given.file or fetch(OFFICIAL))
    # from all of the file: lengths differ
    chosen = items[:: max(1, len(items) // given.items)][: given.items]
    if any(item.parts for item in chosen):  # asked by both with the context as it is
        chosen = [replace(item, parts=None) for item in chosen]
    tokenizer = gpt2_tokenizer()
    torch.manual_seed(1)
    model = GPT2(GPTConfig(n_layer=given.layers)).eval()
    with tempfile.TemporaryDirectory() as folder:
        model_folder.save(Path(folder), model, tokenizer)
        contenders = [ours(model, tokenizer, given.batch_size), *harness(Path(folder))]
    for contender in contenders:  # warm
        contender.score(chosen[:2])
    difference = compare(contenders, chosen, given.rounds)
    print(f"largest difference of a sum: {difference:.2g} nats")
    assert difference < AGREE, "they scored different things"
    mine, *peers = (len(chosen) / sum(contender.seconds) for contender in contenders)
    claim = (
        "HellaSwag at 124M parameters is scored faster than by "
        f"lm-evaluation-harness, at its best batch size of {', '.join(map(str, BATCHES))}"
    )
    peer = max(peers)
    conclude(
        claim,
        ours=mine,
        peer=peer,
        ratio=mine / peer,
        unit="items/s",
        script=quoted("hellaswag_throughput", parser, given, "file"),
    )


if __name__ == "__main__":
    main()
