"""What a model folder says of using its model, which its weights alone don't tell.

That is which tokens begin and end a text, which roles tokens have, how a chat is laid out and how
the model likes to be sampled. A model that is written again is written with all of it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from groundup.checkpoints.layouts import Settings, read_stated
from groundup.errors import CheckpointError
from groundup.files import write_json, write_whole
from groundup.tokenizers.base import TOKENIZER_CONFIG_FILE, Tokenizer

GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"
ROLES_FILE = "special_tokens_map.json"  # where older releases of transformers keep them
FILES = (GENERATION_FILE, TEMPLATE_FILE, ROLES_FILE)

IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
HABITS = ("chat_template", "padding_side", "truncation_side", "model_max_length")


@dataclass(frozen=True)
class Conventions:
    """What a model's files say of using it.

    Args:
        ids: The ids of the tokens that begin, end and pad a text, as `config.json` has them.
        roles: What `tokenizer_config.json` says of the roles of tokens, and of prompts.
        generation: What `generation_config.json` says.
        template: The text of `chat_template.jinja`, or None where there is no such file.
    """

    ids: Settings = field(default_factory=dict)
    roles: Settings = field(default_factory=dict)
    generation: Settings = field(default_factory=dict)
    template: str | None = None

    @property
    def ends(self) -> list[int]:
        """The tokens after which a text is over; transformers takes those of generation first."""
        stated = self.generation.get("eos_token_id", self.ids.get("eos_token_id"))
        ends = stated if isinstance(stated, list) else [stated]
        return [end for end in ends if type(end) is int]

    @property
    def chat_template(self) -> str | None:
        """The layout of a chat, wherever it is kept, or None."""
        stated = self.template or self.roles.get("chat_template")
        named = stated if isinstance(stated, list) else []
        named = [each for each in named if isinstance(each, dict) and each.get("name") == "default"]
        stated = named[0].get("template") if named else stated
        return stated if isinstance(stated, str) else None

    def after_documents(self, start: int | None) -> Self:
        """Return the conventions of the model after it has learned from documents.

        Args:
            start: The token before each document, which becomes the first of the ends; None where
                the model has learned from texts without such tokens, and nothing changes.
        """
        if start is None:
            return self
        ends = [start, *(end for end in self.ends if end != start)]
        changed = {"bos_token_id": start, "eos_token_id": ends if len(ends) > 1 else start}
        generation = self.generation | changed if self.generation else {}
        return replace(self, ids=self.ids | changed, generation=generation)

    def write(self, folder: Path, tokenizer: Tokenizer | None, block_size: int) -> None:
        """Write the files of the conventions into a model folder, beside its `config.json`.

        Args:
            folder: The model folder.
            tokenizer: The model's tokenizer, whose files are written too, or None.
            block_size: The model's context, to which transformers then truncates texts if asked.
        """
        if self.generation:
            write_json(folder / GENERATION_FILE, self.generation)
        if tokenizer is None:
            return
        if self.template is not None:
            write_whole(folder / TEMPLATE_FILE, self.template)
        tokenizer.save(folder)
        settings = read_stated(folder / TOKENIZER_CONFIG_FILE)
        settings |= dict(_known(self.roles, tokenizer.special_tokens))
        longest = settings.get("model_max_length")
        is_shorter = type(longest) is int and 0 < longest < block_size
        settings["model_max_length"] = longest if is_shorter else block_size
        write_json(folder / TOKENIZER_CONFIG_FILE, settings)


def read_conventions(settings: Settings, *folders: Path) -> Conventions:
    """Read what the files of a model say of using it.

    Args:
        settings: What its `config.json` states.
        folders: Where the other files are looked for, in this order: for adapters, their own
            folder and that of their base.

    Raises:
        CheckpointError: A file is damaged.
    """
    roles = _stated(ROLES_FILE, folders) | _stated(TOKENIZER_CONFIG_FILE, folders)
    template = next((path for each in folders if (path := each / TEMPLATE_FILE).is_file()), None)
    try:
        return Conventions(
            {key: settings[key] for key in IDS if key in settings},
            {key: roles[key] for key in (*ROLES, *HABITS) if key in roles},
            _stated(GENERATION_FILE, folders),
            template.read_text("utf-8") if template else None,
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{template} can't be read: {error}") from error


def token_text(value: Any) -> Any:
    """Return the text of a token, which files have as it is or in an object; None of none."""
    return value.get("content") if isinstance(value, dict) else value


def _stated(name: str, folders: tuple[Path, ...]) -> Settings:
    """What the first file of that name says; nothing where there is none."""
    path = next((path for each in folders if (path := each / name).is_file()), None)
    stated = read_stated(path) if path else {}
    if not isinstance(stated, dict):
        raise CheckpointError(f"{path} must hold an object, not a {type(stated).__name__}")
    return stated


def _known(roles: Settings, special: Collection[str]) -> Iterator[tuple[str, Any]]:
    """What of the roles goes into a file: roles of no token, or of one that the tokenizer has."""
    for key, value in roles.items():
        token = token_text(value)
        if key in HABITS:
            yield key, value
        elif token is None or (isinstance(token, str) and token in special):
            yield key, token
