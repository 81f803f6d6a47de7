"""`groundup generate --interactive` as a person meets it: at a terminal, where keys edit a line,
Ctrl-C stops a text and Ctrl-D leaves, and by the lines of a pipe.
"""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import groundup as package
from commands import groundup, trained
from conftest import TINY, error_line, some_text
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import write_text
from terminal import terminal

Expected = Callable[..., str]
WORDS = "generate", "run", "--interactive", "--length", "12", "--seed", "4"
# lines that change nothing, and how what is said of them begins
WRONG = [
    ("", "Type a text to go on from; /help lists the commands"),
    ("/sett top_p 0.5", "unknown command /sett. Did you mean /set?"),
    ("/usr/bin", "unknown command /usr/bin. Known: /set, /seed,"),
    ("/set temprature 1", "unknown setting temprature. Did you mean temperature?"),
    ("/set top_p 2", "top-p = 2.0 must be in (0, 1]"),
    ("/set top-p nan", "top-p = nan must be in (0, 1]"),
    ("/set length 0.5", "length = 0.5 isn't a whole number: it must be at least 1 token"),
    ("/set stop don't", "stop = don't has a quote that isn't closed"),
    ("/set stop ''", "stop = ('',) must be at most 8 texts, none of them empty"),
    ("/seed -1", "seed = -1 must be a whole number from 0"),
    ("/more", "there is no text yet"),
    ("/retry", "there is no text yet"),
    ("/undo", "there is no text yet"),
    ("/save texts.txt", "there is no text yet"),
    ("/help me", "'me' after /help must be left out"),
    ("a§b", "character '§' (U+00A7) at position 1"),
]
UP, LEFT, BACKSPACE = "\x1b[A", "\x1b[D", "\x7f"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run in it, of context 16, whose characters include a slash."""
    made = tmp_path_factory.mktemp("interactive")
    (made / "text.txt").write_text("/ " + some_text(), "utf-8")
    trained("--corpus", "text.txt", "--steps", 20, "--name", "run", *TINY, folder=made)
    return made


@pytest.fixture(scope="module")
def expected(folder: Path) -> Expected:
    """What the model writes after a prompt, with the settings of WORDS but for what is given."""
    model, tokenizer = package.load(folder / "runs" / "run")
    assert tokenizer is not None

    def text(prompt: str, **settings: object) -> str:
        drawn = replace(SamplingSettings(length=12, seed=4), **settings)
        # what is longer than the context is left out
        return prompt + write_text(model, tokenizer, drawn, prompt[-16:])

    return text


def by_pipe(folder: Path, *lines: str, more: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    """What lines of a pipe get: the texts, and what stderr says after the model's description."""
    typed = "".join(f"{line}\n" for line in lines)
    finished = groundup(*WORDS, *more, folder=folder, input=typed)
    assert finished.returncode == 0, finished.stderr
    first, *said = finished.stderr.splitlines()
    assert first.endswith("; seed 4")
    return finished.stdout, said


def test_a_conversation_at_a_terminal(folder: Path, expected: Expected):
    with terminal(*WORDS, folder=folder) as person:
        person.expect("/help lists the commands, Ctrl-C stops a text, Ctrl-D leaves.\n")
        person.expect("> ")
        person.type(f"fax{LEFT}{BACKSPACE}o\n")  # a line can be edited
        person.expect(f"\n{expected('fox')}\n")
        person.expect("\x1b[2m12 tokens, ")  # dim
        person.expect("; seed 4")
        person.expect("> ")
        person.type(f"{UP}\n")  # and comes again
        person.expect(f"\n{expected('fox', seed=5)}\n")
        person.expect("> ")
        person.type("/set length 1000000\n")  # minutes of text: it can only end by being stopped
        person.expect("length = 1000000\n")
        person.expect("> ")
        person.type("the\n")
        person.expect("\nthe")
        person.expect_more(50)
        person.interrupt("stopped after ")
        person.expect("; seed 6")
        person.expect("> ")
        person.type("/quit")
        person.expect("/quit")
        person.interrupt("> ")  # the line is gone
        person.type("/seed\n")
        person.expect("seed = 7\n")
        person.expect("> ")
        person.type("\x04")
        assert person.end() == 0
    assert "Traceback" not in person.shown


def test_texts_alone_go_to_stdout(folder: Path, expected: Expected):
    """Typed at a terminal, and kept by `> texts.txt`."""
    keyboard, line = pty.openpty()
    pipe = subprocess.PIPE
    words = [sys.executable, "-m", "groundup", *WORDS]
    with subprocess.Popen(words, cwd=folder, stdin=line, stdout=pipe, stderr=pipe) as process:
        os.write(keyboard, b"fox\n/set\n\x04")
        texts, said = process.communicate(timeout=60)
    os.close(keyboard)
    os.close(line)
    assert process.returncode == 0
    assert texts.decode() == expected("fox") + "\n\n"
    assert said.decode().count("> ") == 3


def test_each_line_of_a_pipe_is_a_prompt_with_the_next_seed(folder: Path, expected: Expected):
    texts, said = by_pipe(folder, "fox", "fox", " the")
    assert texts == f"{expected('fox')}\n{expected('fox', seed=5)}\n{expected(' the', seed=6)}\n"
    pace = r"12 tokens(, [\d,]+ tokens/s)?, the first after \d+\.\d{3} s; seed %d"
    assert all(re.fullmatch(pace % seed, line) for seed, line in enumerate(said, 4)), said
    assert len(said) == 3


def test_a_file_from_windows_is_read_as_any_other(folder: Path):
    texts, _ = by_pipe(folder, "fox\r", "/retry\r", "fox\r")
    assert texts == by_pipe(folder, "fox", "/retry", "fox")[0]


def test_a_prompt_that_begins_with_a_slash_is_typed_with_two(folder: Path, expected: Expected):
    texts, _ = by_pipe(folder, "//fox", "///")
    assert texts == f"{expected('/fox')}\n{expected('//', seed=5)}\n"


def test_the_prompt_of_the_flag_comes_first(folder: Path, expected: Expected):
    texts, _ = by_pipe(folder, "the", more=("--prompt", "fox"))
    assert texts == f"{expected('fox')}\n{expected('the', seed=5)}\n"
    refused = groundup(*WORDS, "--prompt", "a§b", folder=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'§' (U+00A7) at position 1" in refused.stderr.splitlines()[-1]


def test_settings_hold_from_the_next_text_on(folder: Path, expected: Expected):
    whole = expected("fox", seed=7)
    end = whole[8:10]
    lines = ["/set top_p 0.5", "fox", "/set top-p default", "/set temperature 0", "fox"]
    lines += ["/set temperature 0.8", "/seed 7", f"/set stop 'never so' '{end}'", "fox"]
    texts, said = by_pipe(folder, *lines)
    cut = "fox" + whole[3 : whole.index(end, 3)]
    greedy = expected("fox", temperature=0.0)
    assert texts == f"{expected('fox', top_p=0.5)}\n{greedy}\n{cut}\n"
    shown = [line for line in said if " = " in line]
    assert shown == [
        *("top_p = 0.5", "top_p = 1.0", "temperature = 0.0", "temperature = 0.8", "seed = 7"),
        f"stop = 'never so' {end!r}",
    ]


def test_stop_texts_can_be_typed_as_they_are_shown(folder: Path, expected: Expected):
    shown = r"stop = '\n' '\\n' ' a' 'b'"
    lines = [r"/set stop \n \\n ' a' b", "/" + shown.replace("stop = ", "set stop ")]
    _, said = by_pipe(folder, *lines, "/set stop default")
    assert said == [shown, shown, "stop = none"]
    text = next(
        (seed, text)
        for seed in range(200)
        if "\n" in (text := expected("fox", seed=seed, length=100)) and text[3] != "\n"
    )
    lines = ["/set stop \\n", f"/seed {text[0]}", "/set length 100", "fox"]
    assert by_pipe(folder, *lines)[0] == text[1].partition("\n")[0] + "\n"


def test_all_settings_are_shown(folder: Path):
    _, said = by_pipe(folder, "/set", "/set top-k")
    assert said == [
        *("length = 12", "temperature = 0.8", "top_k = 0", "top_p = 1.0", "seed = 4"),
        *("min_p = 0.0", "repetition_penalty = 1.0", "presence_penalty = 0.0"),
        *("frequency_penalty = 0.0", "stop = none", "top_k = 0"),
    ]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_a_wrong_line_says_what_is_right_and_changes_nothing(line: str, said: str, wrong: Expected):
    assert wrong(line).startswith(said)


@pytest.fixture(scope="module")
def wrong(folder: Path, expected: Expected) -> Expected:
    """What is said of each wrong line, all of them typed into one conversation."""
    lines = [line for line, _ in WRONG]
    texts, said = by_pipe(folder, *lines, "fox")
    assert texts == expected("fox") + "\n"
    assert len(said) == len(lines) + 1
    assert not (folder / "texts.txt").exists()
    return dict(zip(lines, said, strict=False)).__getitem__


def test_more_goes_on_and_retry_begins_again(folder: Path, expected: Expected):
    texts, _ = by_pipe(folder, "fox", "/set top_p 0.7", "/more", "/retry", "/more")
    first = expected("fox")
    longer = expected(first, seed=5, top_p=0.7)
    again = expected("fox", seed=6, top_p=0.7)
    longer_again = expected(again, seed=7, top_p=0.7)
    assert texts.startswith(f"{first}\n{longer.removeprefix(first)}\n{again}\n")
    assert texts.endswith(f"\n{longer_again.removeprefix(again)}\n")


def test_what_is_undone_is_not_saved(folder: Path, expected: Expected):
    lines = ["fox", "the", "/more", "/save three.txt", "/undo", "/save two.txt", "/undo"]
    texts, said = by_pipe(folder, *lines, "/save one.txt", "/undo", "/save none.txt", "/undo")
    fox, the = expected("fox"), expected("the", seed=5)
    longer = expected(the, seed=6)
    assert texts == f"{fox}\n{the}\n{longer.removeprefix(the)}\n"

    def saved(name: str) -> str:
        return (folder / name).read_text("utf-8")

    assert saved("three.txt") == f"======== 1 of 2\n{fox}\n======== 2 of 2\n{longer}\n"
    assert saved("two.txt") == f"======== 1 of 2\n{fox}\n======== 2 of 2\n{the}\n"
    assert saved("one.txt") == f"{fox}\n"
    assert not (folder / "none.txt").exists()
    assert [line for line in said if "seed" not in line and "sees the newest" not in line] == [
        *("wrote 2 texts to three.txt", "forgotten; 2 texts left", "wrote 2 texts to two.txt"),
        *("forgotten; 1 text left", "wrote 1 text to one.txt", "forgotten; 0 texts left"),
        *["there is no text yet: type one to go on from"] * 2,
    ]


def test_an_existing_file_stays(folder: Path, tmp_path: Path):
    mine, link = tmp_path / "mine.txt", tmp_path / "link"
    mine.write_text("mine", "utf-8")
    link.symlink_to("nowhere")
    lines = [f"/save {mine}", f"/save {link}", f"/save {tmp_path}/no/file", "/save"]
    _, [_, *said] = by_pipe(folder, "fox", *lines)
    exists = "exists already. Choose another name"
    assert said == [
        f"{mine} {exists}",
        f"{link} {exists}",
        f"can't write {tmp_path}/no/file: No such file or directory. Choose another name",
        "/save needs the name of a file, as in /save texts.txt",
    ]
    assert mine.read_text("utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine.txt"]


def test_help_lists_every_command(folder: Path):
    _, said = by_pipe(folder, "/help", "/nothing")
    known = re.findall(r"/\w+", said[-1].partition("Known: ")[2].partition(".")[0])
    assert len(known) == 8
    assert [line.split()[0] for line in said[1:9]] == known
    assert "//" in said[0]


def test_quit_leaves_before_the_end_of_input(folder: Path, expected: Expected):
    assert by_pipe(folder, "fox", "/quit", "fox")[0] == expected("fox") + "\n"


def test_the_greatest_seed_is_followed_by_the_least(folder: Path):
    _, said = by_pipe(folder, f"/seed {2**63 - 1}", "/set length 1", "fox", "/seed")
    assert re.fullmatch(rf"1 token, the first after .* s; seed {2**63 - 1}", said[-2])
    assert said[-1] == "seed = 0"


def test_neither_bytes_that_are_no_text_nor_a_reader_that_goes_are_a_crash(folder: Path):
    words = [sys.executable, "-m", "groundup", *WORDS]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"\xff\nfox\n")
        process.stdin.flush()
        assert process.stdout.read(3) == b"fox"
        process.stdout.close()
        process.stdin.write(b"fox\nfox\n")
        process.stdin.close()
        said = process.stderr.read().decode()
    assert process.returncode == 141
    assert "(U+FFFD) at position 0" in said
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_several_samples_are_refused(folder: Path):
    assert "/retry" in error_line(groundup(*WORDS, "--samples", 2, folder=folder))
