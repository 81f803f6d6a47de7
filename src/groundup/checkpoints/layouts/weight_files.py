"""The tensors of a model folder: checked by name first, then read into the model's memory.

A tensor is read piece by piece into memory that the model has already, so that loading needs little
more memory than the weights. The library safetensors checks the files. Its own readers aren't used,
because they return whole tensors or map the file into the process's memory.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.checkpoints.layouts import Layout, Weights, read_stated
from groundup.errors import CheckpointError
from groundup.files import parse_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
PIECE = 1 << 23  # bytes that are read at a time
HEAD = "lm_head.weight"  # in every layout
NUMBERS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Args:
        path: The file.
        name: The tensor's name there.
        shape: Its shape.
        numbers: The dtype of its numbers, by safetensors' name.
        position: The position of its first byte in the file.
    """

    path: Path
    name: str
    shape: torch.Size
    numbers: str
    position: int

    @property
    def dtype(self) -> torch.dtype:
        return NUMBERS[self.numbers]


Tensors = dict[str, Stored]


def write(path: Path, weights: Weights, beside: Path) -> None:
    """Write tensors as safetensors, with the permissions of the file `beside`."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(beside.stat().st_mode)  # safetensors lets nobody else read it


def stored_tensors(folder: Path) -> Tensors:
    """Return every tensor of a folder's `model.safetensors`, or of the files in its index.

    Only headers are read. A folder whose weights are pickles is refused, and no pickle is opened.

    Raises:
        CheckpointError: There are no weights, or a file is damaged.
    """
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if whole.is_file():
        return tensors_in(whole)
    if index.is_file():
        return _of_several(index)
    if pickles := sorted(path for path in folder.iterdir() if path.suffix in PICKLES):
        raise refuse_pickle(pickles[0])
    raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}: it isn't a model folder")


def refuse_pickle(path: object) -> CheckpointError:
    """Return the error that says why a pickle isn't opened, and how it becomes safetensors."""
    return CheckpointError(
        f"{path} is a pickle, which can run any code when it is opened, so groundup never opens "
        "one. Convert it where you trust it: "
        "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW) writes safetensors"
    )


def read_index(path: Path) -> dict[str, str]:
    """Return the name of each tensor's file, as an index states it.

    Raises:
        CheckpointError: The index is damaged, or names a file that isn't safetensors beside it.
    """
    index = read_stated(path)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{path} has no weight_map, which says what tensor is in what file")
    for name, file in files.items():
        if not isinstance(file, str) or not SHARD.fullmatch(file):
            raise CheckpointError(
                f"{path}: tensor {name} can't be in {file!r}: it must be a safetensors file "
                "beside it"
            )
    return files


def match(stored: Tensors, expected: Weights, layout: Layout, folder: Path) -> Tensors:
    """Find each expected tensor in the files, and a tied head where the files store one as well.

    Args:
        stored: The tensors of the files, by their names there.
        expected: The tensors of the model, by the layout's names.
        layout: The layout, which knows older names of tensors, and tensors that nothing uses.
        folder: The model folder, for messages.

    Raises:
        CheckpointError: A tensor is missing, surplus or of another shape.
    """
    found: Tensors = {}
    for name, tensor in stored.items():
        if (spelled := layout.spelled(name)) is None:
            continue
        if spelled in found:
            raise CheckpointError(f"{tensor.path} has {spelled} twice, also as {name}")
        found[spelled] = tensor
    place = folder / (WEIGHTS_FILE if (folder / WEIGHTS_FILE).is_file() else INDEX_FILE)
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(f"{place} lacks the tensor {name} {list(tensor.shape)}")
        check(found[name], name, tensor.shape)
    surplus = sorted(set(found) - set(expected) - {HEAD})
    if surplus or (HEAD in found and HEAD not in expected and layout.embedding not in expected):
        raise CheckpointError(
            f"{place} has a tensor that the model doesn't: {(surplus or [HEAD])[0]}"
        )
    if HEAD in found:
        check(found[HEAD], HEAD, expected[HEAD if HEAD in expected else layout.embedding].shape)
    return found


def fill(targets: Weights, stored: Tensors, layout: Layout) -> None:
    """Read the tensors of files into those of a model, and check a tied head.

    The head of some models is tied to the embedding of tokens: both are one tensor. If the files
    hold a head besides for such a model, it must equal the embedding.

    Args:
        targets: The model's tensors, by the layout's names.
        stored: The tensors of the files, by the same names.
        layout: The layout, which says what the embedding is called.

    Raises:
        CheckpointError: A file is damaged, or the head differs from the embedding.
    """
    read_into(targets, stored)
    if HEAD in stored and HEAD not in targets:
        head, embedding = stored[HEAD], targets[layout.embedding]
        with _errors_of(head.path), head.path.open("rb") as file:
            for rows, piece in _pieces(file, head, embedding.size(0)):
                if not torch.equal(embedding[rows], piece.to(embedding.dtype)):
                    raise CheckpointError(
                        f"{head.path}: {head.name} differs from {layout.embedding}, but "
                        "config.json says that they are one: tie_word_embeddings should be false"
                    )


def read_into(targets: Weights, stored: Tensors) -> None:
    """Read each tensor into its target; a target with fewer rows gets the first rows.

    Raises:
        CheckpointError: A file is damaged.
    """
    for path in dict.fromkeys(tensor.path for tensor in stored.values()):
        with _errors_of(path), path.open("rb") as file:
            for name, tensor in stored.items():
                if tensor.path == path and name in targets:
                    for rows, piece in _pieces(file, tensor, targets[name].size(0)):
                        targets[name][rows].copy_(piece)


def _of_several(index: Path) -> Tensors:
    """The tensors of the files that an index names, which must be where it says."""
    places = read_index(index)
    found: Tensors = {}
    for file in sorted(set(places.values())):
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index} names {file}, which isn't there")
        for name, tensor in tensors_in(index.parent / file).items():
            if places.get(name) != file:
                said = f"puts it into {places[name]}" if name in places else "doesn't name it"
                raise CheckpointError(f"{tensor.path} has a tensor {name}, but {INDEX_FILE} {said}")
            found[name] = tensor
    if missing := sorted(set(places) - set(found)):
        raise CheckpointError(
            f"{index.parent / places[missing[0]]} lacks the tensor {missing[0]}, against the index"
        )
    return found


def tensors_in(path: Path) -> Tensors:
    """Return the tensors of one file, once safetensors has checked the file.

    Raises:
        CheckpointError: The file is damaged.
    """
    found = {}
    with _errors_of(path):
        with safe_open(path, framework="pt") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            kinds = {name: (view.get_shape(), view.get_dtype()) for name, view in views.items()}
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:  # once more, for the places and for what safetensors passes over
                header = parse_json(file.read(length))
            except ValueError as error:
                raise CheckpointError(
                    f"{path} isn't a valid safetensors file: its header, {error}"
                ) from error
        for name, (shape, numbers) in kinds.items():
            begin, _ = header[name]["data_offsets"]
            found[name] = Stored(path, name, torch.Size(shape), numbers, 8 + length + begin)
    return found


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """What can be wrong with a safetensors file, as a CheckpointError."""
    try:
        yield
    except (SafetensorError, OSError, EOFError) as error:
        raise CheckpointError(f"{path} isn't a valid safetensors file: {error}") from error


def _pieces(file: BufferedReader, tensor: Stored, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """The first rows of a tensor, a few at a time."""
    file.seek(tensor.position)
    step = max(1, PIECE // (tensor.dtype.itemsize * max(1, tensor.shape[1:].numel())))
    for begin in range(0, rows, step):
        part = slice(begin, min(rows, begin + step))
        piece = torch.empty(part.stop - begin, *tensor.shape[1:], dtype=tensor.dtype)
        space = piece.flatten().view(torch.uint8).numpy().data  # little-endian, as the machines are
        if file.readinto(space) != piece.nbytes:
            raise EOFError(f"it ends within {tensor.name}")
        yield part, piece


def check(tensor: Stored, name: str, shape: torch.Size, states: str = "config.json") -> None:
    """Check that groundup reads the dtype of a tensor, and that its shape is the stated one.

    Args:
        tensor: The tensor as it is stored.
        name: The tensor's name in the message.
        shape: The shape that it should have.
        states: The file that states this shape.

    Raises:
        CheckpointError: groundup doesn't read the dtype, or the shape is another one.
    """
    place, known = f"{tensor.path}: tensor {name}", ", ".join(NUMBERS)
    if tensor.numbers not in NUMBERS:
        raise CheckpointError(f"{place} is of {tensor.numbers}; groundup reads {known}")
    if tensor.shape != shape:
        stored, stated = list(tensor.shape), list(shape)
        raise CheckpointError(f"{place} is {stored}, but {states} makes it {stated}")
