"""All of HellaSwag's items: what guessing gets, and which file may be called the official one."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import groundup
from conftest import Cli, error_line
from groundup.checkpoints import model_folder
from groundup.cli.main import app
from groundup.data import hellaswag_items as hellaswag
from groundup.data.hellaswag_items import OFFICIAL
from groundup.hub.cache import cache_folder
from groundup.models.config import GPTConfig
from groundup.models.gpt2 import GPT2
from groundup.recipes.schema import Recipe
from groundup.tokenizers.train import learn_tokenizer
from invented_items import invented, small_model, tokenizer, write_items

TEXT_EDITION = "hellaswag/text_edition.jsonl"


def share_of(lines: list[dict[str, Any]], convention: str, measure: str) -> float:
    """How often a model is right to which all tokens are equally probable, by one measure."""
    right = 0
    for line in lines:
        tokens = np.array(line[convention]["tokens"])
        right += (
            int(np.argmax(-tokens / line[convention].get(f"{measure}_lengths", 1))) == line["label"]
        )
    return right / len(lines)


@pytest.mark.peers  # 20 seconds of a processor: where time is taken
def test_a_model_that_has_learned_nothing_guesses_on_all_10042_items(tmp_path: Path):
    """The seed is the recipes' own, not one that was chosen.

    All tokens are about equally probable to such a model. By the mean of a token it guesses; by the
    other measures it takes the ending of the fewest tokens, or of the fewest for its characters: a
    property of texts and tokenizer, not of the model. With this tokenizer it is right in 25.3 to
    25.8% (with GPT-2's in 25.3 to 25.6%), and that figure is what each of them must be near to.
    """
    items = cache_folder() / TEXT_EDITION
    if not items.is_file():
        pytest.skip("HellaSwag's text edition is not in the cache")
    reader = learn_tokenizer(
        [json.loads(line)["ctx"] for line in items.read_text("utf-8").splitlines()], 1000
    )
    torch.manual_seed(Recipe().train.seed)
    model = GPT2(
        GPTConfig(block_size=1024, vocab_size=reader.vocab_size, n_layer=1, n_head=2, n_embd=16)
    )
    model_folder.save(tmp_path / "model", model, reader)
    flags = (
        "--file",
        items,
        "--batch-size",
        128,
        "--device",
        "cpu",
        "--json",
        "--per-item",
        "each.jsonl",
    )
    finished = groundup("evaluate", "model", *flags, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["official"], result["items"], result["of"]) == (False, 10_042, 10_042)
    lines = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text("utf-8").splitlines()]
    for row in result["results"]:
        low, high = row["interval"]
        assert low < 0.25 < high, row
        if (row["convention"], row["measure"]) != ("completion", "acc_norm"):
            assert row["accuracy"] == pytest.approx(
                share_of(lines, row["convention"], row["measure"]), abs=0.003
            ), row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with random weights, and 6 items beside it."""
    model_folder.save(tmp_path / "model", small_model("gpt2"), tokenizer())
    write_items(tmp_path / "items.jsonl", invented(6))
    return tmp_path


def test_the_official_file_is_the_authors_own():
    assert (OFFICIAL.size, OFFICIAL.url) == (
        12_246_618,
        "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
    )
    assert OFFICIAL.sha256 == "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588"


def test_neither_name_nor_size_makes_a_file_official(folder: Path, cli: Cli):
    content = (folder / "items.jsonl").read_bytes()
    impostor = folder / "cache" / OFFICIAL.path
    impostor.parent.mkdir(parents=True)
    impostor.write_bytes(content + b"\n" * (OFFICIAL.size - len(content)))
    finished = groundup("evaluate", "model", "--file", impostor, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["official"] is False
    table = groundup("evaluate", "model", "--file", impostor, folder=folder).stdout
    assert "UNOFFICIAL: not the file of the published figures" in table
    line = error_line(cli("evaluate", "model", env={"GROUNDUP_CACHE": str(folder / "cache")}))
    assert "hellaswag_val.jsonl has SHA-256 " in line
    assert "instead of 0aa3b888" in line


def test_the_bytes_make_it_official(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under any name. The official bytes can't be here, so these 6 items stand for them."""
    digest = sha256((folder / "items.jsonl").read_bytes()).hexdigest()
    monkeypatch.setattr(hellaswag, "OFFICIAL", replace(OFFICIAL, sha256=digest))
    words = ["evaluate", str(folder / "model"), "--device", "cpu", "--file"]

    def printed(file: str, *flags: str) -> str:
        with pytest.raises(SystemExit) as ended:
            app([*words, str(folder / file), *flags], exit_on_error=False, print_error=False)
        assert not ended.value.code
        return capsys.readouterr().out

    assert json.loads(printed("items.jsonl", "--json"))["official"] is True
    assert "(the official file)" in printed("items.jsonl")
    (folder / "other.jsonl").write_bytes((folder / "items.jsonl").read_bytes() + b"\n")
    assert json.loads(printed("other.jsonl", "--json"))["official"] is False
    assert "UNOFFICIAL" in printed("other.jsonl")
