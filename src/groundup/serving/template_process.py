"""The process in which chat templates are rendered: a template is a program from a stranger.

It knows the standard library and jinja2 alone, and begins by giving up memory and files. It reads
requests and writes answers, each as its length in four bytes and JSON. Whoever started it kills it
when an answer takes too long.
"""

import json
import struct
import sys
from datetime import datetime
from typing import IO, Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_MEMORY = 512 * 2**20
MOST_OUTPUT = 2**20  # characters


class Generation(Extension):
    """The block `generation`, which marks for training what an assistant says."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 has it so)

    def parse(self, parser: Parser) -> nodes.Node:
        """Take the block's content as it is."""
        line = next(parser.stream).lineno
        content = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(content, lineno=line)


def raise_exception(message: str) -> None:
    """Let a template say what it doesn't take."""
    raise TemplateError(message)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does: no escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def strftime_now(form: str) -> str:
    """Return the time of now."""
    return datetime.now().strftime(form)


def make_environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that templates see."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    known = {name: environment.globals[name] for name in ("range", "namespace", "dict")}
    environment.globals = known | {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
    }
    environment.filters["tojson"] = to_json
    return environment


def render(environment: ImmutableSandboxedEnvironment, request: dict[str, Any]) -> dict[str, str]:
    """Render a template, and return its text or what is wrong with it."""
    try:
        text = ""
        for part in environment.from_string(request["template"]).generate(**request["names"]):
            text += part
            if len(text) > MOST_OUTPUT:
                return {"error": f"writes more than {MOST_OUTPUT:,} characters"}
        text.encode("utf-8")
    except SecurityError as error:
        return {"error": f"does what templates may not: {error}"}
    except Exception as error:  # a template may cause any
        return {"error": f"fails: {str(error) or type(error).__name__}"[:500]}
    return {"text": text}


def give_up_what_isnt_needed() -> None:
    """Limit memory, and write no file, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in (("RLIMIT_AS", MOST_MEMORY), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        _, hard = resource.getrlimit(getattr(resource, name))
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(getattr(resource, name), (wanted, hard))


def receive(stream: IO[bytes]) -> Any:
    """Read a message, or return None at the end."""
    head = stream.read(4)
    size = struct.unpack("<I", head)[0] if len(head) == 4 else 0
    body = stream.read(size)
    return json.loads(body) if size and len(body) == size else None


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message."""
    body = json.dumps(message).encode("ascii")
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def main() -> None:
    """Answer until nobody asks any more."""
    give_up_what_isnt_needed()
    environment = make_environment()
    while (request := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, render(environment, request))


if __name__ == "__main__":
    main()
