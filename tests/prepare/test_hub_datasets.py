"""Datasets on a hub that runs here: what is listed and brought is right, whatever the network does
meanwhile.
"""

import email.utils
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile

from groundup.errors import CorpusError
from groundup.prepare.hub_datasets import (
    HubDataset,
    RemoteParquet,
    download,
    list_files,
    named_dataset,
)
from hub_server import Hub, running_hub, wait_until

NAME = "someone/books"
FIRST = bytes(range(256)) * 1000
FILES = {
    "README.md": b"# Books",
    "text/b.parquet": FIRST,
    "text/a.parquet": FIRST[7:] + b"a",
    "text/deeper/ü c.parquet": b"c" * 1000,
    "text/notes.json": b"{}",
    "other/z.parquet": b"z",
}
LIMIT = 1.0  # seconds of silence; the waits between tries follow it: 0.025, 0.05, 0.1, 0.2
SHORT = 0.15  # where the silence is what is tested
FOREVER = 10**9


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one dataset, named by the environment; no proxy, no token and not much
    patience.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    # read on import, which another file may have forbidden the network for
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with running_hub() as running:
        running.add("datasets", NAME, FILES)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("GROUNDUP_NETWORK_TIMEOUT", str(LIMIT))
        monkeypatch.setenv("no_proxy", "*")
        yield running


def book(hub: Hub) -> RemoteParquet:
    """text/b.parquet as the hub lists it."""
    return next(
        file for file in list_files(HubDataset(NAME, "text")) if file.path == "text/b.parquet"
    )


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder with its size."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def one_line(error: pytest.ExceptionInfo[CorpusError]) -> str:
    line = str(error.value)
    assert "\n" not in line
    return line


def test_named_datasets():
    assert named_dataset("fineweb-edu") == HubDataset("HuggingFaceFW/fineweb-edu", "sample/10BT")
    assert named_dataset("fineweb-edu", "350BT") == HubDataset(
        "HuggingFaceFW/fineweb-edu", "sample/350BT"
    )
    assert named_dataset("openwebtext") == HubDataset("Skylion007/openwebtext", "plain_text")
    assert named_dataset("hf://datasets/a/b.c-d") == HubDataset("a/b.c-d", "")
    assert named_dataset("hf://datasets/a/b@v1/x/y/") == HubDataset("a/b", "x/y", revision="v1")
    converted = HubDataset("a/b", "default/train", revision="refs/convert/parquet")
    assert named_dataset("hf://datasets/a/b@refs/convert/parquet/default/train") == converted
    assert named_dataset("hf://datasets/a/b@refs%2Fconvert%2Fparquet/default/train") == converted
    assert named_dataset("shakespeare") is None
    assert named_dataset("books/fineweb-edu.parquet") is None


def test_a_sample_that_does_not_exist_is_refused_with_the_choices():
    with pytest.raises(
        CorpusError, match=r"no sample 20BT. Choose --sample 10BT or 100BT or 350BT"
    ):
        named_dataset("fineweb-edu", "20BT")
    for name in ("openwebtext", "shakespeare", "hf://datasets/a/b"):
        with pytest.raises(
            CorpusError, match=f"--sample 10BT is for fineweb-edu; {name} has no samples"
        ):
            named_dataset(name, "10BT")


@pytest.mark.parametrize(
    "rest",
    [
        "datasets/a",
        "a/b",
        "models/a/b",
        "datasets/a/b/../c",
        "datasets/a/..",
        "datasets/a/b@",
        "datasets/a b/c",
    ],
)
def test_a_bad_address_is_refused_with_the_form(rest: str):
    with pytest.raises(
        CorpusError, match=r"no address of a dataset. Its form is hf://datasets/OWNER/NAME"
    ):
        named_dataset(f"hf://{rest}")


@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_the_list_is_what_huggingface_hub_lists(page_size: int, hub: Hub):
    hub.page_size = page_size
    api = HfApi(endpoint=hub.url)
    commit = api.dataset_info(NAME).sha
    peer = list(
        api.list_repo_tree(NAME, "text", recursive=True, revision=commit, repo_type="dataset")
    )
    expected = sorted(
        (entry.path, entry.size, entry.lfs.sha256)
        for entry in peer
        if isinstance(entry, RepoFile) and entry.lfs is not None
    )
    listed = list_files(HubDataset(NAME, "text"))
    assert [(file.path, file.size, file.sha256) for file in listed] == expected
    assert [file.path for file in listed] == [
        "text/a.parquet",
        "text/b.parquet",
        "text/deeper/ü c.parquet",
    ]
    assert {(file.repository, file.revision) for file in listed} == {(NAME, commit)}


def test_one_file_and_a_whole_repository_can_be_named(hub: Hub):
    assert [file.path for file in list_files(HubDataset(NAME, "other/z.parquet"))] == [
        "other/z.parquet"
    ]
    assert len(list_files(HubDataset(NAME, ""))) == 4


def test_every_file_comes_as_it_is(hub: Hub, tmp_path: Path):
    for file in list_files(HubDataset(NAME, "")):
        told: list[int] = []
        path = download(file, tmp_path, told.append)
        assert path == tmp_path / file.path
        assert path.read_bytes() == FILES[file.path]
        assert told == sorted(told)
        assert told[-1] == file.size
    assert files(tmp_path) == {
        path: len(content) for path, content in FILES.items() if path.endswith(".parquet")
    }


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_the_hub_of_these_tests_serves_huggingface_hub_too(kind: str, hub: Hub, tmp_path: Path):
    """The oracle of the server: what a client that isn't ours gets from it."""
    hub.add(f"{kind}s", "someone/else", FILES)
    for path, content in FILES.items():
        got = hf_hub_download(
            "someone/else", path, repo_type=kind, endpoint=hub.url, local_dir=tmp_path
        )
        assert Path(got).read_bytes() == content


def test_a_file_of_which_the_hub_knows_no_sha_comes_too(hub: Hub, tmp_path: Path):
    """Small files aren't in LFS."""
    file = RemoteParquet(NAME, "main", "README.md", len(FILES["README.md"]), None)
    assert download(file, tmp_path).read_bytes() == FILES["README.md"]


def test_the_files_stay_those_of_the_list_when_the_dataset_changes(hub: Hub, tmp_path: Path):
    listed = book(hub)
    hub.add("datasets", NAME, {"text/b.parquet": b"other"})
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert book(hub).size == 5


def test_another_revision_is_another_dataset(hub: Hub, tmp_path: Path):
    hub.add("datasets", NAME, {"default/0.parquet": b"converted"}, "refs/convert/parquet")
    dataset = named_dataset(f"hf://datasets/{NAME}@refs/convert/parquet")
    assert dataset is not None
    (file,) = list_files(dataset)
    assert download(file, tmp_path).read_bytes() == b"converted"


def test_a_file_that_is_there_needs_no_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = book(hub)
    download(listed, tmp_path)
    asked = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert len(hub.asked) == asked


def test_the_token_goes_to_the_hub_and_not_to_its_file_server(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert download(book(hub), tmp_path).read_bytes() == FIRST
    tokens = {(asked.host.split(":")[0], asked.token) for asked in hub.asked}
    assert tokens == {("127.0.0.1", "Bearer hf_secret"), ("localhost", None)}


def test_a_moved_dataset_is_followed_with_the_token(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    for verb in ("revision", "tree"):
        place = (
            f"/{verb}/main"
            if verb == "revision"
            else f"/{verb}/{hub.add('datasets', NAME, FILES)}/text"
        )
        to = {"Location": f"/api/datasets/{NAME}{place}"}
        hub.fail(f"/api/datasets/old/name/{verb}", "status", status=307, headers=to)
    assert len(list_files(HubDataset("old/name", "text"))) == 3


# What the network does, and what comes of it.


def test_a_connection_that_drops_half_way_is_taken_up_again(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    listed = book(hub)
    hub.fail("/files/", "drop", at=100_000)
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert hub.ranges() == [None, "bytes=100000-"]
    assert len(caplog.messages) == 1
    assert "100,000 of 256,000 bytes" in caplog.messages[0]
    assert "try 2 of 5" in caplog.messages[0]


def test_a_connection_that_always_drops_is_one_line_and_the_next_call_goes_on(
    hub: Hub, tmp_path: Path
):
    listed = book(hub)
    hub.fail("/files/", "drop", FOREVER, at=100_000)
    with pytest.raises(
        CorpusError, match=r"text/b.parquet can't be had .* 100,000 of 256,000 .* to go on"
    ) as raised:
        download(listed, tmp_path)
    assert hub.url in one_line(raised)
    assert hub.ranges() == [None, *["bytes=100000-"] * 4]
    assert files(tmp_path) == {"text/b.parquet.part": 100_000}
    hub.faults.clear()
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert hub.ranges()[-1] == "bytes=100000-"
    assert files(tmp_path) == {"text/b.parquet": len(FIRST)}


def test_tries_count_only_while_nothing_comes(hub: Hub, tmp_path: Path):
    """A large file over a line that drops every megabyte and a half: more failures than tries, and
    yet it comes.
    """
    content = os.urandom(9 << 20)
    hub.add("datasets", NAME, {"large.parquet": content})
    for at in range(1, 6):
        hub.fail("/files/", "drop", at=at * 3 << 19)
    (listed,) = list_files(HubDataset(NAME, ""))
    assert download(listed, tmp_path).read_bytes() == content
    assert len(hub.ranges()) == 6


@pytest.mark.parametrize("at", [-1, 1000])
def test_a_server_that_falls_silent_is_asked_again_and_then_given_up(
    at: int, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = book(hub)
    monkeypatch.setenv("GROUNDUP_NETWORK_TIMEOUT", str(SHORT))
    hub.fail("/files/", "hang", at=at)
    assert download(listed, tmp_path).read_bytes() == FIRST
    (tmp_path / listed.path).unlink()
    hub.asked.clear()
    hub.fail("/files/", "hang", FOREVER, at=at)
    # the server would have kept us for 100 seconds
    with pytest.raises(CorpusError, match="timed out") as raised:
        download(listed, tmp_path)
    assert listed.path in one_line(raised)
    assert len(hub.ranges()) == 5


@pytest.mark.parametrize("where", ["/revision/", "/tree/"])
def test_a_list_that_never_comes_is_given_up(where: str, hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GROUNDUP_NETWORK_TIMEOUT", str(SHORT))
    hub.fail(where, "hang", FOREVER, at=-1)
    with pytest.raises(
        CorpusError, match=f"dataset {NAME}.* can't be had from {hub.url}: timed out"
    ):
        list_files(HubDataset(NAME, "text"))
    assert len([asked for asked in hub.asked if where in asked.path]) == 5


@pytest.mark.parametrize("where", ["/revision/", "/tree/", "/resolve/", "/files/"])
@pytest.mark.parametrize("statuses", [(500, 429), (503, 408)])
def test_a_failure_that_passes_is_asked_again(
    where: str, statuses: tuple[int, int], hub: Hub, tmp_path: Path
):
    for status in statuses:
        hub.fail(where, "status", status=status)
    assert download(book(hub), tmp_path).read_bytes() == FIRST


def test_a_failure_that_stays_is_one_line(hub: Hub, tmp_path: Path):
    hub.fail("/resolve/", "status", FOREVER, status=502)
    with pytest.raises(CorpusError, match=r"HTTP 502 Bad Gateway. Run again later"):
        download(book(hub), tmp_path)
    assert len(hub.ranges("/resolve/")) == 5
    assert files(tmp_path) == {}


def test_the_wait_that_the_hub_asks_for_is_kept(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    listed = book(hub)
    hub.fail("/resolve/", "status", status=429, headers={"Retry-After": "1"})
    assert download(listed, tmp_path).read_bytes() == FIRST
    first, second = (asked.when for asked in hub.asked if "/resolve/" in asked.path)
    assert second - first >= 0.9  # without being asked: 0.025
    assert "429" in caplog.messages[0]


@pytest.mark.parametrize("how", ["seconds", "date", "RateLimit"])
def test_a_wait_of_an_hour_is_not_waited_for(how: str, hub: Hub, tmp_path: Path):
    listed = book(hub)
    dated = {"Retry-After": email.utils.formatdate(time.time() + 3600, usegmt=True)}
    asks = {
        "seconds": {"Retry-After": "3600"},
        "date": dated,
        "RateLimit": {"RateLimit": '"resolvers";r=0;t=3600'},
    }
    hub.fail("/resolve/", "status", status=429, headers=asks[how])
    with pytest.raises(CorpusError, match=r"HTTP 429 Too Many Requests. Run again later"):
        download(listed, tmp_path)


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (
            (401, "RepoNotFound"),
            "Either there is none of that name, or it asks for an account: `hf auth login`",
        ),
        (
            (401, "GatedRepo"),
            "Accept its terms on {hub}/datasets/someone/books, then `hf auth login` or set "
            "HF_TOKEN",
        ),
        (
            (403, "GatedRepo"),
            "Accept its terms on {hub}/datasets/someone/books, then `hf auth login` or set "
            "HF_TOKEN",
        ),
        ((404, "EntryNotFound"), "There is no such "),
        ((404, "RevisionNotFound"), "There is no branch, tag or commit "),
    ],
)
@pytest.mark.parametrize("where", ["/revision/", "/tree/", "/resolve/"])
def test_a_refusal_is_named_at_once(
    where: str, refusal: tuple[int, str], remedy: str, hub: Hub, tmp_path: Path
):
    status, code = refusal
    told = {"X-Error-Code": code, "X-Error-Message": "no, thank you"}
    hub.fail(where, "status", FOREVER, status=status, headers=told)
    with pytest.raises(CorpusError) as raised:
        download(book(hub), tmp_path)
    assert f"dataset {NAME}" in one_line(raised)
    assert (
        f"{hub.url} answers HTTP {status} no, thank you. {remedy.format(hub=hub.url)}"
        in one_line(raised)
    )
    assert len([asked for asked in hub.asked if where in asked.path]) == 1
    assert files(tmp_path) == {}


def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path):
    for dataset, named in [
        (HubDataset("no/body", ""), "dataset no/body: .* none of that name"),
        (HubDataset(NAME, "", revision="v9"), f"dataset {NAME}@v9: .* no branch, tag or commit v9"),
        (HubDataset(NAME, "nowhere"), f"dataset {NAME}@.*, nowhere: .* no such file or folder"),
        (
            HubDataset(NAME, "other/y.parquet"),
            f"dataset {NAME} has no parquet file at other/y.parquet",
        ),
    ]:
        with pytest.raises(CorpusError, match=named) as raised:
            list_files(dataset)
        one_line(raised)
    hub.add("datasets", "some/json", {"data/a.json": b"{}"})
    with pytest.raises(CorpusError, match=r"no parquet file in folder data.*@refs/convert/parquet"):
        list_files(HubDataset("some/json", "data"))


def test_a_refusal_of_the_file_server_is_not_the_hubs(hub: Hub, tmp_path: Path):
    hub.fail("/files/", "status", status=403)
    with pytest.raises(
        CorpusError, match=r"http://localhost:.* answers HTTP 403 Forbidden. Run again later"
    ):
        download(book(hub), tmp_path)


def test_a_wrong_file_is_refused_and_never_has_its_name(hub: Hub, tmp_path: Path):
    listed = book(hub)
    hub.fail("/files/", "wrong")
    with pytest.raises(
        CorpusError, match=r"SHA-256 .* instead of .* run again to download it afresh"
    ) as raised:
        download(listed, tmp_path)
    one_line(raised)
    assert files(tmp_path) == {}
    assert download(listed, tmp_path).read_bytes() == FIRST


def test_the_page_of_a_log_in_is_refused_before_a_byte_is_kept(hub: Hub, tmp_path: Path):
    listed = book(hub)
    hub.fail("/files/", "short", FOREVER)
    with pytest.raises(
        CorpusError, match="has 26 bytes instead of 256,000: another file answers there"
    ):
        download(listed, tmp_path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("where", ["/revision/", "/tree/"])
@pytest.mark.parametrize(
    "page",
    [b"<html>", b"[1]", b'{"sha": 1}', b'[{"type": "file", "path": "../x.parquet", "size": 1}]'],
)
def test_an_answer_that_is_no_hubs_is_named(where: str, page: bytes, hub: Hub):
    hub.stored["page"] = page
    hub.fail(where, "status", status=302, headers={"Location": "/files/page"})
    with pytest.raises(CorpusError, match="doesn't answer as Hugging Face's hub does"):
        list_files(HubDataset(NAME, "text"))


def test_a_server_that_ignores_ranges_sends_all_again(hub: Hub, tmp_path: Path):
    listed = book(hub)
    hub.fail("/files/", "drop", at=100_000)
    hub.fail("/files/", "deaf")
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert hub.ranges() == [None, "bytes=100000-"]


def test_another_part_than_the_one_asked_for_is_not_appended(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Nobody knows this file's SHA-256: its length would be right."""
    listed = replace(book(hub), sha256=None)
    hub.fail("/files/", "drop", at=100_000)
    hub.fail("/files/", "shifted")
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert (
        "asked for the bytes from 100,000 on, the server sent: bytes 0-255999/256000"
        in caplog.messages[1]
    )


def test_more_bytes_than_the_server_has_are_not_kept(hub: Hub, tmp_path: Path):
    """A partial file that the server's file ends before: 416, and it comes from the beginning."""
    hub.add("datasets", NAME, {"text/b.parquet": FIRST, "text/short.parquet": b"short"})
    listed = next(
        file for file in list_files(HubDataset(NAME, "")) if file.path == "text/short.parquet"
    )
    part = tmp_path / "text" / "short.parquet.part"
    part.parent.mkdir()
    part.write_bytes(b"sho")
    hub.fail("/files/", "status", status=416)
    assert download(listed, tmp_path).read_bytes() == b"short"
    assert hub.ranges() == ["bytes=3-", None]


def test_killed_in_the_middle_it_goes_on(hub: Hub, tmp_path: Path):
    """A process of its own, killed with -9; and neither torch nor huggingface_hub's client was
    needed to import it.
    """
    listed = book(hub)
    hub.fail("/files/", "hang", at=150_000)
    program = (
        "import sys; from pathlib import Path; from groundup.prepare.hub_datasets import "
        "RemoteParquet, download\nassert not {'torch', 'huggingface_hub'} & "
        f"set(sys.modules)\ndownload({listed!r}, Path({str(tmp_path)!r}))"
    )
    environment = os.environ | {"GROUNDUP_NETWORK_TIMEOUT": "60"}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
        part = tmp_path / "text" / "b.parquet.part"
        wait_until(
            lambda: process.poll() is not None or (part.exists() and part.stat().st_size > 65_536)
        )
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = part.stat().st_size
    assert files(tmp_path) == {"text/b.parquet.part": kept}
    assert download(listed, tmp_path).read_bytes() == FIRST
    assert hub.ranges()[-1] == f"bytes={kept}-"


def test_a_damaged_file_under_the_final_name_is_named_and_kept(hub: Hub, tmp_path: Path):
    listed = book(hub)
    path = download(listed, tmp_path)
    path.write_bytes(FIRST[:-1] + b"!")
    with pytest.raises(CorpusError, match=f"{path} has SHA-256 .* Delete it to download it again"):
        download(listed, tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != listed.sha256


def test_offline_mode_and_no_network_are_one_line(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    listed = book(hub)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for call in (lambda: list_files(HubDataset(NAME, "text")), lambda: download(listed, tmp_path)):
        with pytest.raises(
            CorpusError, match=f"{NAME}.* has to be downloaded, and HF_HUB_OFFLINE=1 forbids it"
        ):
            call()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for call in (lambda: list_files(HubDataset(NAME, "text")), lambda: download(listed, tmp_path)):
        with pytest.raises(
            CorpusError, match=r"can't be had from http://127.0.0.1:9: .*refused. Check the network"
        ):
            call()
    assert files(tmp_path) == {}


def test_a_disk_that_takes_nothing_is_not_the_network(hub: Hub, tmp_path: Path):
    listed = book(hub)
    (tmp_path / "text").write_text("a file where the folder should be", "utf-8")
    with pytest.raises(CorpusError, match=r"text/b.parquet can't be written: .*exists"):
        download(listed, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT=huggingface.co is no address"),
        (
            "GROUNDUP_NETWORK_TIMEOUT",
            "soon",
            "GROUNDUP_NETWORK_TIMEOUT=soon is no number of seconds",
        ),
        ("GROUNDUP_NETWORK_TIMEOUT", "0", "GROUNDUP_NETWORK_TIMEOUT=0 is no number of seconds"),
        ("GROUNDUP_NETWORK_TIMEOUT", "nan", "GROUNDUP_NETWORK_TIMEOUT=nan is no number of seconds"),
    ],
)
def test_bad_settings_are_refused(
    name: str, value: str, complaint: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(CorpusError, match=complaint):
        list_files(HubDataset(NAME, "text"))
