"""The small runs whose every number is kept: how they are trained, and what of them is compared.

Nothing here imports a module of groundup but the package itself: the commands, the metrics and the
files of a checkpoint stay what they are while the code behind them moves.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
INPUTS, RECIPES, RUNS = HERE / "inputs", HERE / "recipes", HERE / "runs"
WRITTEN = RUNS / "written.json"
STEPS, STOPPED = 6, 3  # of each recipe, and of each run in RUNS
GENERATE = ["--prompt", "the", "--greedy", "--length", "20", "--device", "cpu"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
OF_A_STEP = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "batch_hash")
OF_AN_EVALUATION = ("step", "tokens", "train_loss", "validation_loss", "bits_per_byte")
CPU_MODEL = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # of /proc/cpuinfo
CPU_FLAGS = ("fma", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_bf16")


@dataclass(frozen=True)
class Variant:
    """A recipe, and how it is run: eager, compiled, or eager by two processes."""

    recipe: str
    how: str = "eager"

    @property
    def name(self) -> str:
        """What the golden file calls it."""
        return f"{self.recipe}, {self.how}"

    @property
    def words(self) -> list[str]:
        """The words after `groundup` in a folder that `prepare` made; its run is `runs/RECIPE`."""
        compiled = ["--train.compile", "on"] if self.how == "compiled" else []
        return ["train", "--config", f"{self.recipe}.toml", "--name", self.recipe, *compiled]


NAMES = ("modern", "gpt2", "lora", "mixture")
EAGER = tuple(Variant(name) for name in NAMES)
COMPILED, BY_TWO = Variant("modern", "compiled"), Variant("gpt2", "two processes")
VARIANTS = (*EAGER, COMPILED, BY_TWO)


def commits(table: str) -> dict[str, str]:
    """A table of `commits.toml`."""
    return tomllib.loads((HERE / "commits.toml").read_text("utf-8"))[table]


def kind() -> str:
    """What decides a run's last bits besides its code: the CPU as kernels see it, and torch."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text("utf-8") if cpuinfo.is_file() else ""
    pairs = (line.partition(":")[::2] for line in text.partition("\n\n")[0].splitlines())
    cpu = {key.strip(): value.strip() for key, value in pairs}
    model = [cpu[key] for key in CPU_MODEL if key in cpu]
    flags = [flag for flag in CPU_FLAGS if flag in cpu.get("flags", "").split()]
    kernels = torch.backends.cpu.get_cpu_capability()
    return "-".join([platform.machine(), *model, kernels, *flags, "torch", torch.__version__])


def golden_file() -> Path:
    """Where the golden of this kind is, or would be."""
    return HERE / f"{kind()}.json"


def compiler() -> str:
    """The C++ compiler of torch.compile, which decides last bits too; empty if there is none."""
    command = next((found for name in ("g++", "clang++") if (found := shutil.which(name))), None)
    if command is None:
        return ""
    finished = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    return finished.stdout.splitlines()[0]


def prepare(folder: Path) -> Path:
    """Put all that the recipes read into a folder: themselves, the texts and the base."""
    shutil.copytree(INPUTS, folder, dirs_exist_ok=True)
    shutil.copytree(RECIPES, folder, dirs_exist_ok=True)
    return folder


def python(words: Iterable[str], folder: Path, source: Path | None = None) -> str:
    """What `python WORDS...` prints in a folder, its temporary files there too; it must succeed.

    source: the `src` whose groundup it imports, else the one that is installed.
    """
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    if source:
        environment["PYTHONPATH"] = os.pathsep.join([str(source), str(HERE)])
    finished = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def train(variant: Variant, folder: Path, source: Path | None = None) -> str:
    """Train a variant in a folder that `prepare` made, in processes of its own; what it printed."""
    torchrun = TORCHRUN if variant.how == "two processes" else []
    return python([*torchrun, "-m", "groundup", *variant.words], folder, source)


def measured(run: Path) -> dict[str, Any]:
    """Every number of a finished run that must stay as it is; seconds aren't among them."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    last = run / "checkpoints" / f"step-{STEPS:06d}"
    weights = next(path for path in last.glob("*model.safetensors"))
    return {
        "steps": [_some(line, OF_A_STEP) for line in lines if line["kind"] == "step"],
        "evaluations": [_some(line, OF_AN_EVALUATION) for line in evaluations],
        "of each corpus": [line.get("validation_losses") for line in evaluations],
        "samples": (run / "samples.txt").read_text("utf-8"),
        "weights": digest_of_file(weights),
        "optimizer": digest_of_file(last / "training" / "optimizer.safetensors"),
    }


def _some(line: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: line[name] for name in names}


def assert_equal(found: dict[str, Any], golden: dict[str, Any], what: str) -> None:
    """Every number is the golden's: the steps first, because the rest follows from them."""
    for ours, theirs in zip(found["steps"], golden["steps"], strict=True):
        for name in ("batch_hash", "learning_rate", "loss", "gradient_norm"):
            said = f"{what}: {name} at step {theirs['step']}"
            assert ours[name] == theirs[name], f"{said} is {ours[name]}, was {theirs[name]}"
    for name, value in found.items():
        assert value == golden[name], f"{what}: {name}"


def digest_of_file(path: Path) -> str:
    """SHA-256 of a safetensors file's tensors by name; metadata and order don't count."""
    content = path.read_bytes()
    body = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:body])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, entry in sorted(header.items()):
        first, last = (body + offset for offset in entry["data_offsets"])
        digest.update(f"{name} {entry['dtype']} {entry['shape']}\n".encode())
        digest.update(content[first:last])
    return digest.hexdigest()


def digest_of_loaded(run: str) -> str:
    """SHA-256 of the model that `groundup.load` makes of a run in this folder, tensor by tensor."""
    from groundup import load

    model, _tokenizer = load(run)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
