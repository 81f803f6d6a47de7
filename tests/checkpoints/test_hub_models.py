"""Models of the hub, from a hub that runs here: fetched once and whole, or refused in one line."""

import json
import logging
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from conftest import Cli, error_line
from groundup import GPT2, GPTConfig, Modern, load
from groundup.checkpoints import model_folder
from groundup.checkpoints.find import find_model, on_hub
from groundup.errors import CheckpointError, CorpusError, GroundupError
from groundup.hub.cache import repository_of
from hub_server import Hub, running_hub
from model_files import INDEX, WHOLE, contents, published, shard
from shard_files import learned

NAME = "openai-community/gpt2"
LIMIT = 0.5  # seconds of silence; the waits between tries follow it
NOTHING: list[str] = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 with a byte-level tokenizer, spelled as the published one."""
    path, tokenizer = tmp_path_factory.mktemp("models") / "gpt2", learned()
    torch.manual_seed(0)
    model_folder.save(path, GPT2(GPTConfig(16, tokenizer.vocab_size, 1, 2, 8)), tokenizer)
    published(path)
    return path


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub with one model and what nobody asks for; no proxy, no token, no patience, and a cache
    of the test's own.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as running:
        others = {
            "README.md": b"# GPT-2",
            "pytorch_model.bin": pickle.dumps(0),
            "onnx/model.safetensors": b"other",
        }
        running.add("models", NAME, contents(folder) | others)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("GROUNDUP_NETWORK_TIMEOUT", str(LIMIT))
        monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
        # read on import
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
        monkeypatch.chdir(tmp_path)
        yield running


def fetched(name: str) -> Path:
    """The folder of a name, all reports left out."""
    return find_model(name)


def complete_folders(tmp_path: Path) -> list[str]:
    """The commits that the cache says it has."""
    return [path.name for path in (tmp_path / "cache").glob("hub/*/*/*") if len(path.name) == 40]


def assert_equal(one: GPT2, other: GPT2) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_gpt2_comes_once_and_then_without_a_network(
    hub: Hub,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "groundup")
    found = find_model("gpt2")
    commit = found.name
    assert found == tmp_path / "cache" / "hub" / NAME / commit
    assert commit in hub.repositories["models", NAME]
    needed = {"config.json", WHOLE, "tokenizer.json", "tokenizer_config.json"}
    assert contents(found) == {
        name: content for name, content in contents(folder).items() if name in needed
    }
    (told,) = caplog.messages
    assert f"downloading model {NAME}@{commit[:12]}" in told
    requests = len(hub.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert_equal(GPT2.from_pretrained("gpt2"), GPT2.from_pretrained(folder))
    assert_equal(GPT2.from_pretrained(NAME), GPT2.from_pretrained(folder))
    assert load("gpt2")[1] is not None
    assert len(hub.asked) == requests
    # main moves on; the name means what was fetched
    hub.add("models", NAME, {"config.json": b"{}"})
    assert find_model("gpt2") == found
    assert caplog.messages == [told]


def test_generate_just_works_and_says_what_from_where(hub: Hub, cli: Cli, tmp_path: Path) -> None:
    arguments = ("generate", "gpt2", "--prompt", "the quick", "--length", "5", "--greedy")
    first, second = cli(*arguments), cli(*arguments, env={"HF_HUB_OFFLINE": "1"})
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.startswith("the quick")
    assert f"downloading model {NAME}@" in first.stderr
    assert "downloading" not in second.stderr
    assert "gpt2, " in second.stderr
    assert f"from {tmp_path}/cache/hub/{NAME}/" in second.stderr


def test_a_folder_and_a_run_win_over_the_hub(hub: Hub, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gpt2").symlink_to(folder)
    assert fetched("gpt2") == Path("gpt2")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "gpt2").symlink_to(folder)
    assert fetched("gpt2") == Path("runs/gpt2")
    for name in ("foo/bar--x", "a/b.git", "-a/b", "a/b."):  # what the hub has no names like
        with pytest.raises(CorpusError, match="HTTP 401"):
            fetched(name)
    hub.asked.clear()
    for name in (
        "runs/typo",
        "typo",
        "./gpt3",
        "a/b/c",
        "../a",
        "someone/model.pt",
        "someone/x.safetensors",
        "a b/c",
    ):
        with pytest.raises(
            CheckpointError, match=r"is neither a run nor a model folder, nor a model of the hub"
        ):
            fetched(name)
    assert hub.asked == []
    assert str(on_hub("Qwen/Qwen3-0.6B@v1.0")) == "model Qwen/Qwen3-0.6B@v1.0"
    assert str(on_hub("gpt2-xl")) == "model openai-community/gpt2-xl"


def test_shards_a_revision_and_a_token(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    model_folder.save(copy, GPT2.from_pretrained(folder), None)
    shard(copy, 3)
    hub.add("models", "someone/gpt", contents(copy), revision="v2")
    hub.token = "secret"
    with pytest.raises(CorpusError, match=r"HTTP 401 .* `hf auth login` or set HF_TOKEN"):
        fetched("someone/gpt@v2")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(CorpusError, match=r"no branch, tag or commit main"):
        fetched("someone/gpt")
    found = fetched("someone/gpt@v2")
    assert sorted(path.name for path in found.glob("*.safetensors")) == [
        f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    assert (found / INDEX).is_file()
    assert_equal(GPT2.from_pretrained("someone/gpt@v2"), GPT2.from_pretrained(folder))
    requests = len(hub.asked)
    assert fetched(f"someone/gpt@{found.name}") == found
    assert len(hub.asked) == requests  # a commit is what it is
    with pytest.raises(CheckpointError, match="not a Modern"):
        Modern.from_pretrained("someone/gpt@v2")
    assert {asked.token for asked in hub.asked if asked.path.startswith("/files/")} == {None}


FAULTS = {
    "a 404": ({"where": "resolve", "kind": "status", "status": 404}, r"HTTP 404 .*check it on"),
    "a 401": ({"where": "resolve", "kind": "status", "status": 401}, r"HTTP 401 .*HF_TOKEN"),
    "a 500 that stays": (
        {"where": "/files/", "kind": "status", "times": 9},
        r"HTTP 500 .*Run again later",
    ),
    "wrong bytes": (
        {"where": "/files/", "kind": "wrong"},
        r"has SHA-256 .* instead of .* is removed",
    ),
    "wrong bytes of a small file": (
        {"where": "tokenizer.json", "kind": "wrong"},
        r"has git's SHA-1 .* instead of",
    ),
    "a refusal by the server of files": (
        {"where": "/files/", "kind": "status", "status": 403},
        r"localhost:\d+ answers",
    ),
    "silence": ({"where": "/files/", "kind": "hang", "times": 9, "at": 2000}, r"timed out"),
    "silence before headers": (
        {"where": "/api/", "kind": "hang", "times": 9, "at": -1},
        r"timed out",
    ),
    "a log-in page": ({"where": "/files/", "kind": "short"}, r"another file answers there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_leaves_no_model(
    fault: str, hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, said = FAULTS[fault]
    if "silence" in fault:
        monkeypatch.setenv("GROUNDUP_NETWORK_TIMEOUT", "0.1")
    hub.fail(**how)  # type: ignore[arg-type]
    with pytest.raises(GroundupError, match=said) as raised:
        fetched("gpt2")
    assert "\n" not in str(raised.value)
    assert "signature" not in str(raised.value)
    assert complete_folders(tmp_path) == []
    hub.faults.clear()
    # the next try finds nothing in its way
    assert_equal(GPT2.from_pretrained("gpt2"), GPT2.from_pretrained(folder))
    assert len(complete_folders(tmp_path)) == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_what_came_of_a_commit_that_is_no_longer_meant_goes(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    hub.fail("/files/", "status", times=9)
    with pytest.raises(CorpusError):
        fetched("gpt2")
    home = tmp_path / "cache" / "hub" / NAME
    assert len(list(home.glob(".fetching-*"))) == 1
    hub.faults.clear()
    hub.add("models", NAME, contents(folder) | {"README.md": b"# Another commit"})
    fetched("gpt2")
    assert not list(home.glob(".fetching-*"))


def test_what_other_programs_have_fetched_is_used_where_it_is(
    hub: Hub, folder: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    def snapshot(*patterns: str) -> Path:
        return Path(snapshot_download(NAME, endpoint=hub.url, allow_patterns=list(patterns)))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    snapshot("*.json")
    assert fetched("gpt2").is_relative_to(tmp_path / "cache")  # its weights aren't there
    shutil.rmtree(tmp_path / "cache")
    theirs = snapshot("*.json", WHOLE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.asked)
    assert fetched("gpt2") == theirs
    assert_equal(GPT2.from_pretrained("gpt2"), GPT2.from_pretrained(folder))
    finished = cli(
        "generate",
        "gpt2",
        "--prompt",
        "the quick",
        "--length",
        "5",
        "--greedy",
        env={"HF_HUB_OFFLINE": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert f"from {theirs}" in finished.stderr
    assert repository_of(theirs) == NAME
    with pytest.raises(CorpusError, match="forbids it"):
        fetched("gpt2@another")
    assert len(hub.asked) == asked
    made = [path.name for path in (tmp_path / "cache").iterdir()]
    assert set(made) <= {"kernels"}  # what writes, and no model


def test_a_whole_folder_says_where_its_texts_end(
    hub: Hub, folder: Path, cli: Cli, tmp_path: Path
) -> None:
    """As chat models have it, whose last token isn't that of their documents."""
    files = contents(folder)
    settings = json.loads(files["config.json"]) | {"bos_token_id": 3, "eos_token_id": [4, 5]}
    hub.add("models", "someone/chat", files | {"config.json": json.dumps(settings).encode()})
    finished = cli("export", "someone/chat", "--to", "folder", "--out", "whole")
    assert finished.returncode == 0, finished.stderr
    written = json.loads((tmp_path / "whole" / "config.json").read_text("utf-8"))
    assert (written["bos_token_id"], written["eos_token_id"]) == (3, [4, 5])


def test_the_card_of_a_model_of_somebody_else_claims_nothing(
    hub: Hub, cli: Cli, tmp_path: Path
) -> None:
    finished = cli("export", "gpt2", "--to", "hub", "me/mine", "--out", "shown")
    assert finished.returncode == 0, finished.stderr
    card = (tmp_path / "shown" / "README.md").read_text("utf-8")
    assert f"base_model: {NAME}" in card
    assert f"That of `{NAME}`, where the weights come from, holds on." in card
    assert f"What it was trained for and tested for before, the card of `{NAME}` says." in card
    for claim in ("Trained with groundup", "It wasn't trained to", "random weights"):
        assert claim not in card, claim


def test_a_dropped_connection_goes_on(hub: Hub, folder: Path) -> None:
    hub.fail("/api/", "cut")
    hub.fail("/files/", "drop", at=2000)
    assert_equal(GPT2.from_pretrained("gpt2"), GPT2.from_pretrained(folder))
    assert hub.ranges() == [None, "bytes=2000-"]


def test_offline_and_without_a_network_it_is_one_line(
    hub: Hub, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        CorpusError, match=f"model {NAME} has to be downloaded, and HF_HUB_OFFLINE=1 forbids it"
    ):
        fetched("gpt2")
    assert "HF_HUB_OFFLINE=1" in error_line(cli("train", "finetune", "--steps", "1"))
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        CorpusError, match=r"can't be had from http://127.0.0.1:9: .*refused. Check the network"
    ):
        fetched("gpt2")
    assert hub.asked == []


def test_a_repository_of_pickles_is_refused_by_name(hub: Hub, folder: Path, tmp_path: Path) -> None:
    files = contents(folder)
    del files[WHOLE]
    hub.add("models", "someone/old", files | {"pytorch_model.bin": pickle.dumps(0)})
    with pytest.raises(
        CheckpointError, match=r"save_pretrained\(NEW\) writes safetensors"
    ) as raised:
        fetched("someone/old")
    assert "model someone/old, pytorch_model.bin, is a pickle, which can run any code" in str(
        raised.value
    )
    assert complete_folders(tmp_path) == hub.ranges() == NOTHING


def test_what_groundup_does_not_load_is_refused_before_its_weights_are_fetched(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    files = contents(folder)
    settings = json.loads(files["config.json"])
    hub.add(
        "models",
        "someone/llama",
        files | {"config.json": json.dumps(settings | {"model_type": "llama"}).encode()},
    )
    with pytest.raises(
        CheckpointError, match="model_type is 'llama'; groundup loads 'gpt2', 'qwen3'"
    ):
        fetched("someone/llama")
    assert not list((tmp_path / "cache").rglob(".fetching-*"))
    hub.add("models", "someone/notes", {"README.md": b"# Notes"})
    with pytest.raises(CheckpointError, match=r"model someone/notes has no config.json"):
        fetched("someone/notes")
    hub.add(
        "models",
        "someone/torn",
        {"config.json": files["config.json"], INDEX: b'{"weight_map": {"a": "b.safetensors"}}'},
    )
    with pytest.raises(CheckpointError, match=r"model someone/torn has no b.safetensors"):
        fetched("someone/torn")
    assert hub.ranges() == NOTHING


def test_every_command_takes_a_name_of_the_hub(
    hub: Hub, folder: Path, cli: Cli, tmp_path: Path
) -> None:
    """And a file that is written is called as the repository is, not as its commit."""
    files = contents(folder)
    for revision in ("main", "v2"):  # one commit
        hub.add("models", "someone/small", files, revision)
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog " * 9, "utf-8")
    finetune = (
        "train",
        "finetune",
        "--corpus",
        "text.txt",
        "--steps",
        "1",
        "--eval.every",
        "0",
        "--name",
        "tuned",
    )
    commands = [
        ("evaluate", "someone/small", "--task", "loss", "--corpus", "text.txt", "--json"),
        ("verify", "someone/small", "--json"),
        ("export", "someone/small", "--to", "gguf"),
        (*finetune, "--init", "someone/small@v2"),
    ]
    for arguments in commands:
        finished = cli(*arguments, env={"PATH": "", "CXX": ""})  # nothing is compiled
        assert finished.returncode == 0, (arguments, finished.stderr)
        said = finished.stdout + finished.stderr
        assert ("downloading model someone/small" in said) == (arguments[0] == "evaluate"), (
            arguments,
            said,
        )
    assert {path.name for path in tmp_path.glob("small*")} == {"small-f32.gguf"}
    assert sum(asked.path.startswith("/files/") for asked in hub.asked) == 1
