"""`from groundup import ...`: the public names are there, arrive when they are used, and lead to a
model and back.
"""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import groundup
from commands import trained
from conftest import TINY


def test_every_public_name_is_what_it_says():
    assert dir(groundup) == sorted(groundup.__all__)
    for name in groundup.__all__:
        assert getattr(groundup, name).__name__ == name
    from groundup import GPT2, Bigram, GPTConfig, ReadableGPT

    config = GPTConfig(block_size=8, vocab_size=5, n_layer=1, n_head=2, n_embd=4)
    tokens = torch.tensor([[0, 1, 2, 3]])
    for model_class in (Bigram, ReadableGPT, GPT2):
        model = model_class(config)
        logits, loss = model(tokens, tokens)
        assert logits.shape == (1, 4, 5)
        assert loss is not None
        assert loss.shape == ()
        assert model(tokens)[1] is None
        assert model.generate(tokens, max_new_tokens=6).shape == (1, 10)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'groundup' has no attribute 'GPT3'"):
        groundup.GPT3  # noqa: B018
    with pytest.raises(ImportError, match="GPT3"):
        from groundup import GPT3  # noqa: F401


def test_importing_the_package_imports_nothing_large():
    code = (
        "import sys, groundup; dir(groundup); groundup.GPTConfig; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_is_loaded_by_its_path(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
):
    trained("--corpus", text_file, "--steps", 3, "--name", "NAME", *TINY, folder=tmp_path)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, tokenizer = groundup.load("runs/NAME")
        other, _ = groundup.load(Path("runs/NAME/checkpoints/best"))
    assert isinstance(model, groundup.GPT2)
    assert not model.training
    assert tokenizer is not None
    assert tokenizer.characters == sorted(set(text_file.read_text("utf-8")))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    tokens = torch.from_numpy(tokenizer.encode("the"))[None]
    text = tokenizer.decode(model.generate(tokens, max_new_tokens=5)[0])
    assert text.startswith("the")
    assert len(text) == 8
