"""Named texts and the user's own: a name or a path in, a text with its fingerprint out."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.data.python_docs import python_docs
from groundup.errors import CorpusError
from groundup.hub.download import RemoteFile, fetch

TINY_SHAKESPEARE = RemoteFile(
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    path="tinyshakespeare/input.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    instead="train on the corpus that needs no network: --corpus python-docs",
)

NAMED = ("python-docs", "shakespeare")
TEXT_SUFFIXES = (
    ".txt",
    ".md",
    ".rst",
    ".tex",
    ".py",
    ".html",
    ".csv",
    ".json",
    ".xml",
    ".toml",
    ".yaml",
    ".log",
)


@dataclass(frozen=True)
class Corpus:
    """A text and where it came from."""

    name: str
    text: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the text's UTF-8 bytes: the same content is the same corpus, whatever its
        files are called.
        """
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


def load_corpus(name: str, folder: Path = Path()) -> Corpus:
    """`python-docs`, `shakespeare`, or the path of a text file or a folder of them, relative to
    here or to `folder`.

    Raises CorpusError.
    """
    if name == "python-docs":
        return Corpus(name, python_docs())
    if name == "shakespeare":
        return Corpus(name, _read(fetch(TINY_SHAKESPEARE)))
    path = find_path(name, folder)
    if not path.exists():
        raise CorpusError(
            f"corpus {name} is neither a file or folder nor a known name. Known: "
            f"{', '.join(NAMED)}."
            + (
                f" A folder of shards is made by: groundup prepare SOURCE --out {name}"
                if _like_shards(name)
                else ""
            )
        )
    text = "\n".join(_read(file) for file in _text_files(path)) if path.is_dir() else _read(path)
    if not text:
        raise CorpusError(f"corpus {name} is empty: 0 characters")
    return Corpus(name, text)


def find_path(name: str, folder: Path = Path()) -> Path:
    """Where a corpus of that name would be: here, or else in `folder`."""
    path = Path(name).expanduser()
    return path if path.exists() else folder / path


def _like_shards(name: str) -> bool:
    """Whether a path that doesn't exist was meant to be a folder of shards, by our own convention:
    data/NAME.
    """
    return Path(name).parent.name == "data" and not Path(name).suffix


def split(tokens: np.ndarray, validation_fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut [tokens] into training and validation: the validation split is the end of the text."""
    boundary = int(len(tokens) * (1 - validation_fraction))
    return tokens[:boundary], tokens[boundary:]


def _text_files(folder: Path) -> list[Path]:
    """The text files below a folder in the order of their paths; hidden ones are left out."""
    files = [
        path
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
        if path.suffix.lower() in TEXT_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise CorpusError(
            f"folder {folder} holds no text file. Looked for: {' '.join(TEXT_SUFFIXES)}"
        )
    return files


def _read(path: Path) -> str:
    """The file's text, line endings as they are. Raises CorpusError."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
            f"{error.start:,}. Convert it, for example with: iconv -f LATIN1 -t UTF-8 {path.name}"
        ) from error
    except OSError as error:
        raise CorpusError(f"{path} can't be read: {error.strerror}") from error
