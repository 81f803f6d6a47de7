"""A conversation with a model: `groundup generate --interactive`.

A line is the text to go on from, or a command, which begins with a slash. Texts go to stdout, and
all else that is said to stderr, so that a pipe gets the texts alone.
"""

import io
import logging
import re
import shlex
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from time import perf_counter
from typing import Any, NamedTuple

from groundup.console import plain_console, show_at_once
from groundup.errors import GenerationError, GroundupError, did_you_mean
from groundup.files import expanded, is_there, write_whole
from groundup.generation.settings import RANGES, SamplingSettings
from groundup.generation.texts import Written

logger = logging.getLogger(__name__)

HINT = "Type a text to go on from; /help lists the commands, Ctrl-C stops a text, Ctrl-D leaves."
WANTED = {name: wanted for name, _, _, wanted in RANGES}
SETTINGS = *WANTED, "stop"
ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}  # what can't be typed in a stop text
SEEDS = 2**63

# gives the texts that follow a prompt; a prompt that can't be read is an error before the first one
Texts = Callable[[str, SamplingSettings], Generator[Iterator[Written], None, None]]


@dataclass
class Passage:
    """A prompt, and what was written after it.

    Attributes:
        prompt: The prompt.
        texts: The text that follows, and what /more has added to it.
    """

    prompt: str
    texts: list[str] = field(default_factory=list)

    @property
    def whole(self) -> str:
        """The prompt with all that follows."""
        return self.prompt + "".join(self.texts)


class Conversation:
    """What was typed and written so far, and how the next text is drawn.

    Args:
        texts: Gives the texts that follow a prompt.
        settings: How the first text is drawn.
        stoppable: Whether Ctrl-C stops a text alone, and not the whole command.
    """

    def __init__(self, texts: Texts, settings: SamplingSettings, stoppable: bool) -> None:
        self.texts, self.settings, self.stoppable = texts, settings, stoppable
        self.passages: list[Passage] = []

    def answer(self, line: str) -> None:
        """Do what a line asks for.

        Raises:
            GroundupError: The line asks for what there isn't; then nothing has changed.
            EOFError: It asks to leave.
        """
        if line.startswith("/") and not line.startswith("//"):
            name, *rest = line.split(maxsplit=1)
            if name not in COMMANDS:
                remedy = f"{did_you_mean(name, [*COMMANDS])} A text that begins with / needs //"
                raise GroundupError(f"unknown command {name}. {remedy}")
            command = COMMANDS[name]
            if rest and not command.takes:
                raise GroundupError(f"{rest[0]!r} after {name} must be left out")
            command.run(self, rest[0].strip() if rest else "")
        elif line:
            self.begin(line[1:] if line.startswith("//") else line)
        else:
            logger.info(HINT)

    def begin(self, prompt: str) -> None:
        """Write a new text that follows a prompt.

        Raises:
            GroundupError: The model can't read the prompt.
        """
        self._write(Passage(prompt))

    def more(self, _: str) -> None:
        """Go on with the last text. Its end is the model's prompt."""
        self._write(self._last())

    def retry(self, _: str) -> None:
        """Write another text that follows the last prompt."""
        self.begin(self._last().prompt)

    def undo(self, _: str) -> None:
        """Forget what was written last, and its prompt if no text of it is left."""
        last = self._last()
        last.texts.pop()
        if not last.texts:
            self.passages.pop()
        logger.info(f"forgotten; {_count(len(self.passages), 'text')} left")

    def set(self, rest: str) -> None:
        """Show all settings or one, or change one."""
        name, _, value = rest.partition(" ")
        name = name.replace("-", "_")
        if name and name not in SETTINGS:
            raise GenerationError(f"unknown setting {name}. {did_you_mean(name, SETTINGS)}")
        if value.strip():
            changed: dict[str, Any] = {name: read_setting(name, value.strip())}
            self.settings = replace(self.settings, **changed)
        for shown in (name,) if name else SETTINGS:
            current = getattr(self.settings, shown)
            logger.info(f"{shown} = {_quoted(current) if shown == 'stop' else current}")

    def seed(self, rest: str) -> None:
        """Show or change the seed that the next text uses."""
        self.set(f"seed {rest}")

    def save(self, name: str) -> None:
        """Write all texts to a new file, as several samples are shown."""
        self._last()
        if not name:
            raise GroundupError("/save needs the name of a file, as in /save texts.txt")
        path, count = expanded(name), len(self.passages)
        if is_there(path) or path.is_symlink():
            raise GroundupError(f"{path} exists already. Choose another name")
        texts = [f"{passage.whole}\n" for passage in self.passages]
        if count > 1:
            texts = [f"======== {at} of {count}\n{text}" for at, text in enumerate(texts, 1)]
        try:
            write_whole(path, "".join(texts))
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise GroundupError(f"can't write {path}: {problem}. Choose another name") from error
        logger.info(f"wrote {_count(count, 'text')} to {path}")

    def help(self, _: str) -> None:
        """List the commands."""
        logger.info("A line is the text to go on from; with // before it, one that begins with /.")
        for name, command in COMMANDS.items():
            logger.info(f"{f'{name} {command.takes}'.rstrip():20} {command.purpose}")
        logger.info("An empty line writes nothing. Ctrl-C stops a text, Ctrl-D leaves.")
        logger.info("/set stop takes up to eight texts: /set stop END 'The end' '\\n'")

    def leave(self, _: str) -> None:
        """End the conversation."""
        raise EOFError

    def _last(self) -> Passage:
        """Return the last passage. Raises GroundupError where there is none."""
        if not self.passages:
            raise GroundupError("there is no text yet: type one to go on from")
        return self.passages[-1]

    def _write(self, passage: Passage) -> None:
        """Show what follows a passage as it is written, remember it, and say how fast it was."""
        seed, pieces, clock = self.settings.seed, list[str](), [perf_counter()]
        begun = ""
        with closing(self.texts(passage.whole, self.settings)) as texts:
            text = next(texts)
            # the same prompt again gives another text
            self.settings = replace(self.settings, seed=(seed + 1) % SEEDS)
            try:
                show_at_once("" if passage.texts else passage.prompt)
                for written in text:
                    pieces.append(written.text)
                    if written.token is not None:
                        clock.append(perf_counter())
                    show_at_once(written.text)
            except KeyboardInterrupt:
                if not self.stoppable:
                    raise
                begun = "stopped after "
            finally:
                passage.texts.append("".join(pieces))
                if len(passage.texts) == 1:
                    self.passages.append(passage)
        show_at_once("\n")
        _say_quietly(f"{begun}{_pace(clock)}; seed {seed}")


class Command(NamedTuple):
    """A command of a conversation: what follows its name, what it is for, and what it does."""

    takes: str
    purpose: str
    run: Callable[[Conversation, str], None]


COMMANDS = {
    "/set": Command(
        "[NAME [VALUE]]",
        "shows the settings, or one, or changes it: /set top_p 0.9, or back: /set top_p default",
        Conversation.set,
    ),
    "/seed": Command("[SEED]", "shows or sets the seed of the next text", Conversation.seed),
    "/more": Command("", "goes on with the last text", Conversation.more),
    "/retry": Command("", "writes another text after the last prompt", Conversation.retry),
    "/undo": Command("", "forgets the last text or /more, for /save as well", Conversation.undo),
    "/save": Command("FILE", "writes the texts so far to a new file", Conversation.save),
    "/help": Command("", "lists the commands", Conversation.help),
    "/quit": Command("", "leaves", Conversation.leave),
}


def read_setting(name: str, text: str) -> Any:
    """Return the value of a setting that was typed.

    Args:
        name: The name of the setting.
        text: The value. Several stop texts have spaces between them and, where they have spaces
            themselves, quotes around them; \\n in them is a new line.

    Raises:
        GenerationError: The text isn't a number, or has a quote that isn't closed.
    """
    default = getattr(SamplingSettings, name)
    if text == "default":
        return default
    if name == "stop":
        return _stops(text)
    try:
        return type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        problem = f"{name.replace('_', '-')} = {text} isn't {kind}: it {WANTED[name]}"
        raise GenerationError(problem) from None


def _stops(text: str) -> tuple[str, ...]:
    """Split texts at spaces outside of quotes. Raises GenerationError for an open quote."""
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    try:
        return tuple(re.sub(r"\\([nt\\])", lambda found: ESCAPES[found[1]], word) for word in words)
    except ValueError:
        remedy = "put a text with one into quotes of the other kind"
        raise GenerationError(f"stop = {text} has a quote that isn't closed; {remedy}") from None


def _quoted(stops: tuple[str, ...]) -> str:
    """Write stop texts as they can be typed."""
    return " ".join(map(repr, stops)) or "none"


def _count(number: int, thing: str) -> str:
    """Write a number of things."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _pace(clock: list[float]) -> str:
    """Say how fast a text was written: by the time of its beginning and that of each token."""
    started, *times = clock
    if not times:
        return "0 tokens"
    first, seconds = times[0] - started, times[-1] - times[0]
    rate = f", {(len(times) - 1) / seconds:,.0f} tokens/s" if seconds else ""
    return f"{_count(len(times), 'token')}{rate}, the first after {first:.3f} s"


def _say_quietly(text: str) -> None:
    """Say what may be passed over: dim, where a terminal can show that."""
    console = plain_console(stderr=True)
    if console.is_terminal:
        console.print(text, style="dim")
    else:
        logger.info(text)


def ask() -> str:
    """Return the next line that is typed, or that comes from a pipe.

    Raises:
        EOFError: There is no further line.
    """
    if sys.stdin is None:  # closed by whoever started the command
        raise EOFError
    if not sys.stdin.isatty():
        return input().removesuffix("\r")  # of a file from Windows
    if not sys.stdout.isatty():  # that is for the texts alone
        sys.stderr.write("> ")
        sys.stderr.flush()
        return input()
    return input("> ")


def converse(texts: Texts, settings: SamplingSettings, prompt: str) -> None:
    """Take prompts and commands, line by line, until the end of input (Ctrl-D).

    At a terminal Ctrl-C stops a text, or clears the line that is being typed.

    Args:
        texts: Gives the texts that follow a prompt.
        settings: How the first text is drawn.
        prompt: What the first text goes on from; empty to ask at once.

    Raises:
        GroundupError: The model can't read the first prompt.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    at_terminal = sys.stdin is not None and sys.stdin.isatty()
    conversation = Conversation(texts, settings, stoppable=at_terminal)
    if at_terminal:
        with suppress(ImportError):  # not every system has it
            import_module("readline")  # from now on input() edits lines and remembers them
        logger.info(HINT)
    if prompt:
        conversation.begin(prompt)
    while True:
        try:
            conversation.answer(ask())
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            show_at_once("\n")
        except EOFError:
            if at_terminal:
                show_at_once("\n")
            return
        except GroundupError as error:
            logger.warning(f"{error}")
