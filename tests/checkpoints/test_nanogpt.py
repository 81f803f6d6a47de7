"""A model of nanoGPT goes through the docs' script and `groundup import`, and stays itself."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from commands import groundup, metrics
from conftest import TINY, Finished, error_line
from groundup.checkpoints import model_folder
from groundup.checkpoints.nanogpt import read_nanogpt
from groundup.checkpoints.nanogpt_change import MOST
from groundup.errors import GroundupError
from groundup.models.gpt2 import GPT2
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.gpt2 import gpt2_tokenizer
from nanogpt_model import CHARACTERS, SHAPE, StandIn, write_checkpoint, write_data

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-nanogpt.md").read_text("utf-8")
SCRIPT, NUMPY = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TOKENS = torch.randint(len(CHARACTERS), (3, 16), generator=torch.Generator().manual_seed(2))
PADDED = SHAPE | {"vocab_size": 64}


def run_script(folder: Path, script: str = SCRIPT) -> Finished:
    """Run the script of the docs in a process of its own, which knows nothing of groundup."""
    (folder / "export_nanogpt.py").write_text(script, "utf-8")
    command = [sys.executable, "-P", "export_nanogpt.py", "out", "data/shakespeare_char"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def exported(folder: Path, model: StandIn, shape: dict[str, int], **changes: Any) -> Path:
    """What the script writes, without a process: the folder with both files."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    bias = model.transformer["ln_f"].bias is not None
    arguments = {**shape, "bias": bias, "dropout": 0.2}
    facts = {"model_args": arguments, "characters": CHARACTERS, "iter_num": 3, "best_val_loss": 1.5}
    save_file({k: v.clone() for k, v in model.state_dict().items()}, out / "nanogpt.safetensors")
    (out / "nanogpt.json").write_text(json.dumps(facts | changes), "utf-8")
    return out


@pytest.fixture(scope="module")
def trained_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which nanoGPT trained a compiled, padded model, and the script ran."""
    folder = tmp_path_factory.mktemp("nanogpt")
    write_data(folder / "data" / "shakespeare_char")
    model = StandIn(PADDED, bias=False)
    compiled = {f"_orig_mod.{name}": value for name, value in model.state_dict().items()}
    compiled["_orig_mod.transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
    write_checkpoint(folder / "out", model, PADDED, model=compiled)
    finished = run_script(folder)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def imported(trained_elsewhere: Path) -> tuple[Path, Finished]:
    """The folder once more, with the model imported by the command line, and what it said."""
    shutil.copy(
        trained_elsewhere / "data" / "shakespeare_char" / "val.bin", trained_elsewhere / "out"
    )
    finished = groundup("import", "nanogpt", "out", "--out", "mine", folder=trained_elsewhere)
    assert finished.returncode == 0, finished.stderr
    return trained_elsewhere, finished


def test_the_script_is_ten_to_twenty_lines_and_opens_no_more_than_it_says():
    lines = [line for line in SCRIPT.splitlines() if line.strip()]
    assert 10 <= len(lines) <= 20
    assert "weights_only=True" in SCRIPT
    assert SCRIPT.count("pickle.load") == 1


def test_the_script_names_the_remedy_for_a_number_of_numpy(tmp_path: Path):
    write_data(tmp_path / "data" / "shakespeare_char")
    for number in (np.float64(1.5), np.float32(1.5)):
        write_checkpoint(tmp_path / "out", StandIn(SHAPE), SHAPE, best_val_loss=number)
        assert "Unsupported global: GLOBAL numpy" in run_script(tmp_path).stderr
        allowed = SCRIPT.replace("import torch\n", "import torch, numpy\n").replace(
            "checkpoint = ", f"{NUMPY}checkpoint = "
        )
        finished = run_script(tmp_path, allowed)
        assert finished.returncode == 0, finished.stderr
        assert json.loads((tmp_path / "out" / "nanogpt.json").read_text())["best_val_loss"] == 1.5


def test_what_was_imported_computes_what_nanogpt_does(imported: tuple[Path, Finished]):
    folder, finished = imported
    model, tokenizer = model_folder.load(folder / "mine")
    assert isinstance(model, GPT2)
    assert tokenizer is not None
    assert getattr(tokenizer, "characters", None) == CHARACTERS
    assert model.config.vocab_size == len(CHARACTERS)
    with torch.no_grad():
        expected = StandIn(PADDED, bias=False)(TOKENS)[..., : len(CHARACTERS)]
        found, _ = model(TOKENS)
    assert (found - expected).abs().max() < 1e-5
    biases = [each for name, each in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 * 6 + 1
    assert all(each.requires_grad and not each.any() for each in biases)
    said = finished.stdout
    assert "nanoGPT's iteration 2,000, validation loss 1.4697" in said
    assert f"the {len(CHARACTERS)} characters of meta.pkl" in said
    assert "13 biases are zeros here, and training moves them" in said
    assert f"{64 - len(CHARACTERS)} rows beyond the tokenizer are cut, other logits stay" in said


def losses(model: StandIn, tokens: torch.Tensor, kept: int) -> float:
    """The mean loss of the stand-in over windows of its context, with its first rows alone."""
    count = (len(tokens) - 1) // 16
    with torch.no_grad():
        logits = model(tokens[: 16 * count].view(count, 16))[..., :kept].flatten(0, 1)
    return F.cross_entropy(logits.double(), tokens[1 : 16 * count + 1]).item()


def test_the_change_of_the_loss_is_that_of_the_stand_in(imported: tuple[Path, Finished]):
    """Each loss is computed by the stand-in, with and without its rows, by either GELU."""
    folder, finished = imported
    change = read_nanogpt(folder / "out").change
    assert change is not None
    tokens = np.fromfile(folder / "out" / "val.bin", np.uint16).astype(np.int64)
    text = torch.from_numpy(tokens[: MOST + 1])
    exact, tanh = (StandIn(PADDED, bias=False, exact=each) for each in (True, False))
    assert change.text == str(folder / "out" / "val.bin")
    assert change.tokens == (len(text) - 1) // 16 * 16
    assert change.loss == pytest.approx(losses(exact, text, 64), abs=1e-6)
    assert change.loss_by_tanh == pytest.approx(losses(tanh, text, 64), abs=1e-6)
    assert change.loss_after == pytest.approx(losses(tanh, text, len(CHARACTERS)), abs=1e-6)
    windows = text[: change.tokens].view(-1, 16)
    with torch.no_grad():
        cut = tanh(windows).softmax(-1)[..., len(CHARACTERS) :].sum(-1).mean().item()
        kept = (exact(windows) - tanh(windows))[..., : len(CHARACTERS)]
    assert change.cut_probability == pytest.approx(cut, rel=1e-4)
    assert change.largest_difference == pytest.approx(kept.abs().max().item(), rel=1e-2)
    assert 1e-5 < change.largest_difference < 1e-2  # the two forms of GELU aren't one
    assert change.loss_after < change.loss_by_tanh
    for number in (change.loss, change.loss_after):
        assert f"{number:.6f}" in finished.stdout
    assert f"{change.loss_after - change.loss_by_tanh:+.1e}" in finished.stdout
    assert f"{change.largest_difference:.1e} at most" in finished.stdout


def test_what_was_imported_writes_is_measured_and_trains_on(imported: tuple[Path, Finished]):
    folder, _ = imported
    written = groundup("generate", "mine", "--prompt", "To be", "--length", 20, folder=folder)
    assert written.returncode == 0, written.stderr
    assert set(written.stdout) <= {*CHARACTERS, "\n"}
    data = folder / "data" / "shakespeare_char"
    measured = groundup(
        *("evaluate", "mine", "--task", "loss", "--corpus", data, "--json"), folder=folder
    )
    assert measured.returncode == 0, measured.stderr
    args = ["--init", "mine", "--corpus", data, "--steps", 3, "--name", "on", *TINY]
    finished = groundup("train", "finetune", *args, folder=folder)
    assert finished.returncode == 0, finished.stderr
    before, after = model_folder.load(folder / "mine"), model_folder.load(folder / "runs" / "on")
    assert isinstance(before[0], GPT2)
    assert isinstance(after[0], GPT2)
    assert after[1] is not None
    assert after[1].identity == CHARACTERS
    moved = after[0].transformer.ln_f.bias
    assert moved.abs().max() > 0  # zeros that train
    change = read_nanogpt(folder / "out").change
    assert change is not None
    first = metrics(folder / "runs" / "on", "evaluation")[0]
    assert first["validation_loss"] == pytest.approx(change.loss_after, abs=0.05)


def test_bin_files_take_the_tokenizer_that_is_named(imported: tuple[Path, Finished]):
    """They don't say which made them: without a model to start from `--data.tokenizer` does."""
    folder, _ = imported
    data = folder / "data" / "shakespeare_char"
    args = ["train", "--corpus", data, "--steps", 2, *TINY]
    assert "don't say which tokenizer made them" in error_line(groundup(*args, folder=folder))
    named = groundup(*args, "--data.tokenizer", "mine", "--name", "n", folder=folder)
    assert named.returncode == 0, named.stderr
    assert model_folder.load(folder / "runs" / "n")[0].config.vocab_size == len(CHARACTERS)


@pytest.mark.parametrize("bias", [True, False])
@settings(max_examples=25)
@given(data=st.data())
def test_any_shape_stays_what_it_is(
    tmp_path_factory: pytest.TempPathFactory, bias: bool, data: st.DataObject
):
    n_head = data.draw(st.integers(1, 3))
    shape = {
        **{"block_size": data.draw(st.integers(1, 9)), "n_layer": data.draw(st.integers(1, 3))},
        **{"n_head": n_head, "n_embd": n_head * data.draw(st.integers(1, 5))},
        "vocab_size": len(CHARACTERS) + data.draw(st.integers(0, 70)),
    }
    model = StandIn(shape, bias=bias).double()  # a norm of few units magnifies float32's rounding
    found = read_nanogpt(exported(tmp_path_factory.mktemp("any"), model, shape))
    tokens = TOKENS[:, : shape["block_size"]]
    with torch.no_grad():
        expected = model(tokens)[..., : len(CHARACTERS)]
        torch.testing.assert_close(found.model(tokens)[0], expected)
    assert found.cut_rows == shape["vocab_size"] - len(CHARACTERS)
    assert found.zero_biases == (0 if bias else 6 * shape["n_layer"] + 1)


def test_without_characters_the_tokens_are_gpt2s(tmp_path: Path):
    shape = {"block_size": 8, "vocab_size": 50304, "n_layer": 1, "n_head": 2, "n_embd": 8}
    model = StandIn(shape)
    out = exported(tmp_path, model, shape, characters=None)
    finished = groundup("import", "nanogpt", "out", "--out", "mine", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "47 rows beyond the tokenizer are cut" in finished.stdout
    assert "tokens of a sentence" in finished.stdout
    loaded = model_folder.load_model(tmp_path / "mine")
    assert isinstance(loaded.tokenizer, BytePairTokenizer)
    assert loaded.model.config.vocab_size == gpt2_tokenizer().vocab_size == 50257
    assert loaded.document_start == 50256
    with torch.no_grad():
        expected = model(TOKENS[:, :8])[..., :50257]
        assert (loaded.model(TOKENS[:, :8])[0] - expected).abs().max() < 1e-5
    np.arange(50, dtype=np.uint16).tofile(out / "val.bin")  # none ends a document there
    assert read_nanogpt(out).document_start is None


def changed_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """What changes the tensors of an exported folder."""

    def apply(out: Path) -> None:
        tensors = load_file(out / "nanogpt.safetensors")
        change(tensors)
        save_file(tensors, out / "nanogpt.safetensors")

    return apply


def changed_facts(**changes: Any) -> Callable[[Path], None]:
    """What changes `nanogpt.json`; keys of `model_args` by their own names."""

    def apply(out: Path) -> None:
        facts = json.loads((out / "nanogpt.json").read_text("utf-8"))
        for key, value in changes.items():
            (facts if key in facts else facts["model_args"])[key] = value
        (out / "nanogpt.json").write_text(json.dumps(facts), "utf-8")

    return apply


def only_pickles(out: Path) -> None:
    (out / "nanogpt.safetensors").unlink()
    (out / "ckpt.pt").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.ln_f.weight"][0] = torch.nan


LN = "transformer.ln_f.weight"
FAULTS = {
    "no weights": (
        lambda out: (out / "nanogpt.safetensors").unlink(),
        "has no nanogpt.safetensors",
    ),
    "no facts": (
        lambda out: (out / "nanogpt.json").unlink(),
        "has no nanogpt.json: run the script",
    ),
    "ckpt.pt": (only_pickles, "ckpt.pt isn't read in place of nanogpt.safetensors: it is a pickle"),
    "broken json": (lambda out: (out / "nanogpt.json").write_text("{"), "isn't valid JSON"),
    "a list": (lambda out: (out / "nanogpt.json").write_text("[]"), "has no model_args"),
    "cut off": (
        lambda out: (out / "nanogpt.safetensors").write_bytes(b"\x08" + bytes(20)),
        "isn't a valid safetensors file",
    ),
    "nan": (changed_weights(not_finite), f"{LN} has a NaN"),
    "lacks": (changed_weights(lambda each: each.pop(LN)), f"lacks the tensor {LN}"),
    "surplus": (
        changed_weights(lambda each: each.update({"transformer.new": torch.ones(2)})),
        "has a tensor that nanoGPT's model doesn't: transformer.new",
    ),
    "twice": (
        changed_weights(lambda each: each.update({f"_orig_mod.{LN}": torch.ones(16)})),
        f"has {LN} twice",
    ),
    "untied": (
        changed_weights(lambda each: each.update({"lm_head.weight": torch.ones(64, 16)})),
        "lm_head.weight differs from transformer.wte.weight",
    ),
    "whole numbers": (
        changed_weights(lambda each: each.update({LN: torch.ones(16, dtype=torch.int64)})),
        f"tensor {LN} is of I64",
    ),
    "shape": (
        changed_weights(lambda each: each.update({LN: torch.ones(15)})),
        f"tensor {LN} is [15], but nanogpt.json makes it [16]",
    ),
    "n_head": (changed_facts(n_head=3), "n_embd = 16 is not divisible by n_head = 3"),
    "n_layer": (changed_facts(n_layer=True), "n_layer must be a whole number from 1, not True"),
    "far more": (changed_facts(n_layer=2**40), "more than"),
    "changed model": (changed_facts(use_relu=True), "model_args has use_relu"),
    "biases": (changed_weights(lambda each: each.pop("transformer.ln_f.bias")), "ln_f.bias"),
    "too few rows": (
        changed_facts(characters=[chr(100 + n) for n in range(70)]),
        "doesn't fit the 70",
    ),
    "gpt2": (changed_facts(characters=None), "doesn't fit the 50,257 tokens of GPT-2"),
    "unsorted": (changed_facts(characters=["b", "a"]), "'a' follows 'b'"),
    "words": (changed_facts(characters=["a", "be"]), 'token 1 is "be", and not one character'),
    "half a pair": (changed_facts(characters=["\ud800"]), "token 0 is"),
    "no list": (changed_facts(characters={}), "characters must be a list"),
    "best": (changed_facts(best_val_loss="low"), "best_val_loss must be a number, not 'low'"),
    "val.bin": (
        lambda out: np.full(9, 999, np.uint16).tofile(out / "val.bin"),
        "val.bin has token 999 at position 0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named_in_a_line(fault: str, tmp_path: Path):
    change, said = FAULTS[fault]
    out = exported(tmp_path, StandIn(PADDED), PADDED)
    change(out)
    line = error_line(groundup("import", "nanogpt", "out", "--out", "mine", folder=tmp_path))
    assert said in line
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"out"}
    assert not list(tmp_path.glob(".exporting-*"))


def test_a_checkpoint_is_refused_by_its_own_name(tmp_path: Path):
    (tmp_path / "ckpt.pt").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    line = error_line(groundup("import", "nanogpt", "ckpt.pt", "--out", "mine", folder=tmp_path))
    assert "ckpt.pt is a pickle" in line
    assert "docs/coming-from-nanogpt.md" in line
    assert not (tmp_path / "executed").exists()


def test_a_folder_that_exists_stays_as_it_is(tmp_path: Path):
    exported(tmp_path, StandIn(SHAPE), SHAPE)
    (tmp_path / "mine").mkdir()
    line = error_line(groundup("import", "nanogpt", "out", "--out", "mine", folder=tmp_path))
    assert "mine exists already. Choose another --out" in line
    assert not list((tmp_path / "mine").iterdir())


def interrupt_before_the_tokenizer() -> None:
    """Ctrl-C, when the weights are written and the tokenizer isn't."""
    from groundup.tokenizers.characters import CharacterTokenizer

    def save(_tokenizer: CharacterTokenizer, _folder: Path) -> None:
        raise KeyboardInterrupt

    CharacterTokenizer.save = save


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path):
    exported(tmp_path, StandIn(SHAPE), SHAPE)
    (tmp_path / "said").mkdir()
    finished = groundup(
        *("import", "nanogpt", "out", "--out", "mine"),
        folder=tmp_path,
        output=tmp_path / "said",
        before=interrupt_before_the_tokenizer,
    )
    assert finished.returncode == 130
    assert {path.name for path in tmp_path.iterdir()} == {"out", "said"}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(GroundupError, match=r"nowhere has no nanogpt\.safetensors"):
        read_nanogpt(tmp_path / "nowhere")
