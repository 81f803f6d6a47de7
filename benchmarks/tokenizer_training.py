"""Claim: learning a tokenizer of 32,768 tokens from 100 MB is at least as fast as with Hugging
Face's `tokenizers`.

    python benchmarks/tokenizer_training.py [--megabytes 100] [--vocab-size 32768]

The text: the Python source code of this installation, its packages included, file by file. Each
learns in a process of its own, whose resident memory at its highest is stated; ours includes
turning what was learned into a tokenizer.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import conclude
from groundup.tokenizers.base import END_OF_TEXT
from groundup.tokenizers.train import learn_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def source_texts(megabytes: float) -> Iterator[str]:
    """Source files until there is enough."""
    left = int(1e6 * megabytes)
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")) + sorted(
        Path(sysconfig.get_path("purelib")).rglob("*.py")
    ):
        data = path.read_bytes()[:left]
        left -= len(data)
        yield data.decode("utf-8", errors="ignore")
        if left <= 0:
            return


def learn_with_ours(texts: list[str], vocab_size: int) -> int:
    """groundup's; the number of tokens."""
    return learn_tokenizer(texts, vocab_size).vocab_size


def learn_with_theirs(texts: list[str], vocab_size: int) -> int:
    """Hugging Face's byte-level BPE of the same words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.get_vocab_size()


LEARNERS = {"ours": learn_with_ours, "tokenizers": learn_with_theirs}


def measured(learner: str, megabytes: float, vocab_size: int) -> dict[str, float]:
    """Seconds, tokens, megabytes of text and of memory, from a process of its own."""
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, __file__, "--only", learner]
        command += ["--megabytes", str(megabytes), "--vocab-size", str(vocab_size)]
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, learner
        output.seek(0)
        return json.loads(output.read()) | {"memory": usage.ru_maxrss / 1024}


def main(words: list[str] | None = None) -> None:
    """Both, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--vocab-size", type=int, default=32_768)
    parser.add_argument("--only", choices=LEARNERS)
    given = parser.parse_args(words)
    if given.only:
        texts = list(source_texts(given.megabytes))
        started = time.perf_counter()
        tokens = LEARNERS[given.only](texts, given.vocab_size)
        seconds, size = time.perf_counter() - started, sum(map(len, texts)) / 1e6
        print(json.dumps({"seconds": seconds, "tokens": tokens, "characters": size}))
        return
    found = {learner: measured(learner, given.megabytes, given.vocab_size) for learner in LEARNERS}
    for learner, result in found.items():
        print(
            f"{learner}: {result['tokens']:,.0f} tokens from {result['characters']:.0f} million "
            f"characters in {result['seconds']:.1f} s, {result['memory']:,.0f} MiB at the most"
        )
    ours, peer = (found[learner]["seconds"] for learner in LEARNERS)
    claim = (
        f"learning {given.vocab_size:,} tokens from {given.megabytes:g} MB is at least as fast as "
        "with `tokenizers`"
    )
    conclude(claim, ours=ours, peer=peer, ratio=peer / ours, unit="seconds")


if __name__ == "__main__":
    main()
