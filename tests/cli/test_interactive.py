"""A conversation at a terminal: answers are remembered, Ctrl-C stops a text and nothing else,
Ctrl-D leaves.
"""

from pathlib import Path

from commands import trained
from conftest import TINY
from terminal import terminal


def test_a_conversation_at_a_terminal(tmp_path: Path, text_file: Path):
    trained("--corpus", text_file, "--steps", 5, "--name", "run", *TINY, folder=tmp_path)
    with terminal("generate", "run", "--interactive", folder=tmp_path) as person:
        person.expect("Ctrl-C stops a text, Ctrl-D leaves.")
        person.expect("Prompt []: ")
        person.type("fox\n")
        person.expect("Temperature (0.1 to 2) [0.8]: ")
        person.type("hot\n")
        person.expect("'hot' is not a number from 0.1 to 2.")
        person.expect("Temperature (0.1 to 2) [0.8]: ")
        person.type("0.5\n")
        person.expect("Length (1 to 1e+06) [500]: ")
        person.type("1000000\n")  # minutes of text: it can only end by being stopped
        person.expect("fox")
        person.expect_more(50)
        person.interrupt("[stopped]")
        person.expect("Prompt [fox]: ")
        person.type("\n")
        person.expect("Temperature (0.1 to 2) [0.5]: ")
        person.type("\n")
        person.expect("Length (1 to 1e+06) [1e+06]: ")
        person.interrupt("[stopped]")  # at a question: it asks again
        person.expect("Prompt [fox]: ")
        person.type("\n\n5\n")
        person.expect("Prompt [fox]: ")
        person.type("\x04")
        assert person.end() == 0
    assert "Traceback" not in person.shown
