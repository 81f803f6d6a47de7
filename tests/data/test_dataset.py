"""What a run says of a mixture: means by the shares, bits per byte of both texts, and the corpora
one by one.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from commands import flags, metrics, trained
from conftest import some_text
from groundup.data.corpora import Corpus, open_corpora
from groundup.data.dataset import make_dataset
from groundup.errors import CorpusError
from groundup.recipes.schema import Recipe
from shard_files import characters, documents, encoded, learned, write_shards


def test_the_losses_of_a_mixture_are_means_by_its_shares(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", learned(), documents())
    (tmp_path / "text.txt").write_text("the lazy dog " * 300, "utf-8")
    finished = trained(
        *flags({"--corpus": "shards:3,text.txt:1", "--steps": 2, "--name": "run"}), folder=tmp_path
    )
    (last,) = metrics(tmp_path / "runs" / "run", "evaluation")
    losses = last["validation_losses"]
    assert last["validation_loss"] == pytest.approx(
        0.75 * losses["shards"] + 0.25 * losses["text.txt"]
    )
    validation = documents()[::10]
    in_shards = len("".join(validation).encode("utf-8")) / len(encoded(learned(), validation))
    tokens = learned().encode("the lazy dog " * 300)
    tail = tokens[int(0.9 * len(tokens)) :]
    in_text = len(learned().decode_bytes(tail)) / len(tail)
    size = 0.75 * in_shards + 0.25 * in_text
    assert last["bits_per_byte"] == pytest.approx(last["validation_loss"] / math.log(2) / size)
    assert f"text.txt {losses['text.txt']:.4f}" in finished.stdout
    facts = json.loads((tmp_path / "runs" / "run" / "run.json").read_text("utf-8"))
    fingerprint = json.loads((shards / "index.json").read_text("utf-8"))["fingerprint"]
    assert facts["corpus"]["parts"]["shards"] == fingerprint != facts["corpus"]["fingerprint"]


def test_one_corpus_says_nothing_of_parts(tmp_path: Path) -> None:
    write_shards(tmp_path / "letters", characters(), documents())
    trained(*flags({"--corpus": "letters", "--steps": 2, "--name": "run"}), folder=tmp_path)
    (last,) = metrics(tmp_path / "runs" / "run", "evaluation")
    assert "validation_losses" not in last
    size = len("".join(documents()[::10]).encode("utf-8")) / len("".join(documents()[::10]))
    assert last["bits_per_byte"] == pytest.approx(last["validation_loss"] / math.log(2) / size)


def test_texts_of_characters_share_the_characters_of_all(tmp_path: Path) -> None:
    for name, text in (("a.txt", "ab" * 300), ("b.txt", "bc" * 300)):
        (tmp_path / name).write_text(text, "utf-8")
    corpora = open_corpora("a.txt:1,b.txt:1", [tmp_path])
    recipe = replace(Recipe(), model=replace(Recipe().model, block_size=16))
    text = make_dataset(corpora, recipe, None)
    assert text.tokenizer.decode(range(text.tokenizer.vocab_size)) == "abc"
    assert text.document_start is None
    (tmp_path / "b.txt").write_text("bc", "utf-8")
    with pytest.raises(CorpusError, match=r"corpus b\.txt is too short"):
        make_dataset(open_corpora("a.txt:1,b.txt:1", [tmp_path]), recipe, None)
    assert make_dataset([Corpus("x", some_text())], recipe, None).name == "x"
