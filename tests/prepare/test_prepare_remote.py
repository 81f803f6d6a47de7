"""`groundup prepare` from the hub: the same shards as from the same files here, whatever the
network does.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import Cli, error_line
from hub_server import Hub, running_hub
from sample_sources import files_of, small_tokenizer, some_documents, write_rows

FILES = 3
LIMIT = 40_000  # tokens: most of 24 files of 20 documents


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A dataset of three files, which are in the folder `here` too; and a small tokenizer."""
    (tmp_path / "here").mkdir()
    contents = {}
    for number in range(FILES):
        path = write_rows(
            tmp_path / "here" / f"{number:03}.parquet", some_documents(100, seed=number)
        )
        contents[f"sample/10BT/{path.name}"] = path.read_bytes()
    small_tokenizer(tmp_path / "small")
    with running_hub() as hub:
        hub.add("datasets", "HuggingFaceFW/fineweb-edu", contents)
        yield hub


@pytest.fixture
def fetch(cli: Cli, hub: Hub) -> Cli:
    """`groundup prepare SOURCE ...` with that hub."""
    environment = {
        "HF_ENDPOINT": hub.url,
        "GROUNDUP_NETWORK_TIMEOUT": "0.3",
        "no_proxy": "*",
        "HF_HUB_OFFLINE": "0",
    }
    return lambda source, *flags: cli(
        *("prepare", source, "--tokenizer", "small", "--out", "out", *flags), env=environment
    )


def shards(folder: Path) -> dict[str, str]:
    return {name: sha for name, sha in files_of(folder).items() if name.endswith(".bin")}


def stored(path: Path) -> str:
    """Where the hub keeps a large file."""
    return f"/files/{hashlib.sha256(path.read_bytes()).hexdigest()}"


def local_shards(cli: Cli, tmp_path: Path, *flags: str) -> dict[str, str]:
    """What the same files give from a folder."""
    finished = cli(
        "prepare", "here", "--tokenizer", "small", "--out", "local", "--validation", "0.001", *flags
    )
    assert finished.returncode == 0, finished.stderr
    return shards(tmp_path / "local")


@pytest.mark.parametrize(
    "source", ["fineweb-edu", "hf://datasets/HuggingFaceFW/fineweb-edu/sample"]
)
def test_remote_files_give_what_local_ones_do(source: str, fetch: Cli, cli: Cli, tmp_path: Path):
    finished = fetch(source)
    assert finished.returncode == 0, finished.stderr
    assert shards(tmp_path / "out") == local_shards(cli, tmp_path)
    assert not (tmp_path / "out" / ".work").exists()


def test_a_line_that_drops_is_taken_up_again(fetch: Cli, cli: Cli, hub: Hub, tmp_path: Path):
    hub.fail(stored(tmp_path / "here" / "001.parquet"), "drop", times=2, at=500)
    finished = fetch("fineweb-edu", "--workers", "1")
    assert finished.returncode == 0, finished.stderr
    assert shards(tmp_path / "out") == local_shards(cli, tmp_path)


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("drop", 0, "ended after 500"),
        ("hang", 0, "001.parquet"),
        ("status", 404, "001.parquet"),
        ("wrong", 0, "SHA-256"),
    ],
)
def test_a_file_that_can_not_be_had_is_named_and_later_it_goes_on(  # noqa: PLR0917
    kind: str, status: int, said: str, fetch: Cli, cli: Cli, hub: Hub, tmp_path: Path
):
    where = stored(tmp_path / "here" / "001.parquet")
    hub.fail(where, kind, times=100, at=500 if kind == "drop" else -1, status=status)
    finished = fetch("fineweb-edu", "--workers", "1")
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith("groundup: ")
    assert said in last
    assert not list((tmp_path / "out").glob("*.bin"))
    hub.faults.clear()
    asked = len(hub.asked)
    assert fetch("fineweb-edu", "--workers", "1").returncode == 0
    # it was done before
    assert not [request for request in hub.asked[asked:] if "000.parquet" in request.path]
    assert shards(tmp_path / "out") == local_shards(cli, tmp_path)


def test_tokens_ends_the_downloads(fetch: Cli, cli: Cli, hub: Hub, tmp_path: Path):
    finished = fetch("fineweb-edu", "--tokens", "500")
    assert finished.returncode == 0, finished.stderr
    assert {
        request.path.rpartition("/")[2] for request in hub.asked if "resolve" in request.path
    } == {"000.parquet"}
    assert shards(tmp_path / "out") == local_shards(cli, tmp_path, "--tokens", "500")


def test_with_tokens_a_file_is_deleted_once_its_documents_are_tokens(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No more than one is there, whenever another one is encoded."""
    from groundup.prepare import pipeline, steps
    from groundup.prepare.plan import Preparation

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("no_proxy", "*")
    seen, examine = [], steps.digest_of

    def watched(data: bytes) -> bytes:
        seen.append(len(list((tmp_path / "out" / ".work" / "downloads").rglob("*.parquet"))))
        return examine(data)

    monkeypatch.setattr(steps, "digest_of", watched)
    tokenizer = str(tmp_path / "small")
    wanted = Preparation("fineweb-edu", tokenizer, validation=0.5, limit=40_000)
    pipeline.prepare(wanted, tmp_path / "out", workers=1)
    assert len(seen) > 200
    assert set(seen) == {1}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("is_overshot", [False, True])
def test_a_slow_part_keeps_few_files_of_the_others(
    workers: int, is_overshot: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first part is done last. Which part is the last one of the limit isn't known before.

    Where the limit was expected much later, the last part's file is downloaded again.
    """
    from groundup.prepare import pipeline
    from groundup.prepare import workers as processes
    from groundup.prepare.plan import Preparation

    (tmp_path / "many").mkdir()
    rows = [
        write_rows(tmp_path / "many" / f"{number:03}.parquet", some_documents(20, seed=number))
        for number in range(24)
    ]
    tokenizer = str(small_tokenizer(tmp_path / "small"))
    downloads = tmp_path / "out" / ".work" / "downloads"
    kept: list[int] = []

    def slow_first(calls: Iterable[Any]) -> Iterator[Any]:
        first, *others = calls
        for name, arguments in [*others, first]:
            kept.append(len(list(downloads.rglob("*.parquet"))))
            yield (name, arguments), processes.CALLS[name](**arguments)

    @contextmanager
    def runner(*_: object) -> Iterator[Any]:
        yield slow_first

    with running_hub() as hub, monkeypatch.context() as patch:
        for name, value in (("HF_ENDPOINT", hub.url), ("HF_HUB_OFFLINE", "0"), ("no_proxy", "*")):
            patch.setenv(name, value)
        patch.setattr(pipeline, "runner", runner)
        if is_overshot:
            patch.setattr(pipeline, "_wave", lambda plan, first, _: range(first, len(plan.parts)))
        files = {f"sample/10BT/{path.name}": path.read_bytes() for path in rows}
        hub.add("datasets", "HuggingFaceFW/fineweb-edu", files)
        wanted = Preparation("fineweb-edu", tokenizer, validation=0.5, limit=LIMIT)
        pipeline.prepare(wanted, tmp_path / "out", workers=workers)
    fetched = [request.path for request in hub.asked if "resolve" in request.path]
    assert (len(fetched) > len(set(fetched))) == is_overshot
    assert max(kept) == workers + 1  # its own was read for the plan
    here = Preparation(str(tmp_path / "many"), tokenizer, validation=0.5, limit=LIMIT)
    pipeline.prepare(here, tmp_path / "local", workers=1)
    assert shards(tmp_path / "out") == shards(tmp_path / "local")


def test_a_finished_one_needs_no_network(fetch: Cli, hub: Hub, tmp_path: Path):
    assert fetch("fineweb-edu").returncode == 0
    asked, before = len(hub.asked), files_of(tmp_path / "out")
    assert fetch("fineweb-edu").returncode == 0
    assert len(hub.asked) == asked
    assert files_of(tmp_path / "out") == before


def test_what_is_not_there(fetch: Cli, tmp_path: Path):
    assert "no sample 1BT" in error_line(fetch("fineweb-edu", "--sample", "1BT"))
    assert "--sample 10BT is for fineweb-edu" in error_line(fetch("here", "--sample", "10BT"))
    assert "no/where" in error_line(fetch("hf://datasets/no/where"))
    assert not (tmp_path / "out").exists()
