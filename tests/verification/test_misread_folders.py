"""`groundup verify MODEL` names what our reader ignores in a folder: it compares with the folder
itself, not with one that was saved again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import perturb
from groundup.checkpoints import conventions, model_folder
from groundup.checkpoints.layouts import gpt2 as gpt2_layout
from groundup.checkpoints.layouts import qwen3 as qwen3_layout
from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.gpt2 import GPT2
from groundup.models.modern import Modern
from groundup.models.registry import Model
from groundup.verification import verify
from groundup.verification.model_under_test import CPU
from model_files import published

pytest.importorskip("transformers")

GPT, QWEN = GPTConfig(48, 23, 2, 4, 16), ModernConfig(48, 23, 2, 4, 2, 16, 8, 40)
CLAIM = next(claim for claim in verify.CLAIMS if claim.name == "ours = transformers")
HEAD = "lm_head.weight"


def without(layout: Any, key: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A reader that doesn't look at a setting which our model can't vary."""
    return lambda patch: patch.delitem(layout.FIXED, key)


def replaced(where: Any, name: str, other: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(where, name, other)


def tying_assumed(patch: pytest.MonkeyPatch) -> None:
    """A reader that takes every head for the table of tokens."""
    config = qwen3_layout.ModernConfig
    patch.setattr(qwen3_layout, "ModernConfig", lambda **given: config(**given | {"tied": True}))
    patch.setattr(
        qwen3_layout.Qwen3Layout, "spelled", lambda self, name: None if name == HEAD else name
    )


def heads_assumed(patch: pytest.MonkeyPatch) -> None:
    """A reader that takes every head of a GPT-2 for 8 wide."""
    config = gpt2_layout.GPTConfig
    patch.setattr(gpt2_layout, "GPTConfig", lambda **given: config(**given | {"n_head": 2}))


@dataclass(frozen=True)
class Fault:
    """How a setting is ignored, what the config states, and the row that must be red."""

    plant: Callable[[pytest.MonkeyPatch], None]
    config: GPTConfig | ModernConfig
    states: dict[str, Any] = field(default_factory=dict)
    row: str = "ours = transformers"
    generation: dict[str, Any] = field(default_factory=dict)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
FAULTS = {
    "YaRN": Fault(
        replaced(qwen3_layout, "_rope_theta", lambda *_: 1e4), QWEN, {"rope_scaling": YARN}
    ),
    "window": Fault(without(qwen3_layout, "use_sliding_window"), QWEN, WINDOW),
    "epsilon": Fault(without(qwen3_layout, "rms_norm_eps"), QWEN, {"rms_norm_eps": 0.01}),
    "theta": Fault(
        replaced(qwen3_layout, "_rope_theta", lambda *_: 1e4),
        QWEN,
        {"rope_theta": 50.0, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    ),
    "activation": Fault(
        without(gpt2_layout, "activation_function"), GPT, {"activation_function": "relu"}
    ),
    "tying": Fault(tying_assumed, ModernConfig(48, 23, 2, 4, 2, 16, 8, 40, tied=False)),
    "head_dim": Fault(heads_assumed, GPT),
    "scale_attn_weights": Fault(
        without(gpt2_layout, "scale_attn_weights"), GPT, {"scale_attn_weights": False}
    ),
    "dropout": Fault(
        replaced(gpt2_layout, "number", lambda *_: 0.0),
        GPT,
        dict.fromkeys(gpt2_layout.DROPOUTS, 0.3),
        "ours = transformers: dropout",
    ),
    "ends": Fault(
        replaced(conventions, "GENERATION_FILE", "none.json"),
        GPT,
        {"eos_token_id": 3},
        "ours = transformers: ends",
        {"eos_token_id": [3, 5]},
    ),
}


def written(fault: Fault, folder: Path) -> None:
    torch.manual_seed(0)
    model: Model = (
        GPT2(fault.config) if isinstance(fault.config, GPTConfig) else Modern(fault.config)
    )
    perturb(model, scale=0.5)
    model_folder.save(folder, model, None)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fault.states), "utf-8")
    if fault.generation:
        (folder / "generation_config.json").write_text(json.dumps(fault.generation), "utf-8")


def red(folder: Path) -> list[str]:
    (tested,) = verify.models_to_test(str(folder), CPU)
    found = list(verify.verify(CLAIM, tested))
    assert all(row.error is not None for row in found), found
    return [row.claim for row in found if row.status == "FAILED"]


@pytest.mark.parametrize("name", FAULTS)
def test_an_ignored_setting_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(FAULTS[name], tmp_path / "model")
    FAULTS[name].plant(monkeypatch)
    assert red(tmp_path / "model") == [FAULTS[name].row]


@pytest.mark.parametrize("name", ["theta", "tying", "dropout", "ends"])
def test_what_is_read_is_right(name: str, tmp_path: Path) -> None:
    """A test of the test: these settings our reader knows."""
    written(FAULTS[name], tmp_path / "model")
    assert red(tmp_path / "model") == []


def test_a_folder_in_bfloat16_and_of_old_names_is_no_other(tmp_path: Path) -> None:
    written(FAULTS["head_dim"], tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    published(tmp_path / "model")
    assert red(tmp_path / "model") == []
