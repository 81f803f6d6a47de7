"""`groundup import`: makes a model folder of what another program trained."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from groundup.errors import ExportError

if TYPE_CHECKING:
    from groundup.checkpoints.nanogpt import Imported
    from groundup.checkpoints.nanogpt_change import Change

imports = App(name="import", help="Make a model folder of what another program trained.")


@imports.command(name="nanogpt")
def import_nanogpt(folder: Path, /, *, out: Path) -> None:
    """Import a model that nanoGPT trained, once the script in docs/coming-from-nanogpt.md ran.

    Args:
        folder: The folder with nanogpt.safetensors and nanogpt.json, which that script writes. With
            nanoGPT's val.bin beside them, what changes is measured on it.
        out: The folder to write the model to.
    """
    from groundup.checkpoints.nanogpt import read_nanogpt
    from groundup.export.destination import appearing_whole

    if out.exists() or out.is_symlink():
        raise ExportError(f"{out} exists already. Choose another --out")
    imported = read_nanogpt(folder)
    with appearing_whole(out) as path:
        imported.save(path)
    for line in _said_of(imported, folder, out):
        sys.stdout.write(f"{line}\n")


def _said_of(imported: "Imported", folder: Path, out: Path) -> list[str]:
    """What was read, what was changed and by how much, and what can be done with it."""
    from groundup.models.registry import count_parameters
    from groundup.tokenizers.characters import CharacterTokenizer

    loss = f", validation loss {imported.best_loss:.4f}" if imported.best_loss is not None else ""
    size = f"gpt2, {count_parameters(imported.model):,} parameters"
    lines = [f"{out}: {size}, from {folder}: nanoGPT's iteration {imported.step:,.0f}{loss}"]
    of_characters = isinstance(imported.tokenizer, CharacterTokenizer)
    kinds = "characters of meta.pkl" if of_characters else "tokens of GPT-2"
    lines += [f"tokenizer: the {imported.tokenizer.vocab_size:,} {kinds}"]
    if imported.zero_biases:
        zeros = f"its {imported.zero_biases:,} biases are zeros here, and training moves them"
        lines += [f"biases: the checkpoint has none (bias=False): {zeros}"]
    lines += _said_of_change(imported.cut_rows, imported.change)
    model = shlex.quote(str(out))
    train = f"groundup train finetune --init {model} --corpus FOLDER"
    lines += [f"write with it: groundup generate {model}; train on nanoGPT's .bin files: {train}"]
    return lines


def _said_of_change(cut: int, change: "Change | None") -> list[str]:
    """What the cut rows and the other GELU change of the loss, and of the logits."""
    lines = []
    if cut:
        what = f"vocabulary: {cut:,} rows beyond the tokenizer are cut, other logits stay"
        lines += [what if change is None else f"{what}. {_share(change)}"]
    if change is not None:
        by = f"{change.largest_difference:.1e} at most, the loss by"
        lines += [
            "GELU: by the tanh formula, which nanoGPT had until June 2023. From the exact one that "
            f"it has since, a logit differs by {by} {change.loss_by_tanh - change.loss:+.1e}",
            f"loss: {change.loss:.6f} before (exact GELU, all rows), {change.loss_after:.6f} now, "
            f"on {change.tokens:,} tokens of {change.text}",
        ]
    return lines


def _share(change: "Change") -> str:
    """What of the probability the cut rows had, and by how much their absence lowers the loss."""
    less = f"without them the loss changes by {change.loss_after - change.loss_by_tanh:+.1e}"
    return f"Their probability was {change.cut_probability:.1e} on average; {less}"
