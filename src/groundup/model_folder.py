"""A model as a Hugging Face folder and back: names, transposes, config, tokenizer. Owns `load`."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup import checkpoint
from groundup.config import GPTConfig, gpt_parameter_count
from groundup.errors import CheckpointError, ConfigError, ForeignTokenizerError
from groundup.models.bigram import Bigram
from groundup.models.correspondence import Weights, gpt2_from_readable, readable_from_gpt2
from groundup.models.gpt2 import GPT2
from groundup.models.readable import ReadableGPT
from groundup.tokenizers.characters import TOKENIZER_FILE, CharacterTokenizer

Model = Bigram | GPT2 | ReadableGPT
MODELS: dict[str, type[Model]] = {"bigram": Bigram, "readable": ReadableGPT, "gpt2": GPT2}

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
LARGEST_BIGRAM = 4096  # its one-hot embedding is as large as its table
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # Hugging Face's Conv1D keeps [in, out]
FIXED = {  # what gpt2.py computes, under the names of Hugging Face's config; any other value is another model
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def architecture_of(model: Model) -> str:
    """The name under which the model's class is saved."""
    return next(name for name, model_class in MODELS.items() if type(model) is model_class)


def save(folder: Path, model: Model, tokenizer: CharacterTokenizer | None) -> None:
    """Write a folder that `load` and transformers read. Raises CheckpointError for a bigram above 4,096 tokens."""
    if isinstance(model, Bigram) and model.config.vocab_size > LARGEST_BIGRAM:
        raise CheckpointError(
            f"a bigram of vocab_size = {model.config.vocab_size:,} can't be saved: its one-hot embedding grows with "
            f"the square. Choose a tokenizer of at most {LARGEST_BIGRAM:,} tokens."
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in to_hugging_face(model).items()}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    config = json.dumps(_hugging_face_config(model) | {"dtype": dtype}, indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(config, "utf-8")
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod((folder / CONFIG_FILE).stat().st_mode)  # safetensors lets nobody else read it
    if tokenizer is not None:
        tokenizer.save(folder)


def load(path: str | Path, report: Callable[[str], None] = warnings.warn) -> tuple[Model, CharacterTokenizer | None]:
    """A run's best checkpoint, or any model folder: (model in eval mode on the CPU, tokenizer or None).

    A damaged best checkpoint is reported and the newest intact one loaded instead. Raises CheckpointError.
    """
    folder = find_model(Path(path), report)
    model = load_model(folder)
    tokenizer = None
    if (folder / TOKENIZER_FILE).is_file():
        try:
            tokenizer = CharacterTokenizer.from_folder(folder)
        except ForeignTokenizerError as error:
            report(f"{error}. The model is loaded without it.")
    if tokenizer is not None and tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE} has {tokenizer.vocab_size} tokens, but {CONFIG_FILE} says vocab_size = "
            f"{model.config.vocab_size}: they belong to different models"
        )
    return model, tokenizer


def find_model(path: Path, report: Callable[[str], None]) -> Path:
    """The model folder that `path` means: itself, or a run's best intact checkpoint. Raises CheckpointError."""
    if path.suffix in PICKLES and path.is_file():
        raise _refuse_pickle(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is neither a run nor a model folder. List the runs with: groundup runs")
    checkpoints = path / "checkpoints"
    if not checkpoints.is_dir():
        if (path / checkpoint.MANIFEST).is_file():
            checkpoint.verify(path)
        return path
    best = [(checkpoints / "best").resolve()] if (checkpoints / "best").is_symlink() else []
    folder = checkpoint.newest_valid([*best, *checkpoint.steps(checkpoints)], report)
    if folder is None:
        raise CheckpointError(f"{path} has no intact checkpoint to load. Train on with: groundup train --resume {path}")
    return folder


def load_model(folder: Path) -> Model:
    """The model of a folder in Hugging Face's GPT-2 layout, in eval mode. Raises CheckpointError."""
    settings = _read_config(folder)
    model = _build(settings, folder / CONFIG_FILE)
    weights = _read_weights(folder, {name: tensor.shape for name, tensor in to_hugging_face(model).items()})
    model.to(next(iter(weights.values())).dtype)
    model.load_state_dict(_from_hugging_face(model, weights, folder / WEIGHTS_FILE))
    return model.eval()


def to_hugging_face(model: Model) -> Weights:
    """The model's weights under Hugging Face's GPT-2 names and orientation; a tied head is left out."""
    weights = model.state_dict()
    if isinstance(model, Bigram):
        return _zero_layer_gpt2(model.config, weights["head.weight"])
    if isinstance(model, ReadableGPT):
        weights = gpt2_from_readable(weights, model.config.n_layer, model.config.n_head)
    return {
        name: tensor.T if name.endswith(TRANSPOSED) else tensor
        for name, tensor in weights.items()
        if name != "lm_head.weight"
    }


def _from_hugging_face(model: Model, tensors: Weights, path: Path) -> Weights:
    """What `to_hugging_face` gave, as the model's own state dict."""
    if isinstance(model, Bigram):
        table = tensors["lm_head.weight"]
        if any(
            not torch.equal(tensor, tensors[name]) for name, tensor in _zero_layer_gpt2(model.config, table).items()
        ):
            raise CheckpointError(f"{path} is no longer a bigram: its embedding or norm was changed. Load it as gpt2.")
        return {"head.weight": table}
    weights = {name: tensor.T if name.endswith(TRANSPOSED) else tensor for name, tensor in tensors.items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    if isinstance(model, ReadableGPT):
        return readable_from_gpt2(weights, model.config.n_layer, model.config.n_head)
    return weights


def _zero_layer_gpt2(config: GPTConfig, table: Tensor) -> Weights:
    """The bigram as the GPT-2 without layers that it is: the last norm gives a one-hot vector back unchanged."""
    vocab_size = config.vocab_size
    mean = 1.0 / vocab_size
    deviation = math.sqrt(mean * (1.0 - mean) + 1e-5)
    return {
        "transformer.wte.weight": torch.eye(vocab_size, dtype=table.dtype, device=table.device),
        "transformer.wpe.weight": table.new_zeros(config.block_size, vocab_size),
        "transformer.ln_f.weight": table.new_full((vocab_size,), deviation),
        "transformer.ln_f.bias": table.new_full((vocab_size,), mean),
        "lm_head.weight": table,
    }


def _hugging_face_config(model: Model) -> dict[str, Any]:
    """`config.json` as transformers wants it; without the null token ids and dropouts it warns or drops out at 0.1."""
    config, is_bigram = model.config, isinstance(model, Bigram)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "groundup_model": architecture_of(model),
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.vocab_size if is_bigram else config.n_embd,
        "n_layer": 0 if is_bigram else config.n_layer,
        "n_head": 1 if is_bigram else config.n_head,
        "n_inner": None,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": not is_bigram,
        "bos_token_id": None,
        "eos_token_id": None,
        **{name: values[0] for name, values in FIXED.items()},
    }


def _read_config(folder: Path) -> dict[str, Any]:
    """`config.json` as a dictionary that says GPT-2. Raises CheckpointError."""
    path = folder / CONFIG_FILE
    try:
        settings = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {CONFIG_FILE}: it isn't a model folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} isn't valid JSON: {error}") from error
    if not isinstance(settings, dict) or settings.get("model_type") != "gpt2":
        found = settings.get("model_type") if isinstance(settings, dict) else type(settings).__name__
        raise CheckpointError(f"{path}: model_type is {found!r}; groundup loads 'gpt2'")
    name = settings.get("groundup_model", "gpt2")
    if name not in MODELS:
        raise CheckpointError(f"{path}: groundup_model is {name!r}; this version knows {', '.join(MODELS)}")
    for key, accepted in FIXED.items():
        if (value := settings.get(key, accepted[0])) not in accepted:
            raise CheckpointError(f"{path}: {key} = {value!r}, but groundup's GPT-2 computes with {accepted[0]!r}")
    if settings.get("tie_word_embeddings", True) is not (name != "bigram"):
        raise CheckpointError(f"{path}: tie_word_embeddings must be {name != 'bigram'} for a {name} model")
    return settings


def _build(settings: dict[str, Any], path: Path) -> Model:
    """A model of the shape that `config.json` states. Raises CheckpointError."""
    name = settings.get("groundup_model", "gpt2")
    names = {"block_size": "n_positions", "vocab_size": "vocab_size"}
    if name != "bigram":
        names |= {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd"}
    shape: dict[str, Any] = {}
    for field, key in names.items():
        if type(value := settings.get(key)) is not int:
            raise CheckpointError(f"{path}: {key} must be a whole number, not {value!r}")
        shape[field] = value
    dropouts = {settings.get(key, 0.1) for key in ("embd_pdrop", "attn_pdrop", "resid_pdrop")}
    if len(dropouts) != 1 or type(dropout := dropouts.pop()) not in (int, float):
        raise CheckpointError(
            f"{path}: embd_pdrop, attn_pdrop and resid_pdrop must be one number; groundup has one dropout"
        )
    if settings.get("n_inner") not in (None, 4 * settings.get("n_embd", 0)):
        raise CheckpointError(f"{path}: n_inner = {settings['n_inner']!r}, but groundup's MLP is 4 * n_embd wide")
    try:
        config = GPTConfig(dropout=float(dropout), **shape)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    parameters = config.vocab_size**2 if name == "bigram" else gpt_parameter_count(config)
    weights = path.with_name(WEIGHTS_FILE)
    if weights.is_file() and parameters > weights.stat().st_size:  # a byte each is the least
        raise CheckpointError(f"{path} describes {parameters:,} parameters, more than {WEIGHTS_FILE} has bytes")
    return MODELS[name](config)


def _read_weights(folder: Path, expected: dict[str, torch.Size]) -> Weights:
    """The tensors of `model.safetensors`, each of its expected name and shape. Raises CheckpointError."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickles = [file for file in folder.iterdir() if file.suffix in PICKLES]
        if pickles:
            raise _refuse_pickle(pickles[0])
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}: it isn't a model folder")
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            for name, shape in expected.items():
                if name not in found:
                    raise CheckpointError(f"{path} lacks the tensor {name} {list(shape)}")
                if found[name] != shape:
                    raise CheckpointError(
                        f"{path}: tensor {name} is {list(found[name])}, but {CONFIG_FILE} makes it {list(shape)}"
                    )
            if surplus := sorted(set(found) - set(expected)):
                raise CheckpointError(f"{path} has a tensor that the model doesn't: {surplus[0]}")
            return {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise CheckpointError(f"{path} isn't a valid safetensors file: {error}") from error


def _refuse_pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a pickle, which can run any code when it is opened, so groundup never opens one. Convert it where "
        "you trust it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW) writes safetensors"
    )
