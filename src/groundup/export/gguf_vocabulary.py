"""A tokenizer as llama.cpp reads it from a GGUF: byte-level BPE, or characters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.checkpoints.conventions import Conventions
from groundup.errors import ExportError
from groundup.tokenizers.base import END_OF_TEXT, Contents, Tokenizer
from groundup.tokenizers.bytepair import BytePairTokenizer
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.tokenizers.foreign import ForeignTokenizer
from groundup.tokenizers.word_patterns import GPT2, LLAMA3, QWEN2

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's types of tokens

# How llama.cpp calls the ways to cut a text into words that it knows, by their patterns.
GPT2_WORDS = "gpt-2"
WORDS = {GPT2: GPT2_WORDS, QWEN2: "qwen2", LLAMA3: "llama-bpe"}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
CHANGES_IDS = (
    *("ignore_merges", "dropout", "byte_fallback"),
    *("continuing_subword_prefix", "end_of_word_suffix"),
)


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF's keys below `tokenizer.ggml` say.

    Args:
        model: llama.cpp's kind of tokenizer.
        tokens: The token of each id.
        types: The type of each id's token.
        merges: The merges of byte-pair encoding, in their order.
        pre: llama.cpp's name of the way to cut a text into words, which come before merges.
        start: The token that begins a text, or None.
        end: The token that ends a text, or None.
        template: The layout of a chat, or None.
        note: What llama.cpp does differently from the tokenizer, for the user.
    """

    model: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str = ""
    start: int | None = None
    end: int | None = None
    template: str | None = None
    note: str = ""

    def add_to(self, writer: "GGUFWriter") -> None:
        """Add the keys to a writer, and have llama.cpp put no token before or after a prompt."""
        writer.add_tokenizer_model(self.model)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.pre:
            writer.add_tokenizer_pre(self.pre)
        if self.start is not None:
            writer.add_bos_token_id(self.start)
        if self.end is not None:
            writer.add_eos_token_id(self.end)
        if self.template:
            writer.add_chat_template(self.template)
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(False)


def vocabulary_of(tokenizer: Tokenizer, vocab_size: int, conventions: Conventions) -> Vocabulary:
    """Return the vocabulary of a model of `vocab_size` tokens.

    Args:
        tokenizer: The model's tokenizer.
        vocab_size: The size of the model's vocabulary.
        conventions: What the model says of the tokens that begin and end a text. What it doesn't
            say is end-of-text.

    Raises:
        ExportError: llama.cpp can't give the same tokens as the tokenizer.
    """
    if isinstance(tokenizer, CharacterTokenizer):
        return _characters(tokenizer)
    if isinstance(tokenizer, BytePairTokenizer | ForeignTokenizer):
        special = tokenizer.special_tokens
        return _byte_pairs(tokenizer.contents, special, vocab_size, conventions)
    raise ExportError(
        f"GGUF has no {type(tokenizer).__name__}: it holds byte-level BPE and characters"
    )


def _characters(tokenizer: CharacterTokenizer) -> Vocabulary:
    """Characters as RWKV's tokenizer, which takes the longest token that fits.

    That is right because no character begins another's bytes. The kind called `llama` could spell
    them too, but there llama.cpp holds tokens 1 and 2 for the begin and the end of a text, whatever
    they are, and a text would end at the first `!`.
    """
    try:
        tokens = [escaped(character.encode("utf-8")) for character in tokenizer.characters]
    except UnicodeEncodeError as error:
        raise ExportError(
            f"the character {error.object[error.start]!r} is half of a pair (a lone surrogate), "
            "and GGUF holds UTF-8"
        ) from error
    return Vocabulary("rwkv", tokens, [NORMAL] * len(tokens), [])


def escaped(data: bytes) -> str:
    """Return bytes as RWKV's vocabulary writes them: by number unless they are printable ASCII."""
    letters = (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data)
    return "".join("\\\\" if letter == "\\" else letter for letter in letters)


def _byte_pairs(
    contents: Contents, special: Mapping[str, int], vocab_size: int, said: Conventions
) -> Vocabulary:
    """Byte-level BPE, whose tokens GGUF writes in the letters of `tokenizer.json`."""
    pre = _words(contents)
    ends = [end for end in (*said.ends, special.get(END_OF_TEXT)) if end is not None]
    if not ends or not 0 <= ends[0] < vocab_size:
        raise ExportError(
            f"a tokenizer without {END_OF_TEXT}, of a model that states no other end, can't become "
            "GGUF: llama.cpp would take token 11 for the end of a text"
        )
    start = said.ids.get("bos_token_id")
    start = start if type(start) is int and 0 <= start < vocab_size else ends[-1]
    # many vocabularies are padded to a round size
    tokens = [f"[PAD{token}]" for token in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for letters, token in contents["model"]["vocab"].items():
        tokens[token], types[token] = letters, NORMAL
    for added in contents.get("added_tokens") or ():
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added.get("special") else USER_DEFINED
    merges = contents["model"]["merges"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    note = "llama.cpp doesn't bring texts into NFC, as this tokenizer does"
    note = note if contents.get("normalizer") else ""
    return Vocabulary("gpt2", tokens, types, merges, pre, start, ends[0], said.chat_template, note)


def _words(contents: Contents) -> str:
    """llama.cpp's name of how a text is cut into words; ExportError where it has none."""
    unknown = [key for key in CHANGES_IDS if contents["model"].get(key)]
    if any(step != {"type": "NFC"} for step in _steps(contents.get("normalizer"))):
        unknown.append("normalizer")
    if unknown:
        raise ExportError(
            f"this tokenizer's {unknown[0]} can't be written in GGUF: llama.cpp would give other "
            "tokens"
        )
    pattern, *others = _patterns(_steps(contents.get("pre_tokenizer")))
    if others or pattern not in WORDS:
        raise ExportError(
            "this tokenizer cuts a text into words in a way that llama.cpp has no name for: "
            f"{pattern} (it knows those of {', '.join(WORDS.values())})"
        )
    return WORDS[pattern]


def _patterns(steps: list[dict[str, Any]]) -> list[str]:
    """The patterns that cut one after the other; what isn't one stands there by its name."""
    found = []
    for step in steps:
        split = step.get("pattern") or {}
        if step.get("type") == "ByteLevel" and not step.get("add_prefix_space"):
            found += [next(iter(WORDS))] if step.get("use_regex", True) else []
        elif SPLIT.items() <= step.items():
            found.append(str(split.get("Regex")))
        else:
            found.append(str(step.get("type")))
    return found or ["none"]


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A part of a `tokenizer.json` as the steps that it makes one after the other."""
    if part is None:
        return []
    return part.get("pretokenizers") or part.get("normalizers") or [part]
