"""`groundup export RUN --to hub`: what is uploaded, that it loads again, and how a refusal
reads.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import groundup as package
from commands import flags, groundup, metrics, trained, write_text
from conftest import Cli, error_line
from groundup.cli import export as command
from groundup.errors import ExportError, GroundupError
from groundup.recipes.files import load_recipe, parse_toml
from hub_server import Hub
from upload_hub import receiving_hub

STEPS = 20
ENVIRONMENT = {
    "HF_TOKEN": "hf_test",
    "GROUNDUP_NETWORK_TIMEOUT": "0.5",
    "no_proxy": "*",
    "HF_HOME": "nowhere",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run in it; tests only add to it."""
    made = tmp_path_factory.mktemp("upload")
    write_text(made)
    trained(*flags({"--steps": STEPS, "--name": "run", "--eval.every": 10}), folder=made)
    return made


@pytest.fixture
def hub() -> Iterator[Hub]:
    with receiving_hub() as hub:
        hub.token = "hf_test"
        yield hub


@pytest.fixture
def export(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`groundup export run --to hub someone/small-gpt` in that folder with that hub, in this
    process.
    """
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)  # which an upload changes
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(folder)

    def run(**flags: bool) -> None:
        command.export("run", "someone/small-gpt", to="hub", **flags)

    return run


def written(folder: Path, out: str, *args: object) -> Path:
    """The folder that `--out` leaves in place of an upload."""
    finished = groundup(
        "export", *args, "--to", "hub", "someone/small-gpt", "--out", out, folder=folder
    )
    assert finished.returncode == 0, finished.stderr
    assert "nothing was" in finished.stdout
    return folder / out


def test_what_would_be_uploaded_is_a_model_that_loads(folder: Path):
    found = written(folder, "shown", "run")
    names = {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in found.iterdir()} == names | {"recipe.toml", "loss.png"}
    assert (found / "loss.png").read_bytes().startswith(b"\x89PNG")
    ours, theirs = package.load(folder / "runs" / "run")[0], package.load(found)[0]
    assert all(
        torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items()
    )
    recipe = load_recipe(parse_toml((found / "recipe.toml").read_text("utf-8"), "recipe.toml"))
    assert recipe.train.steps == STEPS


def test_the_card_says_what_the_run_has_on_record(folder: Path):
    card = (written(folder, "card", "run") / "README.md").read_text("utf-8")
    facts = json.loads((folder / "runs" / "run" / "run.json").read_text("utf-8"))
    best = min(
        metrics(folder / "runs" / "run", "evaluation")[1:], key=lambda line: line["validation_loss"]
    )
    assert f"Validation loss {best['validation_loss']:.4f} nats a token" in card
    assert f"{best['bits_per_byte']:.3f} bits a byte" in card
    assert (
        f"{facts['parameters']:,} parameters: gpt2, 2 layers, 2 heads, width 16, context 16" in card
    )
    assert facts["corpus"]["fingerprint"] in card
    assert f"{facts['corpus']['training_tokens']:,} tokens to learn from" in card
    assert f"| steps | {best['step']} of {STEPS} |" in card
    assert "It began with random weights." in card
    assert "No licence is stated." in card
    assert card.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- "
        "groundup\n---\n\n# small-gpt"
    )
    rows = re.findall(r"^\| (\d+) \| [\d,]+ \| [\d.]+ \| ([\d.]+) \|$", card, re.MULTILINE)
    measured = [
        line
        for line in metrics(folder / "runs" / "run", "evaluation")
        if line["step"] <= best["step"]
    ]
    assert [(int(step), loss) for step, loss in rows] == [
        (line["step"], f"{line['validation_loss']:.4f}") for line in measured
    ]


def test_an_earlier_checkpoint_has_the_card_of_its_own_step(folder: Path):
    step = folder / "runs" / "run" / "checkpoints" / "step-000010"
    card = (written(folder, "earlier", step) / "README.md").read_text("utf-8")
    line = next(
        line for line in metrics(folder / "runs" / "run", "evaluation") if line["step"] == 10
    )
    assert f"Validation loss {line['validation_loss']:.4f} nats" in card
    assert "| 20 |" not in card


def test_the_card_of_a_folder_claims_no_training(folder: Path):
    card = (written(folder, "again", written(folder, "first", "run")) / "README.md").read_text(
        "utf-8"
    )
    assert "Nothing is on record" in card
    assert "Validation loss" not in card
    assert "loss.png" not in card


def test_the_code_on_the_card_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("transformers")
    found = written(folder, "usage", "run")
    code = re.search(r"```python\n(.*?)```", (found / "README.md").read_text("utf-8"), re.DOTALL)
    assert code
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    exec(
        code[1]
        .replace("someone/small-gpt", str(found))
        .replace("a prompt", "the ")
        .replace("=50", "=9"),
        {},
    )
    assert capsys.readouterr().out.startswith("the ")


def test_an_upload_is_one_commit_that_loads(cli: Cli, hub: Hub, folder: Path):
    environment = ENVIRONMENT | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    finished = cli("export", "run", "--to", "hub", "someone/small-gpt", cwd=folder, env=environment)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.endswith(f"to {hub.url}/someone/small-gpt\n")
    files = hub.repositories["models", "someone/small-gpt"]["main"]
    expected = {
        path.name: path.read_bytes() for path in written(folder, "compared", "run").iterdir()
    }
    assert files == expected
    assert hub.visibility == {"someone/small-gpt": "private"}  # type: ignore[attr-defined]
    assert sum("/commit/" in path for path in hub.posts) == 1  # type: ignore[attr-defined]
    hub.token = "hf_another"
    refused = cli(
        "export", "run", "--to", "hub", "someone/small-gpt", "--force", cwd=folder, env=environment
    )
    assert "HF_TOKEN's account may not write" in error_line(refused)


def test_everybody_sees_it_only_where_that_was_asked_for(export: Callable[..., None], hub: Hub):
    export(public=True)
    assert hub.visibility == {"someone/small-gpt": "public"}  # type: ignore[attr-defined]


def test_a_repository_that_exists_is_added_to_only_by_force(export: Callable[..., None], hub: Hub):
    hub.add("models", "someone/small-gpt", {"notes.md": b"mine"})
    with pytest.raises(ExportError, match="--force"):
        export()
    assert set(hub.repositories["models", "someone/small-gpt"]["main"]) == {"notes.md"}
    export(force=True)
    assert {"notes.md", "model.safetensors"} <= set(
        hub.repositories["models", "someone/small-gpt"]["main"]
    )


def test_an_owners_card_stays_and_an_old_model_goes(
    export: Callable[..., None], hub: Hub, capsys: pytest.CaptureFixture[str]
):
    old = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "merges.txt")
    name = "models", "someone/small-gpt"
    hub.add(*name, {"README.md": b"mine", "notes.md": b"mine", **dict.fromkeys(old, b"old")})
    export(force=True)
    there = hub.repositories[name]["main"]
    assert there["README.md"] == there["notes.md"] == b"mine"
    assert not there.keys() & {*old}
    assert "model.safetensors" in there
    said = capsys.readouterr()
    assert all(file in said.out for file in old)
    assert "README.md" not in said.out
    export(force=True, card=True)
    assert b"library_name: transformers" in hub.repositories[name]["main"]["README.md"]


def test_what_is_uploaded_names_no_folder_of_this_machine_and_nothing_ends_its_code(
    tmp_path: Path,
):
    place = tmp_path / "client"
    place.mkdir()
    text = write_text(place).rename(place / "a`b``c<img>.txt")
    for name, flag in (("base", {}), ("run", {"--train.init": tmp_path / "runs" / "base"})):
        given = flags({"--corpus": text, "--steps": 2, "--name": name, **flag})
        trained(*given, folder=tmp_path)
    found = written(tmp_path, "out", "run")
    for path in found.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path
    card = (found / "README.md").read_text("utf-8")
    assert "``` a`b``c<img>.txt ```" in card
    assert "a`b``c<img>.txt" not in card.replace("``` a`b``c<img>.txt ```", "")
    assert "weights of `base`" in card
    recipe = load_recipe(parse_toml((found / "recipe.toml").read_text("utf-8"), "recipe.toml"))
    assert (recipe.data.corpus, recipe.train.init) == ("a`b``c<img>.txt", "base")


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("HF_TOKEN", "hf_wrong", "HF_TOKEN"),
        ("HF_TOKEN", "", "hf auth login"),
        ("HF_ENDPOINT", "http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("HF_ENDPOINT", "nonsense", "HF_ENDPOINT"),
    ],
)
def test_a_refused_upload_says_why(
    name: str, value: str, named: str, export: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(GroundupError, match=named):
        export()


def test_nothing_is_uploaded_offline(
    export: Callable[..., None], hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()  # a session keeps what it was made with
    with pytest.raises(ExportError, match="HF_HUB_OFFLINE"):
        export()
    huggingface_hub.close_session()
    assert hub.posts == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("where", "how", "named"),
    [
        ("create", {"kind": "hang"}, "timed out"),
        ("commit", {"kind": "status", "status": 503}, "HTTP 503"),
        ("preupload", {"kind": "status", "status": 418}, "HTTP 418"),
    ],
)
def test_a_hub_that_fails_is_named(
    where: str, how: dict[str, Any], named: str, export: Callable[..., None], hub: Hub
):
    hub.fail(where, times=100, **how)
    with pytest.raises(
        ExportError, match=f"someone/small-gpt can't be uploaded to .*{named}"
    ) as refused:
        export()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--to", "hub"], "OWNER/NAME"),
        (["--to", "hub", "small-gpt"], "OWNER/NAME"),
        (["--to", "hub", "a/b/c"], "OWNER/NAME"),
        (["--to", "gguf", "someone/small-gpt"], "--out"),
        (["--to", "onnx", "--type", "f16"], "float32"),
        (["--to", "hub", "a/b", "--type", "f16"], "as they are"),
        (["--to", "gguf", "--public"], "--public"),
        (["--to", "gguf", "--type", "q4_0"], "q8_0"),
        (["--to", "pickle"], "gguf"),
        (["--to", "hub", "a/b", "--out", "runs"], "--out"),
        (["--to", "gguf", "--out", "text.txt"], "--force"),
        (["--to", "onnx", "--out", "text.txt"], "--force"),
        (["--to", "onnx", "--out", "runs", "--force"], "folder"),
        (["--to", "gguf", "--out", "text.txt/x.gguf"], "text.txt/x.gguf"),
    ],
)
def test_what_contradicts_itself_is_refused(args: list[str], named: str, folder: Path):
    before = (folder / "text.txt").read_bytes()
    assert named in error_line(groundup("export", "run", *args, folder=folder))
    assert (folder / "text.txt").read_bytes() == before


def evaluated(folder: Path, model: object, *args: object) -> Path:
    """`groundup evaluate` of a model: where the result is kept."""
    finished = groundup("evaluate", model, *args, "--json", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return folder / finished.stderr.split("kept in ")[1].strip()


def test_the_card_states_what_evaluate_found_of_these_weights(folder: Path, tmp_path: Path):
    """And nothing of other steps, or of other weights that once were this step's."""
    here = tmp_path / "here"
    run = Path(shutil.copytree(folder / "runs" / "run", here / "runs" / "run", symlinks=True))
    shutil.copyfile(folder / "text.txt", here / "text.txt")
    item = {
        "ctx": "the quick brown",
        "endings": ["fox", "dog", "lazy", "over a"],
        "activity_label": "a",
    }
    items = [json.dumps(item | {"ind": number, "label": number % 4}) + "\n" for number in range(12)]
    (here / "items.jsonl").write_text("".join(items), "utf-8")
    sat = evaluated(
        here, "run", "--file", "items.jsonl", "--limit", 9, "--convention", "completion"
    )
    lost = evaluated(here, "run", "--task", "loss", "--corpus", "text.txt", "--limit", 300)
    # in its place
    assert evaluated(here, "run", "--task", "loss", "--corpus", "text.txt", "--limit", 300) == lost
    assert len(list((run / "evaluations").iterdir())) == 2
    card = (written(here, "card", "run") / "README.md").read_text("utf-8")
    found = json.loads(sat.read_text("utf-8"))
    assert "on 9, evenly spread, of 12 items of `items.jsonl`. UNOFFICIAL" in card
    for row in found["results"]:
        assert f"| {row['convention']} | {row['measure']} | {100 * row['accuracy']:.2f}% |" in card
    loss = json.loads(lost.read_text("utf-8"))
    read = "This checkpoint, on the first 300 tokens of the whole text (299 tokens)"
    assert f"Loss on `text.txt`\n\n{read}: {loss['loss']:.4f} nats" in card
    assert f"stride {loss['stride']}" in card
    assert str(tmp_path) not in card

    best = (run / "checkpoints" / "best").resolve()
    other = next(step for step in (run / "checkpoints").glob("step-*") if step != best)
    assert "HellaSwag" not in (written(here, "other", other) / "README.md").read_text("utf-8")
    manifest = json.loads((best / "manifest.json").read_text("utf-8"))
    assert found["weights"] == manifest["files"]["model.safetensors"]["sha256"]
    sat.write_text(json.dumps(found | {"weights": "0" * 64}), "utf-8")
    card = (written(here, "changed", "run") / "README.md").read_text("utf-8")
    assert "HellaSwag" not in card
    assert "Loss on `text.txt`" in card
    sat.write_text("{", "utf-8")
    line = error_line(
        groundup("export", "run", "--to", "hub", "a/b", "--out", "damaged", folder=here)
    )
    assert f"{sat.name} isn't a result that groundup kept" in line


def test_of_a_plain_folder_nothing_is_kept(folder: Path, tmp_path: Path):
    plain = written(folder, f"{tmp_path}/plain", "run")
    before = sorted(plain.iterdir())
    finished = groundup(
        "evaluate", plain, "--task", "loss", "--corpus", folder / "text.txt", folder=tmp_path
    )
    assert finished.returncode == 0
    assert "kept" not in finished.stderr
    assert sorted(plain.iterdir()) == before
