"""The template by which a model reads a chat: its folder's own, or a plain one."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from groundup.checkpoints.conventions import ROLES, Conventions, token_text
from groundup.errors import ChatTemplateError
from groundup.serving.template_process import receive, send
from groundup.tokenizers.base import TOKENIZER_CONFIG_FILE

SECONDS = 1.0  # for a rendering
START_SECONDS = 20  # for the process to begin
KNOWN = "PATH", "SYSTEMROOT", "TZ"
PROGRAM = Path(__file__).with_name("template_process.py")
# of a model whose folder has none
PLAIN = """{% for message in messages %}
{{ message.role | capitalize }}: {{ message.content }}

{% endfor %}
Assistant:"""
PLAIN_STOP = "\nUser:"  # where a text by the plain template ends


class ChatTemplate:
    """A template that turns messages into one text.

    It is rendered by a process of its own, which is started when it is first needed, and again
    after a rendering that it didn't survive.

    Args:
        template: The template, in jinja2's language; empty for the plain one.
        special: Names of special tokens that it may use, `bos_token` for instance, and their texts.
    """

    def __init__(self, template: str = "", special: Mapping[str, str] | None = None) -> None:
        self.is_plain = not template
        self.template, self.special = template or PLAIN, dict(special or {})
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return a chat as one text, which ends where the assistant is to speak.

        Args:
            messages: Each with role and content.

        Raises:
            ChatTemplateError: The template doesn't take these messages, or is no good template.
        """
        names = {"messages": list(messages), "add_generation_prompt": True, **self.special}
        names |= {"tools": None, "documents": None}  # as transformers has them
        with self._lock:
            answer = self._ask({"template": self.template, "names": names})
        if "error" in answer:
            raise ChatTemplateError(f"the model's chat template {answer['error']}")
        return answer["text"]

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, Any]) -> dict[str, str]:
        """Send a request to the process, and return its answer."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._start()
        begun = time.monotonic()
        try:
            return self._exchange(request, SECONDS)
        except (OSError, EOFError):
            self._end()
            late = time.monotonic() - begun >= SECONDS
            what = f"needs more than {SECONDS:g} s" if late else "ends its process"
            return {"error": what}

    def _start(self) -> None:
        """Start the process, and wait until it answers. Raises ChatTemplateError."""
        # what else the environment holds is not the business of a stranger's program
        known = {name: os.environ[name] for name in KNOWN if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=known,
            start_new_session=True,
        )
        try:
            self._exchange({"template": "", "names": {}}, START_SECONDS)
        except (OSError, EOFError) as error:
            self._end()
            raise ChatTemplateError("the process for chat templates doesn't start") from error

    def _exchange(self, request: dict[str, Any], seconds: float) -> dict[str, str]:
        """Send a request, and read the answer; kill the process if that takes longer.

        Raises:
            EOFError: The process has ended.
            OSError: The same, before it was asked.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        limit = Timer(seconds, self._process.kill)
        limit.start()
        try:
            send(self._process.stdin, request)
            if (answer := receive(self._process.stdout)) is None:
                raise EOFError
            return answer
        finally:
            limit.cancel()

    def _end(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # what was to be written stays unwritten
                        continue
            self._process = None


def chat_template_of(conventions: Conventions) -> ChatTemplate:
    """Return the template of a model, or the plain one where its files have none.

    Args:
        conventions: What the model's files say of using it.

    Raises:
        ChatTemplateError: They have several templates, and none is the default.
    """
    template = conventions.chat_template
    if template is None and conventions.roles.get("chat_template") is not None:
        where = f"chat_template in {TOKENIZER_CONFIG_FILE}"
        raise ChatTemplateError(f"{where} is neither a text nor a list with one named default")
    special = dict[str, str]()
    for role in ROLES:
        text = token_text(conventions.roles.get(role))
        if isinstance(text, str):
            special[role] = text
    return ChatTemplate(template or "", special)


def check_messages(messages: Sequence[Mapping[str, Any]], special: Collection[str]) -> None:
    """Refuse messages that spell special tokens: after rendering nobody can tell whose they are.

    Args:
        messages: Each with role and content, and perhaps a name.
        special: The texts of the special tokens.

    Raises:
        ChatTemplateError: A message spells one.
    """
    for number, message in enumerate(messages):
        for text in _texts(list(message.values())):
            for token in special:
                if token in text:
                    problem = f"messages[{number}] spells the special token {token!r}"
                    remedy = "it could forge a turn; the server takes it with"
                    raise ChatTemplateError(f"{problem}: {remedy} --allow-special-tokens")
    whole = "".join(_texts([message.get("content") for message in messages]))
    for token in special:
        if token in whole:  # which a template may put together
            raise ChatTemplateError(f"the messages spell the special token {token!r} together")


def _texts(value: Any) -> Iterator[str]:
    """All texts within lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
