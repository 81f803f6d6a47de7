"""groundup's C++: what it computes, and how it is built, also where something is missing."""

import dataclasses
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from commands import groundup, trained
from conftest import TINY, error_line, model_of, perturb, some_text
from groundup import Engine, GPTConfig, Precision, SamplingSettings
from groundup.errors import GenerationError, MachineError
from groundup.generation import kernels
from groundup.generation.packed import TILE_DEPTH, Matrix, packed
from groundup.generation.writer import Writer

CONFIG = GPTConfig(block_size=19, vocab_size=23, n_layer=2, n_head=3, n_embd=30)


def fresh(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let nothing be built yet."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(cache))
    kernels._load.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("outputs", [1, 23, 24, 50])
@pytest.mark.parametrize("inputs", [1, 7, 16, 45, 96])
def test_products_are_right_and_each_row_is_its_own(
    dtype: torch.dtype, outputs: int, inputs: int
) -> None:
    torch.manual_seed(outputs)
    x, bias = torch.randn(19, inputs), torch.randn(outputs)
    matrix = Matrix(torch.randn(outputs, inputs), dtype)
    view, library = matrix.view(bias), kernels.load_kernels()
    weight = matrix.weight.double()
    if matrix.scale is not None:
        weight *= matrix.scale.double()[:, None]
    expected = x.double() @ weight.T + bias
    within = 1e-4 if library.has_tiles and inputs % TILE_DEPTH == 0 else 1e-5
    for rows in (1, 2, 3, 4, 5, 8, 16):
        found = library.linear(x[:rows], view)
        torch.testing.assert_close(found.double(), expected[:rows], rtol=1e-5, atol=within)
        alone = [library.linear(x[row : row + 1], view) for row in range(rows)]
        assert torch.equal(found, torch.cat(alone))


@pytest.mark.parametrize("without", ["", "-mno-amx-bf16", "-mno-avx512f", "-mno-avx2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_many_products_are_right_by_the_units_of_this_processor_and_by_fewer(
    without: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Units for tiles round many vectors to bfloat16, in parts that stay in a cache."""
    if without:
        if platform.machine() != "x86_64":
            pytest.skip("these are flags for x86-64")
        monkeypatch.setenv("CXX", f"c++ {without}")
        fresh(monkeypatch, tmp_path)
    library = kernels.load_kernels()
    assert not (without and library.has_tiles)
    torch.manual_seed(0)
    for count, outputs, inputs in ((17, 70, 64), (80, 33, 6144), (33, 16, 45)):
        x, bias = torch.randn(count, inputs), torch.randn(outputs)
        matrix = Matrix(torch.randn(outputs, inputs), dtype)
        weight = matrix.weight.double()
        if matrix.scale is not None:
            weight *= matrix.scale.double()[:, None]
        tiles = library.has_tiles and inputs % TILE_DEPTH == 0
        found = library.linear(x, matrix.view(bias), gelu=True).double()
        products = [seen.double() @ weight.T + bias for seen in (x.bfloat16(), x)]
        rounded, exact = (F.gelu(each, approximate="tanh") for each in products)
        expected = rounded if tiles else exact
        if tiles:  # what is left of whole tiles is computed from the vectors themselves
            expected[:, outputs - outputs % 16 :] = exact[:, outputs - outputs % 16 :]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    kernels._load.cache_clear()


def test_torchs_products_in_bfloat16_go_on_beside_ours() -> None:
    """Both use the processor's units for tiles, which have a setting for each thread."""
    torch.manual_seed(0)
    library, weight = kernels.load_kernels(), torch.randn(64, 64).bfloat16()
    x, view = torch.randn(96, 64), Matrix(weight, torch.bfloat16).view()
    for _ in range(5):
        ours, torchs = library.linear(x, view), F.linear(x.bfloat16(), weight).float()
        torch.testing.assert_close(ours, torchs, rtol=2e-2, atol=0.2)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_text_is_the_same_beside_more_texts_than_a_tile_has_rows(dtype: str) -> None:
    torch.manual_seed(0)
    model = model_of("gpt2", dataclasses.replace(CONFIG, n_head=2, n_embd=64))
    perturb(model, scale=0.3)
    kind = Precision(quantize="int8") if dtype == "int8" else Precision(dtype=dtype)
    writer = Writer(model.eval(), dataclasses.replace(kind, compile="on"))
    writer.take_slots(35, 19)
    lengths = [1 + text % 4 for text in range(35)]
    newest = torch.randint(23, (35,))
    together = writer.write(newest, list(range(35)), lengths)
    for text, length in enumerate(lengths):
        alone = writer.write(newest[text, None], [text], [length])
        assert torch.equal(together[text], alone[0])


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
@pytest.mark.parametrize("texts", [1, 3, 4, 9])
def test_a_step_is_the_models(architecture: str, texts: int) -> None:
    """Logits of the newest tokens, at lengths that differ, in slots in any order."""
    torch.manual_seed(0)
    model = model_of(architecture, CONFIG)
    perturb(model, scale=0.3)
    writer = Writer(model.eval(), Precision(dtype="float32", compile="on"))
    writer.take_slots(texts + 2, 19)
    lengths = [1 + (5 * text) % 19 for text in range(texts)]
    slots = [(3 * text + 1) % (texts + 2) for text in range(texts)]
    slots = slots if len(set(slots)) == texts else list(range(texts))
    tokens = torch.randint(23, (texts, 19))
    with torch.inference_mode():
        for text, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            if length > 1:
                writer.read(tokens[text, : length - 1].tolist(), slot, 0)
        newest = torch.tensor([tokens[text, length - 1] for text, length in enumerate(lengths)])
        found = writer.write(newest, slots, lengths)
        expected = torch.cat(
            [model(tokens[text, None, :n])[0][:, -1] for text, n in enumerate(lengths)]
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_large_values_are_no_accident() -> None:
    """GELU, SiLU and softmax far from zero: nothing overflows."""
    for architecture in ("gpt2", "modern"):
        torch.manual_seed(0)
        model = model_of(architecture, CONFIG)
        perturb(model, scale=40.0)
        writer = Writer(model.eval(), Precision(dtype="float32", compile="on"))
        writer.take_slots(1, 19)
        with torch.inference_mode():
            found = writer.write(torch.tensor([3]), [0], [1])
            expected = model(torch.tensor([[3]]))[0][:, -1]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())


def test_float32_weights_are_shared_and_the_model_stays_as_it_is() -> None:
    model = model_of("gpt2", CONFIG).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    twin = packed(model, torch.float32, None)
    assert twin.lm_head.matrix is twin.transformer.wte.matrix
    assert twin.lm_head.matrix.weight.data_ptr() == model.lm_head.weight.data_ptr()
    small = packed(model, torch.int8, None)
    assert small.lm_head.matrix is small.transformer.wte.matrix
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_int8_is_near_and_its_scales_are_a_rows() -> None:
    weight = torch.randn(40, 64) * torch.logspace(-3, 3, 40)[:, None]
    weight[7] = 0.0
    matrix = Matrix(weight, torch.int8)
    assert matrix.scale is not None
    error = (matrix.weight * matrix.scale[:, None] - weight).abs()
    assert (error <= matrix.scale[:, None] * 0.5001).all()
    assert torch.equal(matrix.weight.abs().amax(1)[weight.any(1)], torch.full((39,), 127))


def test_it_is_built_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh(monkeypatch, tmp_path)
    kernels.load_kernels()
    (made,) = (tmp_path / "kernels").iterdir()
    before = made.stat().st_mtime_ns
    kernels._load.cache_clear()
    monkeypatch.setenv("PATH", "")  # no compiler is needed any more
    kernels.load_kernels()
    assert [each.stat().st_mtime_ns for each in (tmp_path / "kernels").iterdir()] == [before]


@pytest.mark.parametrize("compiler", ["", "/nowhere/c++", "false", "true", "'"])
def test_without_a_compiler_torch_writes_the_text_and_it_is_said(
    compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh(monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if compiler in ("false", "true") else "")
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    model = model_of("gpt2", CONFIG)
    with pytest.raises(MachineError, match="C\\+\\+ can't be built"):
        Engine(model, precision=Precision(compile="on"))
    with caplog.at_level("INFO"):
        engine = Engine(model)
    assert engine.writer.kernels is None
    assert "Texts are written by torch's own products, which are slower" in caplog.text
    chosen = SamplingSettings(length=30, temperature=0.0)
    expected = Engine(model, precision=Precision(compile="off")).submit([1, 2], chosen)
    assert list(engine.submit([1, 2], chosen)) == list(expected)
    kernels._load.cache_clear()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cant_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    fresh(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match="Permission denied"):
        kernels.load_kernels()


def test_a_file_in_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("")
    fresh(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match=r"C\+\+ can't be built: .*kernels"):
        kernels.load_kernels()
    kernels._load.cache_clear()


def test_two_processes_may_build_it_at_once(tmp_path: Path) -> None:
    script = (
        "from groundup.generation.kernels import load_kernels; import torch; "
        "from groundup.generation.packed import Matrix; view = Matrix(torch.ones(2, 8), "
        "torch.int8).view(); print(load_kernels().linear(torch.ones(1, 8), view))"
    )
    environment = os.environ | {"GROUNDUP_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", script]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate()[0] == "tensor([[8., 8.]])\n"
    assert len([*(tmp_path / "kernels").iterdir()]) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dtype": "float16"}, "dtype = 'float16' must be one of auto, float32, bfloat16"),
        ({"quantize": "int4"}, "quantize = 'int4' must be one of nothing, int8"),
        ({"compile": "yes"}, "compile = 'yes' must be one of auto, on, off"),
    ],
)
def test_a_precision_that_isnt_there(changed: dict[str, str], said: str) -> None:
    with pytest.raises(GenerationError, match=said):
        dataclasses.replace(Precision(), **changed)


def test_large_models_write_with_bfloat16_and_small_ones_as_they_are() -> None:
    small, large = model_of("gpt2", CONFIG), model_of("gpt2", GPTConfig(n_layer=1, n_embd=384))
    assert Engine(small, slots=1, room=1).writer.dtype == torch.float32
    assert Engine(large, slots=1, room=1).writer.dtype == torch.bfloat16
    by_torch = Engine(large, slots=1, room=1, precision=Precision(compile="off")).writer
    assert by_torch.dtype == torch.float32
    assert by_torch.model is large
    with pytest.raises(MachineError, match="no kernels for a model of float64 on cpu"):
        Engine(small.double(), precision=Precision(compile="on"))
    bigram = model_of("bigram", CONFIG)
    for changed in ({"quantize": "int8"}, {"dtype": "bfloat16"}):
        with pytest.raises(GenerationError, match="a bigram's table is read as it is, in float32"):
            Engine(bigram, precision=Precision(**changed))
    assert Engine(bigram, precision=Precision(dtype="float32")).writer.dtype == torch.float32
    with pytest.raises(MachineError, match="float32 on cpu, whose table needs none"):
        Engine(bigram, precision=Precision(compile="on"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_default_dtype_changes_nothing(dtype: torch.dtype) -> None:
    model = model_of("gpt2", CONFIG)
    chosen = SamplingSettings(length=20, seed=3)
    expected = list(Engine(model).submit([1, 2], chosen, logprobs=2))
    torch.set_default_dtype(dtype)
    try:
        assert list(Engine(model).submit([1, 2], chosen, logprobs=2)) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_command_takes_each_of_them(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    trained("--corpus", "text.txt", "--steps", 20, "--name", "run", *TINY, folder=tmp_path)
    words = "generate", "run", "--length", 40, "--seed", 3, "--greedy"
    texts = {}
    for given in ((), ("--compile", "off"), ("--dtype", "bfloat16"), ("--quantize", "int8")):
        finished = groundup(*words, *given, folder=tmp_path)
        assert finished.returncode == 0, finished.stderr
        texts[given] = finished.stdout
        kind = {"bfloat16": "bfloat16", "int8": "int8"}.get(given[-1] if given else "", "float32")
        by = "torch" if "off" in given else "groundup's C\\+\\+"
        assert f"writes with {kind} weights, by {by}".replace("\\", "") in finished.stderr
    assert texts[()] == texts["--compile", "off"]
    refused = groundup(*words, "--dtype", "float16", folder=tmp_path)
    assert error_line(refused) == (
        "groundup: dtype = 'float16' must be one of auto, float32, bfloat16"
    )
