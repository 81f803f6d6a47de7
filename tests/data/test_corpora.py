"""Texts by name and by path: the same content gives the same corpus, and what can't be read is
named.
"""

import hashlib
import re
import sysconfig
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TINY, error_line, some_text
from groundup.cli.main import app
from groundup.data.corpora import TINY_SHAKESPEARE, Corpus, load_corpus
from groundup.data.python_docs import python_docs
from groundup.data.splits import cut_text
from groundup.errors import CorpusError
from groundup.hub.cache import cache_folder


@pytest.fixture(scope="module")
def documentation() -> str:
    """The corpus that needs no network."""
    return load_corpus("python-docs").text


def test_the_documentation_is_large_and_always_the_same(documentation: str):
    assert len(documentation) > 1_500_000
    assert len(set(documentation)) < 1000
    assert python_docs(Path(sysconfig.get_path("stdlib"))) == documentation


def test_the_documentation_is_what_help_shows(documentation: str):
    """The topics first, in order; then docstrings, of which Python itself is the oracle."""
    import argparse
    import inspect
    import json as json_module
    from pydoc_data.topics import topics

    assert documentation.startswith(topics[min(topics)].strip())
    assert documentation.index(topics[max(topics)].strip()) < documentation.index(
        "\n\n__future__\n"
    )
    for documented, name in ((json_module, "json"), (argparse, "argparse")):
        indented = "\n".join(
            f"    {line}".rstrip() for line in (inspect.getdoc(documented) or "").splitlines()
        )
        assert f"\n\n{name}\n{indented}\n\n" in documentation
    assert (
        "\n\ntextwrap.dedent(text)\n    Remove any common leading whitespace from every line in"
        in documentation
    )
    assert "\n\nasyncio.events.AbstractEventLoop.run_forever(self)\n" in documentation


def test_what_distributions_change_is_left_out(documentation: str):
    headings = re.findall(r"^([A-Za-z_][\w.]*)(?:\(.*\))?\n {4}\S", documentation, re.MULTILINE)
    assert len(headings) > 5000
    rooms = {heading.partition(".")[0] for heading in headings}
    assert {"json", "asyncio", "unittest", "argparse"} <= rooms
    absent = {
        "test",
        "idlelib",
        "tkinter",
        "turtledemo",
        "lib2to3",
        "ensurepip",
        "site-packages",
        "pip",
    }
    assert not rooms & absent
    assert not [
        heading for heading in headings if re.search(r"\.tests\.|site-packages|config-", heading)
    ]


def test_the_library_is_read_and_not_run(tmp_path: Path):
    sources = {
        "b.py": f'"""Second."""\nopen({str(tmp_path / "ran")!r}, "w")\nraise SystemExit(3)\n',
        "a/__init__.py": '"""First."""\nclass C:\n    """A class."""\n'
        '    async def m(self, *, x: int = 1) -> str:\n        """Its method."""\n',
        "bad.py": "def (:\n",
        "pydoc_data/topics.py": "topics = {'zebra': 'Last topic\\n', 'apple': '\\nFirst topic'}\n",
        **{
            f"{room}/x.py": '"""Left out."""'
            for room in ("test", "a/tests", "idlelib", "tkinter", "turtledemo")
        },
        **{
            f"{room}/x.py": '"""Left out."""'
            for room in ("lib2to3", "ensurepip", "site-packages", "config-3.11-x86")
        },
    }
    for name, source in sources.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(source, "utf-8")
    assert python_docs(library=tmp_path / "lib") == (
        "First topic\n\nLast topic\n\na\n    First.\n\na.C\n    A class.\n\na.C.m(self, *, x: "
        "int=1)\n    Its method.\n\nb\n    Second.\n"
    )
    assert not (tmp_path / "ran").exists()


def test_a_python_without_its_library_is_named(tmp_path: Path):
    with pytest.raises(CorpusError, match=f"{tmp_path} has no documentation"):
        python_docs(library=tmp_path)


def reachable(url: str) -> bool:
    """Whether the network has this address."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


def test_shakespeare_is_the_text_that_it_should_be():
    if not (cache_folder() / TINY_SHAKESPEARE.path).is_file() and not reachable(
        TINY_SHAKESPEARE.url
    ):
        pytest.skip("Tiny Shakespeare is neither in the cache nor on the network")
    corpus = load_corpus("shakespeare")
    assert corpus.fingerprint == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
    assert len(corpus.text) == 1_115_394
    assert len(set(corpus.text)) == 65
    assert corpus.text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n")


def test_a_fingerprint_is_of_the_content_alone(tmp_path: Path):
    text = "čaj\r\n中文\n"
    (tmp_path / "one.txt").write_bytes(text.encode())
    (tmp_path / "other.md").write_bytes(text.encode())
    corpora = [load_corpus(str(tmp_path / name)) for name in ("one.txt", "other.md")]
    assert [corpus.text for corpus in corpora] == [text, text]  # line endings as they are
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert [corpus.fingerprint for corpus in corpora] == [expected, expected]
    assert Corpus("x", text + " ").fingerprint != expected


def test_a_folder_is_its_text_files_in_order(tmp_path: Path):
    folder = tmp_path / "texts"
    for name in (
        "b.txt",
        "a/z.md",
        "a/b.TXT",
        "a.txt",
        "c/.hidden/x.txt",
        ".x.txt",
        "picture.png",
        "d/e/f.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, "utf-8")
    assert load_corpus(str(folder)).text == "a/b.TXT\na/z.md\na.txt\nb.txt\nd/e/f.py"


def test_a_hidden_folder_given_by_name_is_read(tmp_path: Path):
    (tmp_path / ".notes").mkdir()
    (tmp_path / ".notes" / "x.txt").write_text("kept", "utf-8")
    assert load_corpus(str(tmp_path / ".notes")).text == "kept"


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.txt").write_text("at home", "utf-8")
    assert load_corpus("~/x.txt").text == "at home"


def write_bad(folder: Path) -> None:
    """A folder of what can't be a corpus."""
    (folder / "latin.txt").write_bytes(("x" * 1233 + "é").encode("latin-1"))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "none").mkdir()
    (folder / "none" / "x.bin").write_bytes(b"x")
    (folder / "mixed").mkdir()
    (folder / "mixed" / "a.txt").write_bytes(b"good")
    (folder / "mixed" / "b.txt").write_bytes(b"\xff\xfe")
    (folder / "short.txt").write_text("abc" * 8, "utf-8")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.txt", ["nowhere.txt", "python-docs, shakespeare"]),
        ("shakespear", ["shakespear", "python-docs, shakespeare"]),
        ("latin.txt", ["latin.txt", "0xe9 at offset 1,233", "iconv"]),
        ("mixed", ["b.txt", "0xff at offset 0"]),
        ("empty.txt", ["empty.txt", "0 characters"]),
        ("none", ["none holds no text file", ".txt"]),
        ("short.txt", ["short.txt", "21 tokens for training", "model.block_size = 64 needs 65"]),
    ],
)
def test_what_is_no_corpus_is_one_line(
    name: str,
    said: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    write_bad(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError) as raised:
        app(
            ["train", "bigram", "--corpus", name, "--steps", "1"],
            exit_on_error=False,
            print_error=False,
        )
    for part in said:
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("runs").exists()


def test_the_command_names_a_missing_corpus(tmp_path: Path):
    from commands import groundup

    line = error_line(
        groundup("train", "--corpus", "no/such.txt", "--steps", "1", *TINY, folder=tmp_path)
    )
    assert "no/such.txt" in line


@given(st.integers(2, 5000), st.floats(1e-6, 0.9))
def test_the_validation_split_is_the_end(length: int, fraction: float):
    tokens = np.arange(length)
    training, validation = cut_text(tokens, fraction)
    assert np.array_equal(np.concatenate([training, validation]), tokens)
    assert abs(len(validation) - fraction * length) <= 1


def test_a_run_keeps_the_last_tenth_for_validation(tmp_path: Path):
    training, validation = cut_text(np.arange(len(some_text())), 0.1)
    assert (len(training), len(validation)) == (5400, 600)
