"""Builds, loads and calls the C++ by which a CPU writes a token of each of several texts.

It is built by the machine's C++ compiler when it is first needed, in about two seconds, and kept in
the cache. Beside speed it gives what torch's products don't: a text has the same bits however many
others there are.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
import threading
from pathlib import Path

import torch
from torch import Tensor

from groundup.errors import MachineError
from groundup.hub.cache import cache_folder

FOLDER = Path(__file__).with_name("cpp")
SOURCE = FOLDER / "step.cpp"
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC")
# with less, it is slower, and as right
VARIANTS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-march=native",), ())
BYTES_A_THREAD = 2**20
COMPILERS = ("c++", "g++", "clang++")
_lock = threading.Lock()
POINTER, INTEGER = ctypes.c_void_p, ctypes.c_int64


class MatrixView(ctypes.Structure):
    """`Matrix` of step.cpp."""

    _fields_ = (
        *((name, POINTER) for name in ("weight", "scale", "bias")),
        *((name, INTEGER) for name in ("outputs", "inputs", "bytes")),
    )


class NormView(ctypes.Structure):
    """`Norm` of step.cpp."""

    _fields_ = (
        *((name, POINTER) for name in ("factors", "bias")),
        *(("size", INTEGER), ("eps", ctypes.c_float)),
    )


class BlockView(ctypes.Structure):
    """`Block` of step.cpp."""

    _fields_ = (
        *(("before_attention", NormView), ("qkv", MatrixView)),
        *(("of_query", NormView), ("of_key", NormView), ("out", MatrixView)),
        *(("before_mlp", NormView), ("gate", MatrixView)),
        *(("up", MatrixView), ("down", MatrixView)),
    )


class ModelView(ctypes.Structure):
    """`Model` of step.cpp."""

    _fields_ = (
        ("tokens", MatrixView),
        *((name, POINTER) for name in ("positions", "cosine", "sine", "blocks")),
        *((name, INTEGER) for name in ("layers", "width", "inner", "heads", "kv_heads")),
        *(("head_size", INTEGER), ("last", NormView), ("head", MatrixView)),
    )
    weight_bytes: int  # of the matrices, for whoever shares the work out


class MemoryView(ctypes.Structure):
    """`Memory` of step.cpp."""

    _fields_ = (("numbers", POINTER), ("slots", INTEGER), ("room", INTEGER))


class Kernels:
    """The functions of the library that was built from step.cpp.

    Args:
        library: The path of the library.

    Attributes:
        has_tiles: Whether the processor has units for tiles of bfloat16 numbers, and they are used.

    Raises:
        OSError: The library can't be loaded.
    """

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        self._linear, self._step = loaded.groundup_linear, loaded.groundup_step
        self._linear.argtypes = [POINTER, POINTER, INTEGER, INTEGER, POINTER, INTEGER]
        self._step.argtypes = [*[POINTER] * 5, INTEGER, POINTER, INTEGER]
        self._linear.restype = self._step.restype = None
        loaded.groundup_has_tiles.restype = INTEGER
        self.has_tiles = bool(loaded.groundup_has_tiles())

    def linear(self, x: Tensor, matrix: MatrixView, gelu: bool = False) -> Tensor:
        """Return the products of a matrix with vectors: [..., inputs] -> [..., outputs] float32.

        Args:
            x: The vectors.
            matrix: The matrix.
            gelu: Return GELU of the products, by its tanh formula.
        """
        x = x.float().contiguous()  # under autocast it may be of another dtype
        out = x.new_empty(*x.shape[:-1], matrix.outputs)
        vectors, size = x.numel() // matrix.inputs, matrix.outputs * matrix.inputs * matrix.bytes
        view = ctypes.byref(matrix)
        self._linear(view, x.data_ptr(), vectors, gelu, out.data_ptr(), threads_for(size))
        return out

    def step(
        self, model: ModelView, memory: MemoryView, newest: Tensor, slots: Tensor, lengths: Tensor
    ) -> Tensor:
        """Read the newest token of each text, and return the logits of the next: [texts, vocab].

        Args:
            model: The model.
            memory: The keys and values of all slots, to which those of the newest are added.
            newest: [texts] int64.
            slots: [texts] int64, the slot of each text.
            lengths: [texts] int64, the number of tokens of each text, the newest included.
        """
        rows = len(newest), model.head.outputs
        logits = torch.empty(rows, dtype=torch.float32, device="cpu")  # whatever torch's default is
        pointers = newest.data_ptr(), slots.data_ptr(), lengths.data_ptr()
        self._step(
            *(ctypes.byref(model), ctypes.byref(memory), *pointers, len(newest)),
            *(logits.data_ptr(), threads_for(model.weight_bytes)),
        )
        return logits


def threads_for(weight_bytes: int) -> int:
    """Return how many of torch's threads share the products with so many bytes of weights.

    Threads with little to do cost more than they bring, most of all where others use the cores.
    """
    return max(1, min(torch.get_num_threads(), weight_bytes // BYTES_A_THREAD))


def load_kernels() -> Kernels:
    """Load the library, and build it first where the cache has none for this machine.

    The first call decides for the process; another one at the same time waits for it.

    Raises:
        MachineError: There is no C++ compiler, or it can't build it.
    """
    with _lock:
        return _load()


@functools.cache
def _load() -> Kernels:
    """Load the library once. Raises MachineError."""
    try:
        return Kernels(_built(path := _library()) or _build(path))
    except OSError as error:
        raise MachineError(f"groundup's C++ can't be built: {error}") from error


def _library() -> Path:
    """The path of the library for this source, compiler and processor, without its digest."""
    information = Path("/proc/cpuinfo")
    text = information.read_text("utf-8", errors="replace") if information.is_file() else ""
    features = [line for line in text.splitlines() if line.startswith(("flags", "Features"))][:1]
    sources = [file.read_bytes() for file in sorted(FOLDER.iterdir()) if file.is_file()]
    decides = FLAGS, VARIANTS, os.environ.get("CXX"), platform.machine(), features, sources
    return cache_folder() / "kernels" / f"{hashlib.sha256(repr(decides).encode()).hexdigest()}.so"


def _built(library: Path) -> Path | None:
    """Return the library where the cache has it whole: to load half of one ends the process.

    Its name has the digest of its bytes, too.
    """
    paths = library.parent.glob(f"{library.stem}-*.so")
    return next((path for path in paths if path == _named(library, path)), None)


def _named(library: Path, file: Path) -> Path:
    """Return the path of a library that has the bytes of a file."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return library.with_stem(f"{library.stem}-{digest}")


def _build(library: Path) -> Path:
    """Build the library whole beside its place, rename it, and return its path.

    Raises:
        MachineError: No compiler is there, or none can build it.
        OSError: The cache can't be written.
    """
    named = os.environ.get("CXX")
    problem = f"there is no C++ compiler ({named or ', '.join(COMPILERS)})"
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        for compiler in (named,) if named else COMPILERS:
            for variant in VARIANTS:
                flags = *FLAGS, *variant, str(SOURCE), "-o", str(made)
                try:
                    command = [*shlex.split(compiler), *flags]  # CXX may have flags of its own
                    found = subprocess.run(command, capture_output=True, text=True, check=False)
                except (OSError, ValueError):  # no such program, or a quote that nothing closes
                    break
                if found.returncode == 0 and made.is_file():
                    return made.replace(_named(library, made))
                problem = f"{compiler} says: {(found.stderr.splitlines() or ['nothing'])[0]}"
    raise MachineError(f"groundup's C++ can't be built: {problem}")
