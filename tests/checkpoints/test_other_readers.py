"""What other programs take from our model folders, where they would assume something else."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup
from conftest import model_of, perturb
from groundup.checkpoints import model_folder
from groundup.models.config import GPTConfig
from groundup.models.registry import Model
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.train import learn_tokenizer

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
transformers = pytest.importorskip("transformers")

# what no logits depend on, or what follows from what is stated
ASIDE = {
    *("model_type", "keys_to_ignore_at_inference", "attribute_map", "base_model_tp_plan"),
    *("base_model_pp_plan", "pad_token_id", "layer_types"),
    *("summary_type", "summary_use_proj", "summary_activation"),
    *("summary_proj_to_labels", "summary_first_dropout"),
}


def saved_model(architecture: str, folder: Path) -> tuple[Model, dict[str, Any]]:
    """A perturbed model whose folder was written, and the config.json there."""
    torch.manual_seed(0)
    shape = GPTConfig(block_size=24, vocab_size=11, n_layer=3, n_head=2, n_embd=8)
    model = model_of(architecture, shape)
    perturb(model, scale=0.3)
    model_folder.save(folder, model, None)
    return model, json.loads((folder / "config.json").read_text("utf-8"))


@pytest.mark.parametrize("architecture", ["gpt2", "bigram", "modern"])
def test_a_config_leaves_no_field_to_a_default_of_its_reader(
    architecture: str, tmp_path: Path
) -> None:
    _, settings = saved_model(architecture, tmp_path)
    fields = type(transformers.AutoConfig.from_pretrained(tmp_path)).__annotations__
    assert sorted(fields.keys() - settings.keys() - ASIDE) == []


def test_a_modern_config_states_that_no_layer_has_a_window(tmp_path: Path) -> None:
    """transformers 4.51 takes a window of 4,096 where none is stated; mistral.rs asks for both."""
    _, settings = saved_model("modern", tmp_path)
    assert settings["sliding_window"] is None
    assert settings["max_window_layers"] == settings["num_hidden_layers"] == 3


def test_a_gpt2_config_states_its_context_by_the_older_name_too(tmp_path: Path) -> None:
    """llama.cpp's converter reads `n_ctx`, as the published GPT-2s have it."""
    _, settings = saved_model("gpt2", tmp_path)
    assert settings["n_ctx"] == settings["n_positions"] == 24


def test_a_gpt2_with_three_dropouts_loads(tmp_path: Path) -> None:
    """Only training would ask which of them holds, and there the recipe has its own."""
    model, settings = saved_model("gpt2", tmp_path)
    pdrops = {"embd_pdrop": 0.3, "attn_pdrop": 0.2, "resid_pdrop": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(settings | pdrops), "utf-8")
    loaded, _ = groundup.load(tmp_path)
    tokens = torch.arange(11)[None]
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    assert loaded.config.dropout == 0.1


def test_a_gpt2_with_the_two_older_files_has_its_tokenizer(tmp_path: Path) -> None:
    """`vocab.json` and `merges.txt` are all that early GPT-2s have; a Qwen3's words are others."""
    text = "some text, some other text 123"
    learned = learn_tokenizer([text] * 3, 270)
    model = learned.contents["model"]
    vocabulary = model["vocab"] | dict(learned.special_tokens)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    for architecture in ("gpt2", "modern"):
        folder = tmp_path / architecture
        shape = GPTConfig(24, len(vocabulary), 1, 2, 8)
        model_folder.save(folder, model_of(architecture, shape), None)
        (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
        (folder / "merges.txt").write_text("\n".join(lines), "utf-8")
    _, found = groundup.load(tmp_path / "gpt2")
    assert found is not None
    assert found.special_tokens == learned.special_tokens
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    for each in (text, " \n more\tžluť <|endoftext|"):
        assert (
            found.encode(each).tolist() == learned.encode(each).tolist() == peer(each)["input_ids"]
        )
    assert groundup.load(tmp_path / "modern")[1] is None
    (tmp_path / "gpt2" / "vocab.json").write_text("[1]", "utf-8")
    with pytest.raises(groundup.GroundupError, match="is a damaged tokenizer"):
        groundup.load(tmp_path / "gpt2")


def test_a_tokenizer_truncates_to_the_context_and_names_an_unknown_token(tmp_path: Path) -> None:
    """Without the one, GPT-2 raises IndexError; without the other, CTranslate2 doesn't load it."""
    pairs, characters = learn_tokenizer(["some text"], 260), CharacterTokenizer("abc")
    for tokenizer in (pairs, characters):
        folder = tmp_path / type(tokenizer).__name__
        model = model_of("gpt2", GPTConfig(24, tokenizer.vocab_size, 1, 1, 8))
        model_folder.save(folder, model, tokenizer)
        peer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer.encode("abc" * 8).tolist()
        assert peer("abc" * 30, truncation=True)["input_ids"] == ids
        assert peer.unk_token == ("<|endoftext|>" if tokenizer is pairs else None)
