"""An ONNX graph gives the model's logits in onnxruntime, whatever the batch and the length."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exported import saved

from commands import groundup
from groundup.models.registry import MODELS

pytestmark = pytest.mark.peers

SHAPES = [(1, 1), (1, 2), (3, 1), (2, 7), (5, 33), (1, 64)]  # (batch, time); the context is 64


@pytest.mark.parametrize("architecture", MODELS)
def test_logits_agree_at_every_batch_and_length(architecture: str, tmp_path: Path):
    import onnxruntime

    model, _ = saved(tmp_path / "model", architecture, "characters")
    finished = groundup("export", "model", "--to", "onnx", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith(
        "model.onnx: tokens [batch, time] int64, time up to 64 -> logits"
    )
    assert finished.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == [
        "model",
        "model.onnx",
    ]
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    generator = torch.Generator().manual_seed(1)
    for batch, time in SHAPES:
        tokens = torch.randint(0, model.config.vocab_size, (batch, time), generator=generator)
        (found,) = session.run(["logits"], {"tokens": tokens.numpy()})
        with torch.no_grad():
            expected = model(tokens)[0].numpy()
        assert isinstance(found, np.ndarray)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-4, (batch, time)


def test_bfloat16_becomes_float32(tmp_path: Path):
    import onnxruntime

    from groundup.checkpoints import model_folder
    from groundup.export.onnx import export_onnx

    model, tokenizer = saved(tmp_path / "float32", "modern", "characters")
    model_folder.save(tmp_path / "model", model.bfloat16(), tokenizer)
    loaded, _ = model_folder.load(tmp_path / "model")
    export_onnx(loaded, tmp_path / "out.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "out.onnx", providers=["CPUExecutionProvider"]
    )
    tokens = torch.arange(12).view(2, 6)
    (found,) = session.run(["logits"], {"tokens": tokens.numpy()})
    expected, _ = model_folder.load(tmp_path / "model")
    with torch.no_grad():
        assert np.abs(found - expected.float()(tokens)[0].numpy()).max() <= 1e-4


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import onnxruntime

    from groundup.export import onnx

    model, _ = saved(tmp_path / "model", "gpt2", "characters")
    monkeypatch.setattr(onnx, "LARGEST_IN_ONE_FILE", 1000)
    onnx.export_onnx(model, tmp_path / "out" / "graph.onnx")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "graph.onnx",
        "graph.onnx.data",
    ]
    session = onnxruntime.InferenceSession(
        tmp_path / "out" / "graph.onnx", providers=["CPUExecutionProvider"]
    )
    tokens = torch.arange(12).view(2, 6)
    (found,) = session.run(["logits"], {"tokens": tokens.numpy()})
    with torch.no_grad():
        assert np.abs(found - model(tokens)[0].numpy()).max() <= 1e-4
