"""Makes groundup's GPT-2 of a model that nanoGPT trained, from two files that aren't pickles.

nanoGPT's own files are pickles, which are never opened here. The script in
docs/coming-from-nanogpt.md makes `nanogpt.safetensors` and `nanogpt.json` of them, where the model
was trained.
"""

import json
import re
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch

from groundup.checkpoints import layouts
from groundup.checkpoints.layouts import Settings
from groundup.checkpoints.layouts.gpt2 import CAUSAL_MASKS, GPT2Layout
from groundup.checkpoints.layouts.weight_files import (
    HEAD,
    PICKLES,
    Tensors,
    check,
    read_into,
    tensors_in,
)
from groundup.checkpoints.model_folder import save
from groundup.checkpoints.nanogpt_change import Change, change_of, text_for
from groundup.errors import CheckpointError, ConfigError
from groundup.files import read_json
from groundup.models import registry
from groundup.models.config import GPTConfig, parameter_count
from groundup.models.gpt2 import GPT2
from groundup.tokenizers.base import Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.gpt2 import gpt2_tokenizer

WEIGHTS, FACTS, VALIDATION = "nanogpt.safetensors", "nanogpt.json", "val.bin"
EMBEDDING = GPT2Layout.embedding
SHAPE = {name: name for name in ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")}
ARGUMENTS = {*SHAPE, "bias", "dropout"}  # all that nanoGPT's model has
WRAPPERS = re.compile(r"(?:_orig_mod\.|module\.)+")  # torch.compile's and DDP's before names
MOST_PADDING = 512  # rows: vocabularies are padded to multiples of this at most
EXPORT = "run the script in docs/coming-from-nanogpt.md where you trained"


@dataclass(frozen=True)
class Imported:
    """A model that nanoGPT trained, as groundup's GPT-2.

    Args:
        model: The model in eval mode, with as many rows of logits as the tokenizer has tokens.
        tokenizer: The characters of `meta.pkl`, or GPT-2's tokenizer.
        document_start: The token before each document in nanoGPT's data, or None.
        step: The number of nanoGPT's iterations.
        best_loss: The best validation loss that nanoGPT measured, in nats a token, or None.
        zero_biases: The number of biases that the checkpoint lacks, which are zeros here.
        cut_rows: The number of rows of the vocabulary that stood for no token, and are left out.
        change: What the new form of the model changes, or None where no text can be read.
    """

    model: GPT2
    tokenizer: Tokenizer
    document_start: int | None
    step: float
    best_loss: float | None
    zero_biases: int
    cut_rows: int
    change: Change | None

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer to a folder that groundup and transformers load."""
        save(folder, self.model, self.tokenizer, self.document_start)


def read_nanogpt(folder: Path) -> Imported:
    """Read a model that nanoGPT trained from the files that the script of the docs wrote.

    Args:
        folder: The folder with `nanogpt.safetensors` and `nanogpt.json`. If it has nanoGPT's
            `val.bin` too, what changes is measured on its first 4,096 tokens, else on a sentence.

    Raises:
        CheckpointError: A file is missing or damaged, or describes what isn't nanoGPT's model.
        CorpusError: `val.bin` is damaged or has other tokens, or GPT-2's tokenizer can't be had.
    """
    facts = _read_facts(folder)
    path, arguments = folder / FACTS, facts["model_args"]
    config = _config_of(arguments, path)
    tokenizer = _tokenizer_of(facts, path)
    if not 0 <= (cut := config.vocab_size - tokenizer.vocab_size) < MOST_PADDING:
        its = "characters that it lists" if facts.get("characters") else "tokens of GPT-2"
        raise CheckpointError(
            f"{path} says vocab_size = {config.vocab_size:,}, which doesn't fit the "
            f"{tokenizer.vocab_size:,} {its}. Export again with the folder of the data that the "
            "model was trained on, whose meta.pkl has its characters"
        )
    model, zeros = _read_model(folder, config, arguments.get("bias", False) is True)
    text = text_for(tokenizer, folder / VALIDATION)
    change = change_of(model, tokenizer.vocab_size, text) if len(text.tokens) > 1 else None
    # nanoGPT ends the documents of a corpus by it, if there are several
    start = tokenizer.end_of_text if not text.is_whole or text.has_ends else None
    step, best = facts.get("iter_num"), facts.get("best_val_loss")
    done = layouts.number(step, "iter_num", path) if step is not None else 0
    loss = layouts.number(best, "best_val_loss", path) if best is not None else None
    kept = _without_padding(model, tokenizer.vocab_size)
    return Imported(kept, tokenizer, start, done, loss, zeros, cut, change)


def _read_facts(folder: Path) -> Settings:
    """What `nanogpt.json` says, once both files are known to be there."""
    if folder.suffix in PICKLES and folder.is_file():
        raise _pickled(folder, "is")
    for name in (WEIGHTS, FACTS):
        if not (folder / name).is_file():
            found = sorted(each for each in folder.glob("*") if each.suffix in PICKLES - {".bin"})
            if found:
                raise _pickled(found[0], f"isn't read in place of {name}: it is")
            raise CheckpointError(f"{folder} has no {name}: {EXPORT}, it writes this file")
    path = folder / FACTS
    try:
        facts = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} isn't valid JSON: {error}. To make it again {EXPORT}"
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model_args"), dict):
        raise CheckpointError(f"{path} has no model_args, nanoGPT's shape: {EXPORT}")
    return facts


def _pickled(path: Path, what: str) -> CheckpointError:
    never = "a pickle, which can run any code when it is opened, so groundup never opens one"
    return CheckpointError(f"{path} {what} {never}. To make safetensors of it {EXPORT}")


def _config_of(arguments: Settings, path: Path) -> GPTConfig:
    """The shape that nanoGPT's `model_args` state."""
    if others := sorted(set(arguments) - ARGUMENTS):
        raise CheckpointError(
            f"{path}: model_args has {others[0]}, which nanoGPT's model doesn't have. Of a changed "
            "model groundup can't compute the same"
        )
    shape = layouts.whole_numbers(arguments, SHAPE, path)
    dropout = layouts.number(arguments.get("dropout", 0.0), "dropout", path)
    try:
        return GPTConfig(dropout=dropout, **shape)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _tokenizer_of(facts: Settings, path: Path) -> Tokenizer:
    """The tokenizer of the listed characters, which must be numbered as ours, or GPT-2's."""
    if (characters := facts.get("characters")) is None:
        return gpt2_tokenizer()
    if not isinstance(characters, list) or not characters:
        raise CheckpointError(f"{path}: characters must be a list, or null for GPT-2's tokens")
    for token, character in enumerate(characters):
        is_text = isinstance(character, str) and len(character) == 1
        if not is_text or 0xD800 <= ord(character) < 0xE000:  # half of a surrogate pair
            shown = json.dumps(character)[:40]
            raise CheckpointError(f"{path}: token {token} is {shown}, and not one character")
        if token and character <= characters[token - 1]:
            raise CheckpointError(
                f"{path}: {character!r} follows {characters[token - 1]!r}, but groundup numbers "
                "characters in the order of their code points, as nanoGPT's prepare.py does "
                "(sorted): prepare the data so, and train again"
            )
    return CharacterTokenizer(characters)


def _read_model(folder: Path, config: GPTConfig, has_biases: bool) -> tuple[GPT2, int]:
    """The model with all of its rows, and the number of biases that are zero for lack of any."""
    path, file = folder / WEIGHTS, folder / FACTS
    stored = _named_as_ours(path)
    if (count := parameter_count("gpt2", config)) > path.stat().st_size:
        raise CheckpointError(f"{file} describes {count:,} parameters, more than {path} has bytes")
    expected = registry.build_on_meta("gpt2", config).state_dict()
    if surplus := sorted(set(stored) - set(expected)):
        raise CheckpointError(f"{path} has a tensor that nanoGPT's model doesn't: {surplus[0]}")
    missing = sorted(set(expected) - set(stored) - {HEAD})
    zeros = [] if has_biases else [name for name in missing if name.endswith(".bias")]
    if lacking := [name for name in missing if name not in zeros]:
        raise CheckpointError(
            f"{path} lacks the tensor {lacking[0]}: {EXPORT}, from a whole ckpt.pt"
        )
    for name, tensor in stored.items():
        check(tensor, name, expected[name].shape, FACTS)
    precision = reduce(torch.promote_types, (tensor.dtype for tensor in stored.values()))
    model = registry.allocated(registry.build_on_meta("gpt2", config), precision)
    assert isinstance(model, GPT2)
    weights = model.state_dict()
    read_into({name: weights[name] for name in stored if name != HEAD}, stored)
    for name in zeros:
        weights[name].zero_()
    if HEAD in stored:
        head = {HEAD: torch.empty_like(weights[EMBEDDING])}
        read_into(head, {HEAD: stored[HEAD]})
        if not torch.equal(head[HEAD], weights[EMBEDDING]):
            raise CheckpointError(
                f"{path}: {HEAD} differs from {EMBEDDING}, in nanoGPT they are one"
            )
    for name, weight in weights.items():
        if not weight.isfinite().all():
            remedy = "export a checkpoint from before the training diverged"
            raise CheckpointError(f"{path}: {name} has a NaN or an infinite number: {remedy}")
    return model.eval(), len(zeros)


def _named_as_ours(path: Path) -> Tensors:
    """The tensors without what wrappers put before their names, and without causal masks."""
    found: Tensors = {}
    for stated, tensor in tensors_in(path).items():
        if CAUSAL_MASKS.fullmatch(name := WRAPPERS.sub("", stated)):
            continue
        if name in found:
            raise CheckpointError(f"{path} has {name} twice, also as {stated}")
        found[name] = tensor
    return found


def _without_padding(model: GPT2, vocab_size: int) -> GPT2:
    """The same model with the first rows of its vocabulary alone."""
    cut = registry.build_on_meta("gpt2", replace(model.config, vocab_size=vocab_size))
    assert isinstance(cut, GPT2)
    weights = model.state_dict()
    weights[EMBEDDING] = weights[HEAD] = weights[EMBEDDING][:vocab_size].clone()
    cut.load_state_dict(weights, assign=True)
    cut.lm_head.weight = cut.transformer.wte.weight  # assigning has untied them
    return cut.eval()
