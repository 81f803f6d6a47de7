"""LoRA as a run: adapters beside a model that stays as it is, saved as `peft` has them, merged when
they are loaded.
"""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from commands import checkpoint, groundup, metrics, tensors, trained, write_text
from conftest import error_line, some_text
from groundup import Modern, ModernConfig, load
from groundup.checkpoints import model_folder
from groundup.errors import GroundupError
from groundup.models.gpt2 import GPT2
from groundup.models.registry import Model
from shard_files import learned

transformers = pytest.importorskip("transformers")

FAST = [
    *(
        "--train.compile",
        "off",
        "--train.threads",
        "1",
        "--train.precision",
        "float32",
        "--train.batch-size",
        "8",
    ),
    *("--eval.every", "20", "--eval.sample-length", "5", "--eval.tokens", "2048"),
]
LORA = ["--corpus", "other.txt", *FAST, "--optim.learning-rate", 1e-2]
FILES = {"adapter_model.safetensors", "adapter_config.json", "base.json", "merged_config.json"}
FILES |= {"tokenizer.json", "tokenizer_config.json", "training", "manifest.json"}
FILES |= {"generation_config.json"}  # which transformers has written beside the base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, a GPT-2 of transformers that was briefly trained, and `lora`, a run of adapters on it
    on another text.
    """
    path, tokenizer = tmp_path_factory.mktemp("lora"), learned()
    write_text(path)
    (path / "other.txt").write_text(" ".join(reversed(some_text().split(" "))).upper(), "utf-8")
    shape = {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "n_positions": 48,
        "vocab_size": tokenizer.vocab_size,
    }
    torch.manual_seed(0)
    config = transformers.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)
    transformers.GPT2LMHeadModel(config).save_pretrained(path / "theirs")
    tokenizer.save(path / "theirs")
    flags = ["--corpus", "text.txt", *FAST, "--steps", 40, "--optim.learning-rate", 1e-2]
    trained("finetune", "--init", "theirs", *flags, "--name", "trained", folder=path)
    assert (
        groundup("export", "trained", "--to", "folder", "--out", "base", folder=path).returncode
        == 0
    )
    finished = trained(
        "finetune",
        "--init",
        "base",
        *LORA,
        "--lora.rank",
        4,
        "--steps",
        40,
        "--name",
        "lora",
        folder=path,
    )
    (path / "said.txt").write_text(finished.stdout, "utf-8")
    return path


def newest(folder: Path, run: str = "lora") -> Path:
    return checkpoint(folder / "runs" / run, 40)


def logits(model: Model, time: int = 20) -> torch.Tensor:
    batch = torch.randint(
        model.config.vocab_size, (3, time), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        return model(batch)[0]


def test_the_loss_falls_and_only_adapters_were_trained_and_kept(folder: Path) -> None:
    said = (folder / "said.txt").read_text("utf-8")
    model = load(folder / "base")[0]
    parameters, adapters = (
        sum(parameter.numel() for parameter in model.parameters()),
        2 * 4 * 16 * 32,
    )
    share = adapters / (parameters + adapters)
    assert f"{adapters:,} of {parameters + adapters:,} parameters train ({share:.2%})" in said
    losses = [line["validation_loss"] for line in metrics(folder / "runs" / "lora", "evaluation")]
    assert losses[-1] < losses[0] - 0.3, losses
    assert {path.name for path in newest(folder).iterdir()} == FILES
    saved = tensors(newest(folder) / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == adapters
    moments = tensors(newest(folder) / "training" / "optimizer.safetensors")
    assert {name.rpartition(":")[0] for name in moments} == {
        name.removeprefix("base_model.model.") for name in saved
    }
    facts = json.loads((folder / "runs" / "lora" / "run.json").read_text("utf-8"))
    assert (facts["parameters"], facts["trained_parameters"]) == (parameters, adapters)


def test_what_is_loaded_is_base_plus_adapter(folder: Path) -> None:
    """By the formula, from the files alone: W + 16 / 4 B A, which transformers' Conv1D has
    turned.
    """
    base, saved = (
        load_file(folder / "base" / "model.safetensors"),
        tensors(newest(folder) / "adapter_model.safetensors"),
    )
    for name in {name.partition(".lora_")[0] for name in saved}:
        product = saved[f"{name}.lora_B.weight"].double() @ saved[f"{name}.lora_A.weight"].double()
        weight = base[f"{name.removeprefix('base_model.model.')}.weight"]
        assert product.abs().max() > 1e-3
        weight += (4.0 * product).T.float()
    expected = transformers.GPT2LMHeadModel.from_pretrained(folder / "base").eval()
    expected.load_state_dict(base | {"lm_head.weight": base["transformer.wte.weight"]})
    model, tokenizer = load(folder / "runs" / "lora")
    assert isinstance(model, GPT2)
    assert tokenizer is not None
    assert all(parameter.requires_grad for parameter in model.parameters())
    batch = torch.randint(
        model.config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(0)
    )
    assert (expected(batch).logits - logits(model)).abs().max() < 1e-5
    assert (logits(load(folder / "base")[0]) - logits(model)).abs().max() > 1e-2


def test_a_merged_folder_is_a_model_of_its_own(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished = groundup("export", "lora", "--to", "folder", folder=folder)
    assert finished.returncode == 0, finished.stderr
    assert "its adapters merged" in finished.stdout
    merged = folder / "lora-model"
    assert {path.name for path in merged.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        "generation_config.json",
    }
    model, ours = load(folder / "runs" / "lora")[0], load(merged)[0]
    assert torch.equal(logits(model), logits(ours))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(merged).eval()
    batch = torch.randint(
        model.config.vocab_size, (3, 20), generator=torch.Generator().manual_seed(0)
    )
    assert (theirs(batch).logits - logits(model)).abs().max() < 1e-5
    assert not caplog.records
    again = groundup("export", "lora", "--to", "folder", folder=folder)
    assert "is a folder that exists already" in error_line(again)


def test_the_hub_gets_the_merged_model(folder: Path) -> None:
    finished = groundup(
        "export", "lora", "--to", "hub", "someone/small", "--out", "shown", folder=folder
    )
    assert finished.returncode == 0, finished.stderr
    assert torch.equal(logits(load(folder / "shown")[0]), logits(load(folder / "runs" / "lora")[0]))
    card = (folder / "shown" / "README.md").read_text("utf-8")
    assert (
        "It began with the weights of `base`. Only adapters of rank 4 were trained (LoRA), and "
        "then merged." in card
    )


def test_a_run_goes_on_from_what_adapters_made(folder: Path) -> None:
    """Without lora.rank: then the merged model trains whole."""
    flags = ["--corpus", "other.txt", *FAST, "--steps", 2, "--name", "whole"]
    trained("finetune", "--init", "lora", *flags, folder=folder)
    began = metrics(folder / "runs" / "whole", "evaluation")[0]["validation_loss"]
    assert began == pytest.approx(
        metrics(folder / "runs" / "lora", "evaluation")[-1]["validation_loss"], abs=1e-4
    )
    assert (checkpoint(folder / "runs" / "whole", 2) / "model.safetensors").is_file()


def test_modern_models_have_them_too_in_a_shorter_context_and_bfloat16(folder: Path) -> None:
    tokenizer = learned()
    config = ModernConfig(48, tokenizer.vocab_size, 2, 4, 2, 32, head_dim=6, n_inner=40, tied=False)
    torch.manual_seed(0)
    model_folder.save(folder / "qwen", Modern(config), tokenizer)
    flags = ["bfloat16" if word == "float32" else word for word in LORA]
    flags += ["--lora.rank", 4, "--steps", 4, "--model.block-size", 24, "--name", "modern"]
    trained("finetune", "--init", "qwen", *flags, folder=folder)
    model = load(folder / "runs" / "modern")[0]
    assert model.config == ModernConfig(
        24, tokenizer.vocab_size, 2, 4, 2, 32, head_dim=6, n_inner=40, tied=False, dropout=0.1
    )
    stated = json.loads(
        (checkpoint(folder / "runs/modern", 4) / "adapter_config.json").read_text("utf-8")
    )
    assert stated["fan_in_fan_out"] is False
    assert stated["base_model_name_or_path"] == str((folder / "qwen").resolve())
    assert (logits(model) - logits(load(folder / "qwen")[0])).abs().max() > 1e-4


def test_the_first_factor_is_drawn_by_the_seed(folder: Path) -> None:
    """Where nothing learns, it stays as it was drawn."""
    still = [
        "--optim.min-learning-rate",
        0,
        "--optim.weight-decay",
        0,
        "--lora.rank",
        4,
        "--steps",
        1,
    ]
    words = [1e-12 if word == 1e-2 else word for word in LORA]
    first = []
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        trained(
            "finetune",
            "--init",
            "base",
            *words,
            *still,
            "--seed",
            seed,
            "--name",
            name,
            folder=folder,
        )
        saved = tensors(checkpoint(folder / "runs" / name, 1) / "adapter_model.safetensors")
        first.append(saved[f"{QKV}.lora_A.weight"])
    assert torch.equal(first[0], first[1])
    assert (first[0] - first[2]).abs().max() > 0.01


@pytest.mark.parametrize("flags", [[], ["--gpu", "h100"]])
def test_a_plan_knows_what_is_frozen(flags: list[str], folder: Path) -> None:
    found = {}
    for rank in (0, 4):
        words = [
            "--corpus",
            "text.txt",
            *FAST,
            "--train.init",
            "base",
            "--lora.rank",
            rank,
            "--vocab-size",
            300,
        ]
        finished = groundup("plan", "finetune", *words, *flags, "--json", folder=folder)
        assert finished.returncode == 0, finished.stderr
        found[rank] = json.loads(finished.stdout)
    assert found[4]["operations_per_token"] < found[0]["operations_per_token"]
    if flags:  # on paper: 4 bytes for a weight, 12 more for one that trains
        parameters, adapters = found[0]["parameters"], 2 * 4 * 16 * 32
        assert [found[rank]["fixed_memory"] for rank in (0, 4)] == [
            16 * parameters,
            4 * parameters + 16 * adapters,
        ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--init", "", "--lora.rank", 4],
            ["lora.rank = 4 adapts a model that has learned", "(--lora.rank)", "--init gpt2"],
        ),
        (
            ["--init", "readable", "--lora.rank", 4],
            ["lora.rank = 4 is for gpt2 and modern, not for readable"],
        ),
        (
            ["--init", "base", "--lora.rank", 33],
            ["lora.rank = 33 is more than 32", "smallest matrix"],
        ),
        (
            ["--init", "base", "--lora.rank", 4, "--optim.optimizer", "muon"],
            ["optim.optimizer = muon", "Choose adamw"],
        ),
        (
            ["--init", "lora", "--lora.rank", 4],
            ["train.init = lora is an adapter itself", "groundup export lora --to folder"],
        ),
    ],
)
def test_what_cannot_be_adapted_is_refused(
    arguments: list[object], said: list[str], folder: Path
) -> None:
    if "readable" in arguments and not (folder / "readable").exists():
        shutil.copytree(folder / "base", folder / "readable")
        change(folder / "readable" / "config.json", groundup_model="readable")
    line = error_line(groundup("train", "finetune", *LORA, "--steps", 1, *arguments, folder=folder))
    for part in said:
        assert part in line
    assert not (folder / "runs" / "finetune-1").exists()


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


# -- the base, elsewhere


def moved(folder: Path, to: Path) -> Path:
    """The base and the run, in another folder."""
    shutil.copytree(folder / "base", to / "base")
    shutil.copytree(folder / "runs" / "lora", to / "runs" / "lora", symlinks=True)
    for name in ("text.txt", "other.txt"):
        shutil.copy(folder / name, to / name)
    return to


def test_a_base_that_is_gone_or_changed_is_named(folder: Path, tmp_path: Path) -> None:
    there, file = moved(folder, tmp_path), folder / "base" / "model.safetensors"
    away = folder / "base-away"
    (folder / "base").rename(away)
    try:
        # as train.init calls it
        assert groundup("generate", "lora", "--length", 1, folder=there).returncode == 0
        (there / "base").rename(there / "hidden")
        line = error_line(groundup("generate", "lora", folder=there))
        assert (
            f"is an adapter for the model {folder / 'base'}, which isn't there: put it back" in line
        )
        assert "or where base finds it" in line
        (there / "hidden").rename(there / "base")
        weights = load_file(there / "base" / "model.safetensors")
        weights["transformer.ln_f.bias"][0] += 1e-6
        save_file(weights, there / "base" / "model.safetensors", metadata={"format": "pt"})
        for command in (["generate", "lora"], ["train", "--resume", "lora", "--steps", 41]):
            line = error_line(groundup(*command, folder=there))
            assert "base/model.safetensors isn't what the adapter in" in line
            assert "SHA-256" in line
        shutil.copy(away / "model.safetensors", there / "base" / "model.safetensors")
        change(there / "base" / "config.json", n_head=4)
        line = error_line(groundup("generate", "lora", folder=there))
        assert "base/config.json isn't what the adapter in" in line
    finally:
        away.rename(folder / "base")
    assert file.is_file()


# -- folders that peft wrote


def written(folder: Path, to: Path) -> Path:
    """What peft would have written: the two files alone."""
    to.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(newest(folder) / name, to / name)
    return to


def test_a_folder_of_the_two_files_alone_takes_the_rest_from_its_base(
    folder: Path, tmp_path: Path
) -> None:
    found = written(folder, tmp_path / "adapter")
    assert torch.equal(logits(load(found)[0]), logits(load(folder / "runs" / "lora")[0]))
    finished = groundup("generate", found, "--length", 5, "--seed", 1, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    flags = ["--corpus", folder / "other.txt", *FAST, "--steps", 1]
    trained("finetune", "--init", found, *flags, folder=tmp_path)
    change(found / "adapter_config.json", use_rslora=True, lora_alpha=8)  # 8 / sqrt(4) = 16 / 4
    assert torch.equal(logits(load(found)[0]), logits(load(folder / "runs" / "lora")[0]))


Edit = Callable[[dict[str, torch.Tensor]], None]
QKV = "base_model.model.transformer.h.0.attn.c_attn"
UNREADABLE: dict[str, tuple[dict[str, object], Edit | None, str]] = {
    "dora": ({"use_dora": True}, None, "use_dora = True, but groundup computes plain LoRA"),
    "modules": ({"modules_to_save": ["lm_head"]}, None, "modules_to_save = ['lm_head']"),
    "bias": ({"bias": "lora_only"}, None, "bias = 'lora_only'"),
    "ranks": ({"rank_pattern": {"c_fc": 2}}, None, "is [4, 32], but adapter_config.json with"),
    "rank below 1": ({"rank_pattern": {"c_fc": 0}}, None, "c_fc must be a whole number from 1"),
    "patterns": ({"alpha_pattern": {"c_f.*": 2}}, None, "by their names, not by patterns"),
    "something new": ({"use_tomorrow": 1}, None, "use_tomorrow = 1"),
    "pissa": (
        {"init_lora_weights": "pissa"},
        None,
        "init_lora_weights = 'pissa' changes the base's own weights",
    ),
    "another kind": (
        {"peft_type": "IA3"},
        None,
        "peft_type is 'IA3'; groundup loads adapters of 'LORA'",
    ),
    "no rank": ({"r": 0}, None, "r must be a whole number from 1, not 0"),
    "another rank": (
        {"r": 2},
        None,
        "is [4, 32], but adapter_config.json with the model that it is for makes it [2",
    ),
    "no alpha": ({"lora_alpha": "x"}, None, "lora_alpha must be a number, not 'x'"),
    "no base": ({"base_model_name_or_path": None}, None, "base_model_name_or_path = None"),
    "lost base": (
        {"base_model_name_or_path": "/no/such"},
        None,
        "for the model /no/such, which isn't there",
    ),
    "half": (
        {},
        lambda found: found.__delitem__(f"{QKV}.lora_B.weight"),
        "lacks the tensor transformer.h.0.attn",
    ),
    "head": (
        {},
        lambda found: found.update({"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)}),
        "lm_head.lora_A.weight, which isn't for a linear layer of the model's blocks",
    ),
    "embedding": (
        {},
        lambda found: found.update(
            {"base_model.model.transformer.wte.lora_embedding_A": torch.ones(4, 300)}
        ),
        "wte.lora_embedding_A, which isn't for",
    ),
    "empty": ({}, lambda found: found.clear(), "has no tensors"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_not_plain_lora_is_refused_by_name(case: str, folder: Path, tmp_path: Path) -> None:
    found, (changes, edit, said) = written(folder, tmp_path / "adapter"), UNREADABLE[case]
    change(found / "adapter_config.json", **changes)
    if edit is not None:
        content = load_file(found / "adapter_model.safetensors")
        edit(content)
        save_file(content, found / "adapter_model.safetensors")
    assert said in error_line(groundup("generate", found, folder=tmp_path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("x" * 5000),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    "r",
    "lora_alpha",
    "base_model_name_or_path",
    "revision",
    "peft_type",
    "use_rslora",
    "init_lora_weights",
    "bias",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1))
def test_whatever_an_adapter_config_says_it_loads_or_is_refused(
    changes: dict[str, Any], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = written(folder, tmp_path_factory.mktemp("fuzzed") / "adapter")
    change(found / "adapter_config.json", **changes)
    with contextlib.suppress(GroundupError):
        assert load(found)[0].config.n_embd == 32


def test_pickles_and_doubles_and_adapters_of_adapters_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    pickled = written(folder, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    assert "adapter_model.bin is a pickle" in error_line(
        groundup("generate", pickled, folder=tmp_path)
    )
    both = written(folder, tmp_path / "both")
    shutil.copy(folder / "base" / "model.safetensors", both)
    assert "holds a whole model, model.safetensors, and an adapter" in error_line(
        groundup("generate", both, folder=tmp_path)
    )
    twice = written(folder, tmp_path / "twice")
    change(twice / "adapter_config.json", base_model_name_or_path=str(pickled))
    assert "which is one itself. Merge that first" in error_line(
        groundup("generate", twice, folder=tmp_path)
    )
