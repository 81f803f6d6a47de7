"""`from groundup import ...`: the public names are there, arrive when they are used, and lead to a
model and back.
"""

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import groundup
from commands import trained
from conftest import TINY

PUBLIC = [  # for good: a version may add names, and removes none
    *("GPT2", "RUNGS", "Bigram", "BytePairTokenizer", "CharacterTokenizer", "Engine"),
    *("GPTConfig", "GroundupError", "Inspection", "KVCache", "LoadedModel", "Modern"),
    *("ModernConfig", "Precision", "ReadableBytePair", "ReadableGPT", "Recipe", "Rung"),
    *("SamplingSettings", "build_rung", "evaluate", "find_model", "gpt2_from_readable"),
    *("inspect", "invented_items", "keep_min_p", "keep_top_k", "keep_top_p"),
    *("learn_tokenizer", "load", "load_corpus", "load_model", "load_recipe", "load_tokenizer"),
    *("next_token", "orthogonalise", "parameter_count", "readable_from_gpt2", "save"),
]


def test_the_public_names_are_these():
    assert groundup.__all__ == PUBLIC


def test_type_checkers_find_each_name_where_it_is_found():
    """The imports for type checkers and the table of homes are kept by hand: they must agree."""
    tree = ast.parse(Path(groundup.__file__).read_text("utf-8"))
    [typed] = [node for node in tree.body if isinstance(node, ast.If)]
    imports = {
        alias.name: f"{node.module}.{alias.name}" for node in typed.body for alias in node.names
    }
    assert sorted(imports) == sorted(groundup.__all__)
    for name, home in imports.items():
        found = getattr(groundup, name)
        if isinstance(found, tuple):  # a constant knows no home
            assert home == "groundup.ladder.rungs.RUNGS"
        else:
            assert f"{found.__module__}.{found.__qualname__}" == home


def test_every_public_name_is_what_it_says():
    assert dir(groundup) == sorted(groundup.__all__)
    for name in groundup.__all__:
        value = getattr(groundup, name)
        assert isinstance(value, tuple) or value.__name__ == name
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


def test_a_recipe_is_loaded_by_its_name_and_by_its_path(tmp_path: Path):
    mine = tmp_path / "my.toml"
    mine.write_text("[train]\nsteps = 7\n", "utf-8")
    recipe = groundup.load_recipe("shakespeare", mine)
    assert recipe.train.steps == 7
    assert recipe.data == groundup.load_recipe("shakespeare").data
    assert groundup.load_recipe(str(mine)).train.steps == 7
    with pytest.raises(groundup.GroundupError, match="unknown recipe nobodys"):
        groundup.load_recipe("nobodys")


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
    loaded = groundup.load_model("runs/NAME")
    found = groundup.evaluate(loaded, "loss", corpus=str(text_file), limit=17).to_json()
    window = torch.from_numpy(tokenizer.encode(text_file.read_text("utf-8")))[None, :17]
    with torch.no_grad():
        _, loss = model(window[:, :-1], window[:, 1:])
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-5)
    found = groundup.evaluate(loaded, "loss", corpus=str(text_file), limit=9, window=4, stride=1)
    assert {"block_size": 4, "stride": 1}.items() <= found.to_json().items()
    with pytest.raises(
        groundup.GroundupError, match=r"there is no task nothing\. Known: hellaswag"
    ):
        groundup.evaluate(loaded, "nothing")
