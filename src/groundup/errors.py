"""The errors that a user can cause, each said in one line: what is wrong, the value, the remedy."""

import difflib
from collections.abc import Sequence

LONGEST = 2000  # characters of a message


class GroundupError(ValueError):
    """An error of the user, which the command line prints in one line before it exits.

    The command line exits with `exit_status`. A message may quote a malicious file, so a terminal's
    control characters are escaped, and the middle of a message of several pages is left out.
    """

    exit_status = 2

    def __init__(self, message: str) -> None:
        super().__init__(_line(message))


class ConfigError(GroundupError):
    """A model config whose values contradict each other; `field` names the value to change."""

    def __init__(self, field: str, complaint: str, remedy: str) -> None:
        super().__init__(f"{complaint}. {remedy}")
        self.field, self.complaint, self.remedy = field, complaint, remedy


class RecipeError(GroundupError):
    """A recipe with an unknown key, a wrong type or values that contradict each other."""


class CorpusError(GroundupError):
    """A text or a download that is missing, empty, too short, damaged or has changed."""


class TokenizerError(GroundupError):
    """A character or token id that the vocabulary lacks, or a file that is no tokenizer."""


class ForeignTokenizerError(TokenizerError):
    """A tokenizer file of a kind that groundup doesn't read."""


class SlowTokenizerError(ForeignTokenizerError):
    """Byte-level BPE that tiktoken can't encode with the same ids, but `tokenizers` can."""


class CheckpointError(GroundupError):
    """A checkpoint or model folder that is missing, damaged or doesn't fit."""


class GenerationError(GroundupError):
    """Sampling settings out of range, or a prompt that the model can't take."""


class ServerError(GroundupError):
    """An address that can't be listened on, or a server that lacks what it needs."""


class ChatTemplateError(GroundupError):
    """A chat template that fails, or messages that it doesn't take."""


class EvaluationError(GroundupError):
    """A task that a model can't do, or that is asked for in a way that isn't defined."""


class ExportError(GroundupError):
    """A model that a format can't express, or a path that an export can't be written to."""


class LadderError(GroundupError):
    """A ladder that can't be climbed as it is asked for, or a folder with cells of another one."""


class LessonError(GroundupError):
    """Lessons that this installation lacks, or a folder that they can't be written into."""


class MachineError(GroundupError):
    """A device, a precision or a package that this machine doesn't have."""


class OutOfMemoryError(GroundupError):
    """A recipe that needs more memory than the machine has."""


class RunError(GroundupError):
    """A run that is missing, already there, or can't be resumed as asked."""


class TrainingError(GroundupError):
    """Training stopped: a loss or gradient isn't a finite number, or a file can't be written."""

    exit_status = 1


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the remedy for a name that doesn't exist: the nearest one that does, or all of them.

    Args:
        name: The name; of one with points, as in model.n_layer, the part after the last point can
            be right.
        known: The names that exist.
    """
    leaf = name.rpartition(".")[2]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or [
        other for other in known if other.rpartition(".")[2] == leaf
    ]
    return f"Did you mean {nearest[0]}?" if nearest else f"Known: {', '.join(known)}."


def _line(message: str) -> str:
    """The message on one line, printable as it is."""
    if not message.isprintable():
        message = " ".join(message.splitlines())
        message = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in message
        )
    if len(message) > LONGEST:
        message = f"{message[: LONGEST - 520]} ... {message[-500:]}"
    return message
