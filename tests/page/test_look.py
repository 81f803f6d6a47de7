"""`groundup look`: the page as one file, which needs nothing from elsewhere and tells no lies."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch

import groundup
from commands import flags, trained, write_text
from conftest import Cli, error_line, model_of, perturb
from groundup import CharacterTokenizer, Engine, GPTConfig, learn_tokenizer, load_model
from groundup.checkpoints import model_folder
from groundup.errors import GenerationError
from groundup.generation.writer import Precision
from groundup.inspection.comparison import compare
from groundup.page.files import one_file, page_files
from groundup.page.recording import Recorder, recording

HOSTILE = "</script><script>alert(1)</script> <!-- \u202e \u200b"
TEXT = "To be, or not to be: that is the question.\n"
LETTERS = CharacterTokenizer(sorted({*TEXT, *HOSTILE}))
TINY = GPTConfig(64, LETTERS.vocab_size, 2, 2, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("look") / "little", "gpt2", TINY, LETTERS)


def saved(folder: Path, architecture: str, config: GPTConfig, tokenizer: Any) -> Path:
    torch.manual_seed(0)
    model = model_of(architecture, config)
    perturb(model, scale=0.3)
    model_folder.save(folder, model.eval(), tokenizer)
    return folder


def embedded(page: str) -> Any:
    """What the page has to show, as a browser finds it: a script ends at the first end tag."""
    (found,) = re.findall(
        r'<script type="application/json" id="recording">(.*?)</script>', page, re.S
    )
    return json.loads(found)


def test_a_page_is_one_file_that_asks_for_nothing(cli: Cli, folder: Path, tmp_path: Path) -> None:
    finished = cli("look", folder, "--text", HOSTILE, "--out", tmp_path / "page.html")
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "page.html").read_text("utf-8")
    said = f"{tmp_path / 'page.html'}: tokens: {len(HOSTILE)} of little; "
    assert finished.stdout.startswith(said)
    assert "<script>alert" not in page
    assert 'href="page/' not in page
    assert "src=" not in re.sub(
        r'base64,[^"]*', "", page.replace("\\u003c", "<").split("<body>")[0]
    )
    assert len(re.findall("<style>", page)) == sum(name.endswith(".css") for name in page_files())
    (known,) = re.findall(r'<script type="importmap">(.*?)</script>', page, re.S)
    modules = json.loads(known)["imports"]
    texts = {name: unquote(url.partition(",")[2]) for name, url in modules.items()}
    for name, text in texts.items():
        imported = set(re.findall(r'^.*? from "(.*?)";$', text, re.M))
        assert imported <= modules.keys(), name
        assert "import(" not in text
    shown = embedded(page)
    (model,) = shown["models"]
    assert shown["comparison"] is None
    tokens = [each["token"] for each in model["inspection"]["tokens"]]
    assert LETTERS.decode(tokens) == HOSTILE
    assert "".join(model["vocabulary"][str(token)]["text"] for token in tokens) == HOSTILE


def test_its_numbers_are_those_of_inspect(folder: Path) -> None:
    loaded = load_model(folder)
    shown = recording([Recorder(loaded, TEXT, Precision())], 7, [1])
    own = groundup.inspect(Engine(loaded.model, LETTERS), LETTERS.encode(TEXT).tolist())
    (model,) = shown["models"]
    assert model["layers"] == [1]
    maps = model["inspection"]["attention"]
    assert [(each["layer"], each["head"]) for each in maps] == [(1, 0), (1, 1)]
    weights = own.attention(1, 1)
    triangle = np.frombuffer(base64.b64decode(maps[1]["weights"]), "<f2")
    np.testing.assert_allclose(
        triangle, weights[*torch.tril_indices(*weights.shape)].numpy(), atol=5e-4
    )
    columns = model["lens"]["columns"]
    assert [len(column) for column in columns] == [5] * len(TEXT)
    last, lens = columns[7][-1], own.lens(7, 3)[-1]
    assert last[:2] == pytest.approx([lens.entropy, -(lens.logprob or 0.0)], rel=1e-4)
    assert last[2::2] == [token for token, _ in lens.top]
    assert {str(token) for token in last[2::2]} <= model["vocabulary"].keys()
    after = [(each["after"], each.get("layer")) for each in model["lens"]["points"]]
    assert after[0] == ("embedding", None)
    assert after[1:] == [("attention", 0), ("mlp", 0), ("attention", 1), ("mlp", 1)]
    assert model["stages"]["position"] == 7
    assert model["stages"]["layers"].keys() == {"1"}
    names = list(model["stages"]["layers"]["1"]["heads"]["0"])
    assert names == list(model["stages"]["told"])
    assert names == ["query", "key", "value", "scores", "mask", "softmax", "weighted_sum"]
    assert {*names} < {*model["stages"]["order"]}
    distribution = np.frombuffer(base64.b64decode(model["distributions"][0]["logprobs"]), "<f4")
    assert distribution[0] == pytest.approx(own.predictions[7].top[0][1], rel=1e-5)


def test_a_run_is_told(cli: Cli, tmp_path: Path) -> None:
    text = write_text(tmp_path)
    trained(*flags({"--steps": 3, "--name": "told", "--corpus": text}), folder=tmp_path)
    assert cli("look", "told", "--text", "the ").returncode == 0
    (model,) = embedded((tmp_path / "told.html").read_text("utf-8"))["models"]
    run = model["run"]
    assert (run["name"], run["facts"]["corpus"]) == ("told", "text.txt")
    assert [line["step"] for line in run["steps"]] == [1, 2, 3]
    assert run["evaluations"][-1]["step"] == 3
    assert run["samples"][0]["step"] == 3
    assert "[model]" in run["recipe"]
    assert "## Training" in run["card"]
    assert 'corpus = "text.txt"' in run["recipe"]
    assert str(tmp_path) not in json.dumps(run)  # where the text lay is nobody's business


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--text TEXT or --file FILE"),
        (["--text", "a", "--file", "b"], "--text TEXT or --file FILE"),
        (["--text", ""], "the text is empty"),
        (["--file", "none.txt"], "none.txt can't be read"),
        (["--text", "To", "--position", "2"], "position = 2 must be from -2 to 1"),
        (["--text", "To", "--layers", "2"], "layer 2 is not there: the last is 1"),
        (["--text", "To", "--layers", "first"], "must be numbers as 0,5,11, or all"),
        (["--text", "To be" * 13], "65 tokens, but the model's context is 64"),
        (["--text", "é"], "'é'"),
        (["--text", "To", "--out", "there.html"], "there.html"),
        (["--text", "To", "--out", "there.html/page.html"], "can't write"),
        (["--text", "To", "--position", "-3"], "position = -3 must be from -2 to 1"),
        (["--text", "To", "--layers", "\u0661"], "must be numbers as 0,5,11, or all"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(
    cli: Cli, folder: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "there.html").write_text("mine", "utf-8")
    assert said in error_line(cli("look", folder, *words))
    assert (tmp_path / "there.html").read_text("utf-8") == "mine"


def test_a_large_page_asks_for_layers(
    cli: Cli, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.cli.look.LARGE", 100_000)
    monkeypatch.chdir(tmp_path)
    from groundup.cli.main import run

    assert run(["look", str(folder), "--text", TEXT]) == 2
    assert not (tmp_path / "little.html").exists()
    assert run(["look", str(folder), "--text", TEXT, "--layers", "all"]) == 0
    assert (tmp_path / "little.html").exists()


def test_a_page_of_two_hundred_tokens_stays_small() -> None:
    """The bar: 1.5 MB for 4 layers of 4 heads, 192 wide, and 200 tokens."""
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer(map(chr, range(32, 146)))
    model = model_of("gpt2", GPTConfig(256, tokenizer.vocab_size, 4, 4, 192)).eval()
    perturb(model)
    loaded = model_folder.LoadedModel(model, tokenizer, Path("none"))
    text = "".join(chr(32 + 37 * place % 90) for place in range(200))
    page = one_file(recording([Recorder(loaded, text, Precision())], -1, None), "size")
    assert len(page.encode()) < 1_500_000


def test_the_files_of_the_page_are_small_and_flat() -> None:
    files = page_files()
    for name, text in files.items():
        assert re.fullmatch(r"[a-z-]+\.(html|css|js)", name)
        lines = text.splitlines()
        assert len(lines) <= 400, name
        assert max(map(len, lines)) <= 100, name
        assert not re.search(r"innerHTML|eval\(|https?://(?!www\.w3\.org)|console\.", text), name


def test_two_models_are_compared_where_both_end_a_token(cli: Cli, tmp_path: Path) -> None:
    """Characters against BPE: what both say of the same bytes, added up by hand."""
    words = learn_tokenizer([TEXT * 20], 300)
    first = saved(tmp_path / "letters", "gpt2", TINY, LETTERS)
    second = saved(tmp_path / "words", "modern", GPTConfig(64, words.vocab_size, 2, 2, 16), words)
    finished = cli("look", first, second, "--text", TEXT, "--out", "both.html")
    assert finished.returncode == 0, finished.stderr
    shown = embedded((tmp_path / "both.html").read_text("utf-8"))
    spans = shown["comparison"]["spans"]
    assert "".join(span["text"] for span in spans) == TEXT
    assert [span["bytes"][0] for span in spans[1:]] == [span["bytes"][1] for span in spans[:-1]]
    pieces = [words.decode([token]) for token in words.encode(TEXT)]
    assert [span["text"] for span in spans] == pieces  # letters end wherever a word does
    assert spans[0]["logprob_a"] is spans[0]["logprob_b"] is None
    for name, path in (("a", first), ("b", second)):
        model, tokenizer = groundup.load(path)
        assert tokenizer is not None
        read = groundup.inspect(Engine(model, tokenizer), tokenizer.encode(TEXT).tolist())
        for span in spans[1:]:
            own = sum(read.predictions[at - 1].logprob or 0.0 for at in range(*span[name]))
            assert span[f"logprob_{name}"] == pytest.approx(own, rel=1e-5)
        bits = shown["comparison"]["total"][f"bits_per_byte_{name}"]
        size = len(TEXT.encode()) - spans[0]["bytes"][1]
        whole = -sum(span[f"logprob_{name}"] for span in spans[1:])
        assert bits == pytest.approx(whole / np.log(2) / size)


def test_texts_of_other_bytes_are_not_compared() -> None:
    torch.manual_seed(0)
    model = model_of("gpt2", TINY).eval()
    read = groundup.inspect(model, LETTERS.encode("To be").tolist())
    other = groundup.inspect(model, LETTERS.encode("To do").tolist()) if "d" in TEXT else read
    with pytest.raises(GenerationError, match="can't compare"):
        compare((read, LETTERS), (groundup.inspect(model, other.tokens[:3]), LETTERS))


def test_a_file_is_read_as_it_is(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("\ufeffTo\r\nbe".encode())
    assert "'\\r'" in error_line(cli("look", folder, "--file", "text.txt"))
    (tmp_path / "text.txt").write_bytes("\ufeffTo\nbe".encode())
    assert cli("look", folder, "--file", "text.txt").returncode == 0


def test_two_models_of_other_depths_and_tokens_show_one_place(cli: Cli, tmp_path: Path) -> None:
    """The way of a letter, and that of the word which has it; layers where there are some."""
    words = learn_tokenizer([TEXT * 20], 300)
    first = saved(tmp_path / "letters", "gpt2", TINY, LETTERS)
    deep = GPTConfig(64, words.vocab_size, 3, 2, 16)
    second = saved(tmp_path / "words", "gpt2", deep, words)
    made = cli("look", first, second, "--text", TEXT, "--position", 11, "--layers", "2")
    assert made.returncode == 0, made.stderr
    models = embedded((tmp_path / "letters.html").read_text("utf-8"))["models"]
    assert [model["layers"] for model in models] == [[], [2]]
    pieces = [words.decode([token]) for token in words.encode(TEXT)]
    place = models[1]["stages"]["position"]
    assert models[0]["stages"]["position"] == 11
    assert len("".join(pieces[:place])) <= 11 < len("".join(pieces[: place + 1]))
    said = error_line(cli("look", first, second, "--text", TEXT, "--layers", "3", "--force"))
    assert "layer 3 is not there: the last is 2" in said
    said = error_line(cli("look", first, second, "--text", "To é", "--force"))
    assert "letters: " in said


def test_bad_weights_are_an_error(tmp_path: Path, cli: Cli) -> None:
    torch.manual_seed(0)
    model = model_of("gpt2", TINY)
    model.get_parameter("transformer.ln_f.weight").data.fill_(torch.nan)
    model_folder.save(tmp_path / "bad", model.eval(), LETTERS)
    assert "no finite numbers" in error_line(cli("look", "bad", "--text", "To"))


def test_outputs_that_stand_for_no_token_are_never_drawn() -> None:
    """A vocabulary that is padded: what the page draws from sums to 1 over real tokens."""
    torch.manual_seed(0)
    model = model_of("gpt2", GPTConfig(64, LETTERS.vocab_size + 13, 1, 2, 16)).eval()
    loaded = model_folder.LoadedModel(model, LETTERS, Path("none"))
    (shown,) = recording([Recorder(loaded, "To be", Precision())], 2, None)["models"]
    logprobs = np.frombuffer(base64.b64decode(shown["distributions"][0]["logprobs"]), "<f4")
    assert len(logprobs) == LETTERS.vocab_size
    assert np.exp(logprobs).sum() == pytest.approx(1, abs=1e-5)
    stage = next(each for each in shown["stages"]["model"] if each["name"] == "distribution")
    assert stage["values"][0]["data"][0] == pytest.approx(np.exp(logprobs[0]), rel=1e-4)
