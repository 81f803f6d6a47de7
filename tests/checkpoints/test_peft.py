"""`peft` itself reads our adapters, and we read its: the same logits, merged and not."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from commands import flags, trained, write_text
from conftest import perturb, some_text
from groundup import GPTConfig, ModernConfig, load
from groundup.checkpoints import model_folder
from groundup.models.config import ModelConfig
from groundup.models.registry import build
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.verification import verify
from groundup.verification.model_under_test import CPU

pytestmark = pytest.mark.peers

SIZE = len(set(some_text()))
CONFIGS: dict[str, ModelConfig] = {
    "gpt2": GPTConfig(block_size=32, vocab_size=SIZE, n_layer=2, n_head=2, n_embd=32),
    "modern": ModernConfig(32, SIZE, 2, n_head=4, n_kv_head=2, n_embd=32, head_dim=12, n_inner=40),
    "modern, untied": ModernConfig(
        32, SIZE, 2, n_head=4, n_kv_head=2, n_embd=32, head_dim=12, n_inner=40, tied=False
    ),
}
TARGETS = {"gpt2": ["c_attn", "mlp.c_proj"], "modern": ["q_proj", "v_proj", "down_proj"]}


@pytest.fixture(params=CONFIGS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The folder `base`, a model whose every tensor was moved; its architecture."""
    architecture = request.param.partition(",")[0]
    torch.manual_seed(0)
    model = build(architecture, CONFIGS[request.param])
    perturb(model, scale=0.1)
    write_text(tmp_path)
    model_folder.save(tmp_path / "base", model, CharacterTokenizer(some_text()))
    return architecture


def tokens() -> Tensor:
    return torch.randint(SIZE, (3, 24), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def ours(folder: Path) -> Tensor:
    return load(folder)[0](tokens())[0]


@torch.no_grad()
def theirs(model: Any) -> Tensor:
    return model.eval()(tokens()).logits


def run_of_adapters(folder: Path, rank: int) -> Path:
    """A run's newest checkpoint: what trained adapters leave behind."""
    changes = {
        "--train.init": "base",
        "--lora.rank": rank,
        "--lora.alpha": 9,
        "--optim.learning-rate": 1e-2,
    }
    words = flags(changes | {"--steps": 6, "--name": "run"})
    shape = (
        "--model.architecture",
        "--model.block-size",
        "--model.n-layer",
        "--model.n-head",
        "--model.n-embd",
    )
    words = [
        word
        for pair in zip(words[::2], words[1::2], strict=True)
        if pair[0] not in shape
        for word in pair
    ]
    trained("finetune", *words, folder=folder)
    return folder / "runs" / "run" / "checkpoints" / "step-000006"


def test_peft_reads_a_run_of_adapters(base: str, tmp_path: Path) -> None:
    import peft
    import transformers

    checkpoint = run_of_adapters(tmp_path, rank=3)
    expected = ours(tmp_path / "runs" / "run")
    with warnings.catch_warnings():
        # what peft says of a file; of each other its authors say more
        warnings.simplefilter("error", UserWarning)
        frozen = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        assert (theirs(frozen) - expected).abs().max() > 1e-3
        adapted = peft.PeftModel.from_pretrained(frozen, str(checkpoint))
        # finds the base by itself
        by_name = peft.AutoPeftModelForCausalLM.from_pretrained(str(checkpoint))
        at_once = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)  # finds both
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    for model in (adapted, by_name, at_once):
        assert (theirs(model) - expected).abs().max() < 1e-5
    assert (theirs(adapted.merge_and_unload()) - expected).abs().max() < 1e-5
    assert tokenizer.decode(tokenizer("the quick")["input_ids"]) == "the quick"
    claim = next(claim for claim in verify.CLAIMS if claim.name == "ours = transformers")
    (tested,) = verify.models_to_test(str(tmp_path / "runs" / "run"), CPU)
    found = list(verify.verify(claim, tested))
    assert {row.status for row in found} == {"ok"}, found


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_we_read_what_peft_wrote(rank_stabilised: bool, base: str, tmp_path: Path) -> None:
    import peft
    import transformers

    settings = peft.LoraConfig(
        r=5,
        lora_alpha=7,
        lora_dropout=0.2,
        target_modules=TARGETS[base],
        fan_in_fan_out=base == "gpt2",
        task_type="CAUSAL_LM",
        use_rslora=rank_stabilised,
    )
    frozen = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = peft.get_peft_model(frozen, settings)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)  # at first B is zero, and hides what is wrong
    model.save_pretrained(tmp_path / "adapter")
    found = ours(tmp_path / "adapter")
    assert (theirs(model) - found).abs().max() < 1e-5
    assert (ours(tmp_path / "base") - found).abs().max() > 1e-2
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    assert (ours(tmp_path / "merged") - found).abs().max() < 1e-5


def test_we_read_eva_and_settings_that_dont_concern_us(base: str, tmp_path: Path) -> None:
    """EVA gives layers ranks of their own, and always leaves its `eva_config`."""
    import peft
    import transformers

    frozen = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=TARGETS[base],
        fan_in_fan_out=base == "gpt2",
        task_type="CAUSAL_LM",
        init_lora_weights="eva",
        eva_config=peft.EvaConfig(rho=2.0),
        ensure_weight_tying=True,
    )
    model = peft.get_peft_model(frozen, settings)
    batches = [{"input_ids": tokens()} for _ in range(4)]
    peft.initialize_lora_eva_weights(model, dataloader=batches, show_progress_bar=False)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    assert model.peft_config["default"].rank_pattern
    found = ours(tmp_path / "adapter")
    assert (theirs(model) - found).abs().max() < 1e-5
    assert (ours(tmp_path / "base") - found).abs().max() > 1e-2


def test_the_names_and_settings_are_those_that_peft_writes(base: str, tmp_path: Path) -> None:
    """Read and written again by peft, a checkpoint has the same tensors under the same names, and
    the same settings.
    """
    import json

    import peft
    import transformers
    from safetensors.torch import load_file

    checkpoint = run_of_adapters(tmp_path, rank=2)
    frozen = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    peft.PeftModel.from_pretrained(frozen, str(checkpoint)).save_pretrained(tmp_path / "again")
    written, again = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (checkpoint, tmp_path / "again")
    )
    assert written.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in written.items())
    said, repeated = (
        json.loads((folder / "adapter_config.json").read_text("utf-8"))
        for folder in (checkpoint, tmp_path / "again")
    )
    assert {
        key: sorted(value) if key == "target_modules" else value for key, value in said.items()
    } == {key: sorted(repeated[key]) if key == "target_modules" else repeated[key] for key in said}
