"""The process in which chat templates are rendered: a template is a program from a stranger.

It knows the standard library and jinja2 alone, and begins by giving up memory, files and processes
of its own. It reads requests and writes answers, each as its length in four bytes and JSON. Whoever
started it kills it when an answer takes too long; if nobody is there to do so, it ends by itself.
"""

import json
import signal
import struct
import sys
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_MEMORY = 512 * 2**20
MOST_OUTPUT = 2**20  # characters
MOST_SECONDS = 2  # after which the process ends, where nobody has killed it
# makes jinja2 import what it imports late, while files may still be opened
WARM_UP = "{{ strftime_now('%c') }}{{ 'a' | wordwrap }}{{ 1 | pprint }}{{ raise_exception('') }}"
LIMITS = {"AS": MOST_MEMORY, "NOFILE": 3, "NPROC": 0, "FSIZE": 0, "CORE": 0}


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


class Environment(ImmutableSandboxedEnvironment):
    """What templates see, which is what they see in transformers."""

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Generation, "jinja2.ext.loopcontrols"],
        )
        known = {name: self.globals[name] for name in ("range", "namespace", "dict")}
        own = {"raise_exception": raise_exception, "strftime_now": strftime_now}
        self.globals = known | own
        self.filters["tojson"] = to_json

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuse what a template may not see, which would be an empty text elsewhere."""
        raise SecurityError(f"{attribute} of a {type(obj).__name__} is not for templates")

    @lru_cache(maxsize=1)  # noqa: B019  (one environment lives as long as its process)
    def compiled(self, template: str) -> Template:
        """Return a template, which is nearly always the one of the last time."""
        return self.from_string(template)


def render(environment: Environment, request: dict[str, Any]) -> dict[str, str]:
    """Render a template, and return its text or what is wrong with it."""
    try:
        text = ""
        for part in environment.compiled(request["template"]).generate(**request["names"]):
            text += part
            if len(text) > MOST_OUTPUT:
                return {"error": f"writes more than {MOST_OUTPUT:,} characters"}
        text.encode("utf-8")
    except TemplateSyntaxError as error:
        return {"error": f"is no template of jinja2: {error.message}, in line {error.lineno}"[:500]}
    except SecurityError as error:
        return {"error": f"does what templates may not: {error}"[:500]}
    except MemoryError:
        return {"error": f"needs more than {MOST_MEMORY // 2**20} MiB of memory"}
    except Exception as error:  # a template may cause any
        return {"error": f"fails: {str(error) or type(error).__name__}"[:500]}
    return {"text": text}


def give_up_what_isnt_needed() -> None:
    """Limit memory, open no file and start no process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in LIMITS.items():
        with suppress(AttributeError, OSError, ValueError):  # not every system has every limit
            kind = getattr(resource, f"RLIMIT_{name}")
            _, hard = resource.getrlimit(kind)
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, least))


def end_in(seconds: float) -> None:
    """Let the system end the process in that time, where it can; 0 takes that back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


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
    environment = Environment()
    render(environment, {"template": WARM_UP, "names": {}})
    give_up_what_isnt_needed()
    while (request := receive(sys.stdin.buffer)) is not None:
        end_in(MOST_SECONDS)
        answer = render(environment, request)
        end_in(0)
        send(sys.stdout.buffer, answer)


if __name__ == "__main__":
    main()
