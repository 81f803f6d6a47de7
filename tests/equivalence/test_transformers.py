"""Every folder that groundup writes is a Hugging Face model, silently and exactly; and theirs are
ours.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from agreement import assert_close
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import groundup
from conftest import model_of, perturb
from groundup.checkpoints import model_folder
from groundup.checkpoints.layouts import gpt2 as gpt2_layout
from groundup.checkpoints.model_folder import CONFIG_FILE, WEIGHTS_FILE
from groundup.models.config import GPTConfig
from groundup.models.registry import MODELS, Model
from groundup.tokenizers.characters import CharacterTokenizer

# read when transformers is imported: nothing here may ask the network
os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

ALPHABET = "x.y, \n\r\t\0\"'\\`/<unk>|[]é\u0301ß中文字\u00a0\u2028\ufeff😀👩\u200d🚀▁Ġ"
TRICKY = "x .\n y ,  \n"
of_every_model = pytest.mark.parametrize("architecture", MODELS)


@contextmanager
def no_warning(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing from Python's warnings or the libraries' loggers (a loading report is logged), and
    nothing printed.
    """
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in (None, "transformers", "huggingface_hub")]
    logging.Logger.warning_once.cache_clear()  # else an earlier test may have used it up
    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.disable_progress_bar()
    capfd.readouterr()
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    messages = [record.getMessage() for record in records] + [
        str(warning.message) for warning in caught
    ]
    assert not messages, f"transformers warned: {messages}"
    assert capfd.readouterr() == ("", "")


def perturbed(architecture: str, vocab_size: int, dropout: float = 0.0) -> Model:
    """A small model, no two of its dimensions equal, every tensor of it moved; in
    evaluation mode.
    """
    torch.manual_seed(0)
    config = GPTConfig(
        block_size=40, vocab_size=vocab_size, n_layer=3, n_head=2, n_embd=12, dropout=dropout
    )
    model = model_of(architecture, config)
    perturb(model, scale=0.3)
    return model.eval()


def random_tokens(vocab_size: int, time: int = 40) -> Tensor:
    return torch.randint(0, vocab_size, (3, time), generator=torch.Generator().manual_seed(1))


def assert_transformers_computes_the_same(folder: Path, model: Model) -> None:
    """Nothing missing, unexpected or reshaped on loading, and equal logits."""
    peer, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), f"transformers reports {report}"
    tokens = random_tokens(model.config.vocab_size)
    with torch.no_grad():
        assert_close(peer(tokens).logits, model(tokens)[0], 1e-5, "logits")


@of_every_model
def test_our_folder_loads_without_a_warning_and_computes_the_same(
    architecture: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = CharacterTokenizer(ALPHABET)
    model = perturbed(architecture, tokenizer.vocab_size)
    model_folder.save(tmp_path, model, tokenizer)
    with no_warning(capfd):
        assert_transformers_computes_the_same(tmp_path, model)
        peer_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        encoded = peer_tokenizer(TRICKY, return_tensors="pt")
        peer_model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        written = peer_model.generate(**encoded, max_new_tokens=25, do_sample=False)
    prompt = torch.from_numpy(tokenizer.encode(TRICKY))[None]
    assert torch.equal(encoded["input_ids"], prompt)
    ours = model.generate(prompt, 25, temperature=0.0)
    assert torch.equal(written, ours)
    assert peer_tokenizer.decode(written[0]) == tokenizer.decode(ours[0].tolist())


@of_every_model
def test_our_folder_loads_in_ours_bit_for_bit(architecture: str, tmp_path: Path) -> None:
    tokenizer = CharacterTokenizer(ALPHABET)
    model = perturbed(architecture, tokenizer.vocab_size, dropout=0.1)
    model_folder.save(tmp_path, model, tokenizer)
    loaded, loaded_tokenizer = groundup.load(tmp_path)
    assert type(loaded) is type(model)
    assert loaded_tokenizer is not None
    assert loaded_tokenizer.characters == tokenizer.characters
    assert not loaded.training
    # which has no layers to remember
    assert loaded.config == model.config or architecture == "bigram"
    assert_equal_weights(loaded.state_dict(), model.state_dict())


@of_every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_folder_keeps_its_precision(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = perturbed(architecture, 9).to(dtype)
    model_folder.save(tmp_path, model, None)
    assert_equal_weights(groundup.load(tmp_path)[0].state_dict(), model.state_dict())
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).dtype == dtype


@of_every_model
def test_a_folder_says_what_older_releases_of_transformers_ask_for(
    architecture: str, tmp_path: Path
) -> None:
    model_folder.save(tmp_path, perturbed(architecture, 9), None)
    settings = json.loads((tmp_path / CONFIG_FILE).read_text("utf-8"))
    assert settings["groundup_model"] == architecture
    assert settings["dtype"] == "float32"
    if architecture == "modern":
        assert settings["architectures"] == ["Qwen3ForCausalLM"]
        assert settings["max_position_embeddings"] == 40
        assert settings["rope_theta"] == settings["rope_parameters"]["rope_theta"] == 10_000.0
    else:
        assert settings["architectures"] == ["GPT2LMHeadModel"]
        assert settings["n_positions"] == 40
    with safe_open(tmp_path / WEIGHTS_FILE, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("architecture", ["readable", "gpt2"])
def test_dropout_is_the_same_in_transformers(architecture: str, tmp_path: Path) -> None:
    model_folder.save(tmp_path, perturbed(architecture, 9, dropout=0.25), None)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop) == (0.25, 0.25, 0.25)


def test_a_float64_bigram_is_a_zero_layer_gpt2(tmp_path: Path) -> None:
    """The last norm, undone by its scale and shift, gives the one-hot vector back: the same table
    to 1e-12.
    """
    model = perturbed("bigram", 11).double()
    model_folder.save(tmp_path, model, None)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = random_tokens(11)
    assert_close(peer(tokens).logits, model(tokens)[0], 1e-12, "logits")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[CharacterTokenizer, object]:
    """Ours over ALPHABET, and transformers' from the folder that it writes."""
    ours = CharacterTokenizer(ALPHABET)
    folder = tmp_path_factory.mktemp("tokenizer")
    model_folder.save(folder, perturbed("gpt2", ours.vocab_size), ours)
    return ours, transformers.AutoTokenizer.from_pretrained(folder)


@given(text=st.text(alphabet=ALPHABET, max_size=60))
@example(TRICKY)
@example("")
@example("\n\n\r\n\r\r \n\u2028\u2028")  # runs of what a dot in a pattern doesn't match
@example("<unk>")
@example(" leading and trailing ".translate({ord(letter): " " for letter in "leadingtr"}))
def test_ids_and_text_are_equal(tokenizers: tuple[CharacterTokenizer, Callable], text: str) -> None:
    ours, theirs = tokenizers
    ids = ours.encode(text).tolist()
    assert theirs(text)["input_ids"] == ids
    assert theirs.decode(ids) == text  # type: ignore[attr-defined]
    assert theirs.decode(ids, skip_special_tokens=True) == text  # type: ignore[attr-defined]
    assert ours.decode(ids) == text


@settings(max_examples=25)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_ids_and_text_are_equal_over_any_vocabulary(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    ours = CharacterTokenizer(text)
    folder = tmp_path_factory.mktemp("tokenizer")
    model_folder.save(folder, perturbed("bigram", ours.vocab_size), ours)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    shutil.rmtree(folder)
    assert len(theirs) == ours.vocab_size
    assert theirs(text)["input_ids"] == ours.encode(text).tolist()
    assert theirs.decode(ours.encode(text).tolist()) == text


def test_a_character_outside_the_vocabulary_is_an_error_there_too(
    tokenizers: tuple[CharacterTokenizer, Callable],
) -> None:
    with pytest.raises(Exception, match="UNK"):  # and not silently left out, or token 0
        tokenizers[1]("x Q y")


def assert_saved_back_bit_for_bit(model: Model, peer: Any, tmp_path: Path) -> None:
    """What was loaded from `theirs` computes the same, and saved to `ours` is the same file and the
    same model.
    """
    tokens = random_tokens(23)
    with torch.no_grad():
        assert_close(model(tokens)[0], peer(tokens).logits, 1e-5, "logits")

    model_folder.save(tmp_path / "ours", model, None)
    assert_equal_weights(
        load_file(tmp_path / "ours" / WEIGHTS_FILE), load_file(tmp_path / "theirs" / WEIGHTS_FILE)
    )
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_equal_weights(again.state_dict(), peer.state_dict())


@pytest.mark.parametrize("scale", [0.0, 0.3], ids=["as initialised", "perturbed"])
def test_their_model_loads_in_ours_and_is_saved_back_bit_for_bit(
    scale: float, tmp_path: Path
) -> None:
    shape = {"n_positions": 40, "vocab_size": 23, "n_layer": 3, "n_head": 2, "n_embd": 12}
    torch.manual_seed(3)
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)
    ).eval()
    if scale:
        perturb(peer, scale=scale)
    peer.save_pretrained(tmp_path / "theirs")

    model, tokenizer = groundup.load(tmp_path / "theirs")
    assert isinstance(model, groundup.GPT2)
    assert tokenizer is None
    # GPT2Config's own dropout
    assert model.config == GPTConfig(40, 23, n_layer=3, n_head=2, n_embd=12, dropout=0.1)
    assert_saved_back_bit_for_bit(model, peer, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_their_qwen3_loads_in_ours_and_is_saved_back_bit_for_bit(
    tied: bool, tmp_path: Path
) -> None:
    shape = {"vocab_size": 23, "hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 20}
    heads = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "max_position_embeddings": 40,
    }
    rotations = {"rope_type": "default", "rope_theta": 50_000.0}
    config = transformers.Qwen3Config(
        **shape, **heads, rope_parameters=rotations, tie_word_embeddings=tied
    )
    torch.manual_seed(3)
    peer = transformers.Qwen3ForCausalLM(config).eval()
    perturb(peer, scale=0.3)
    peer.save_pretrained(tmp_path / "theirs")

    model, _ = groundup.load(tmp_path / "theirs")
    assert isinstance(model, groundup.Modern)
    assert model.config == groundup.ModernConfig(
        40, 23, 2, 4, 2, 12, 6, 20, rope_theta=50_000.0, tied=tied
    )
    assert_saved_back_bit_for_bit(model, peer, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "default rotations"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "default rotations",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_scaling = {'rope_type': 'yarn'",
        ),
        ({"rope_scaling": {"rope_theta": 5e5}}, "rope_theta must be one number"),
        ({"rope_theta": 5e5}, "rope_theta must be one number"),
        ({"groundup_dropout": "some"}, "groundup_dropout must be a number"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
        ({"layer_types": ["sliding_attention"] * 3}, "layer_types"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"head_dim": 5}, "head_dim = 5 is odd"),
        ({"num_key_value_heads": None, "head_dim": None}, "more than model.safetensors|makes it"),
        ({"intermediate_size": 1.5}, "intermediate_size must be a whole number"),
        ({"groundup_model": "gpt2"}, "for qwen3 this version knows modern"),
    ],
)
def test_another_kind_of_qwen3_is_refused_by_name(
    change: dict[str, object], said: str, tmp_path: Path
) -> None:
    model_folder.save(tmp_path, perturbed("modern", 9), None)
    settings = json.loads((tmp_path / CONFIG_FILE).read_text("utf-8"))
    (tmp_path / CONFIG_FILE).write_text(json.dumps(settings | change), "utf-8")
    with pytest.raises(groundup.GroundupError, match=said):
        groundup.load(tmp_path)


def test_a_gpt2_with_two_spellings_that_differ_is_refused(tmp_path: Path) -> None:
    """transformers takes whichever stands last."""
    model_folder.save(tmp_path, perturbed("gpt2", 9), None)
    settings = json.loads((tmp_path / CONFIG_FILE).read_text("utf-8"))
    same = json.dumps(settings | {"num_attention_heads": settings["n_head"]})
    (tmp_path / CONFIG_FILE).write_text(same, "utf-8")
    groundup.load(tmp_path)
    (tmp_path / CONFIG_FILE).write_text(json.dumps(settings | {"num_attention_heads": 4}), "utf-8")
    with pytest.raises(groundup.GroundupError, match="n_head = 2, but num_attention_heads = 4"):
        groundup.load(tmp_path)


@pytest.mark.parametrize(
    "kept_in_order", ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight"]
)
def test_a_missing_transpose_goes_red(
    kept_in_order: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A test of the test: ours would still load such a folder, and only the peer can tell."""
    matrices = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    monkeypatch.setattr(
        gpt2_layout, "TRANSPOSED", tuple(name for name in matrices if name != kept_in_order)
    )
    model = perturbed("gpt2", 9)
    model_folder.save(tmp_path, model, None)
    assert_equal_weights(groundup.load(tmp_path)[0].state_dict(), model.state_dict())
    with pytest.raises((AssertionError, RuntimeError), match=r"logits differ|mismatched|size"):
        assert_transformers_computes_the_same(tmp_path, model)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors: tensors.pop("transformer.h.1.mlp.c_fc.bias"),
        lambda tensors: tensors.update({"transformer.h.1.attn.extra": torch.zeros(2)}),
    ],
    ids=["missing tensor", "unexpected tensor"],
)
def test_the_silence_check_hears_a_loading_report(
    damage: Callable[[dict[str, Tensor]], object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A test of the test: a folder that transformers has something to say about goes red."""
    model_folder.save(tmp_path, perturbed("gpt2", 9), None)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    damage(tensors)
    save_file(tensors, tmp_path / WEIGHTS_FILE, metadata={"format": "pt"})
    with pytest.raises(AssertionError, match="transformers warned"), no_warning(capfd):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_another_activation_goes_red(tmp_path: Path) -> None:
    """A test of the test: what `config.json` says is what the peer computes."""
    model = perturbed("gpt2", 9)
    model_folder.save(tmp_path, model, None)
    settings = json.loads((tmp_path / CONFIG_FILE).read_text("utf-8"))
    (tmp_path / CONFIG_FILE).write_text(
        json.dumps(settings | {"activation_function": "gelu"}), "utf-8"
    )
    with pytest.raises(AssertionError, match="logits differ"):
        assert_transformers_computes_the_same(tmp_path, model)


def assert_equal_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, and every tensor equal bit for bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), f"{name} differs"
