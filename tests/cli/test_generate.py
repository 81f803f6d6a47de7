"""`groundup generate` as a user meets it: the text on stdout alone, streamed; every wrong flag one
line.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import groundup as package
from commands import flags, groundup, trained
from conftest import TINY, error_line, some_text
from groundup.checkpoints import model_folder
from groundup.generation.settings import SamplingSettings
from groundup.generation.stream import encode_prompt, stream_tokens, write_text
from groundup.models.sampling import uniforms_of
from groundup.tokenizers.base import END_OF_TEXT
from shard_files import documents, learned, write_shards

# As a person has it: the variable would send every piece at once, whatever the command does.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run in it, of context 16; tests only read it."""
    made = tmp_path_factory.mktemp("generate")
    (made / "text.txt").write_text(some_text(), "utf-8")
    trained("--corpus", "text.txt", "--steps", 20, "--name", "run", *TINY, folder=made)
    return made


def written(folder: Path, *args: object) -> str:
    """What `groundup generate ARGS...` writes to stdout."""
    finished = groundup("generate", *args, folder=folder)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_stdout_is_the_text_and_stderr_the_rest(folder: Path):
    finished = groundup(
        "generate", "run", "--prompt", "the ", "--length", 30, "--seed", 5, folder=folder
    )
    model, tokenizer = package.load(folder / "runs" / "run")
    expected = write_text(model, tokenizer, SamplingSettings(length=30, seed=5), "the ")
    assert finished.stdout == "the " + expected + "\n"
    assert re.fullmatch(
        r"gpt2, 7,456 parameters, from \S*/step-000020; writes with float32 weights, by groundup's "
        r"C\+\+; seed 5\n",
        finished.stderr,
    )


def test_a_run_is_found_by_name_path_and_checkpoint(folder: Path):
    args = ["--length", 20, "--seed", 1]
    names = [
        "run",
        "runs/run",
        folder / "runs" / "run",
        "runs/run/checkpoints/latest",
        "runs/run/checkpoints/best",
    ]
    texts = {written(folder, name, *args) for name in names}
    assert len(texts) == 1


def test_a_model_of_documents_begins_as_they_do(tmp_path: Path):
    """Trained on shards, its config says with which token documents began; trained on plain text,
    it says none.
    """
    write_shards(tmp_path / "shards", learned(), documents())
    (tmp_path / "text.txt").write_text(some_text(), "utf-8")
    end = learned().special_tokens[END_OF_TEXT]
    for corpus, start in (("shards", end), ("text.txt", None)):
        chosen = flags(
            {
                "--corpus": corpus,
                "--steps": 3,
                "--data.tokenizer": "shards/tokenizer",
                "--name": corpus[:4],
            }
        )
        trained(*chosen, folder=tmp_path)
        folder = tmp_path / "runs" / corpus[:4] / "checkpoints" / "latest"
        config = json.loads((folder / "config.json").read_text("utf-8"))
        assert (config["bos_token_id"], config["eos_token_id"]) == (start, start)
        model, tokenizer = package.load(folder)
        expected = write_text(
            model, tokenizer, SamplingSettings(length=20, seed=5), document_start=start
        )
        assert written(tmp_path, folder, "--length", 20, "--seed", 5) == expected + "\n"
    assert END_OF_TEXT not in (tmp_path / "runs" / "shar" / "samples.txt").read_text("utf-8")


@pytest.mark.parametrize("several", [False, True])
def test_a_text_ends_where_the_models_config_says(several: bool, folder: Path, tmp_path: Path):
    """As chat models have it, whose last token isn't that of their documents."""
    model, tokenizer = package.load(folder / "runs" / "run")
    assert tokenizer is not None
    prompt, settings = (
        encode_prompt("a", tokenizer),
        SamplingSettings(length=20, temperature=2.0, seed=5),
    )
    tokens = list(stream_tokens(model, prompt, settings))
    end = tokens[7]
    model_folder.save(tmp_path / "model", model, tokenizer)
    config = tmp_path / "model" / "config.json"
    stated = [10**6, end] if several else end
    config.write_text(
        json.dumps(json.loads(config.read_text("utf-8")) | {"eos_token_id": stated}), "utf-8"
    )
    found = written(
        tmp_path, "model", "--prompt", "a", "--length", 20, "--temperature", 2, "--seed", 5
    )
    assert found == "a" + tokenizer.decode(tokens[: tokens.index(end)]) + "\n"


def test_without_a_seed_one_is_taken_and_said(folder: Path):
    first = groundup("generate", "run", "--length", 40, folder=folder)
    seed = first.stderr.rpartition("seed ")[2].strip()
    assert written(folder, "run", "--length", 40, "--seed", seed) == first.stdout
    assert written(folder, "run", "--length", 40) != first.stdout


def test_each_of_several_samples_draws_numbers_of_its_own(folder: Path):
    together = written(
        folder, "run", "--prompt", "fox", "--length", 15, "--seed", 8, "--samples", 18
    )
    model, tokenizer = package.load(folder / "runs" / "run")
    prompt = torch.from_numpy(tokenizer.encode("fox"))[None]
    texts = []
    for number in range(18):  # more than are written at once
        uniforms = uniforms_of(8, number, 15)
        tokens = model.generate(prompt, 15, temperature=0.8, uniforms=uniforms)[0]
        texts.append(f"======== {number + 1} of 18\n{tokenizer.decode(tokens.tolist())}\n")
    assert together == "".join(texts)
    assert written(folder, "run", "--prompt", "fox", "--length", 15, "--seed", 8) in texts[0]


def test_greedy_needs_no_seed(folder: Path):
    texts = {written(folder, "run", "--greedy", "--length", 20, "--seed", seed) for seed in (1, 2)}
    assert texts == {written(folder, "run", "--temperature", 0, "--length", 20)}


def test_top_k_and_top_p_reach_the_sampling(folder: Path):
    greedy = written(folder, "run", "--greedy", "--length", 20)
    assert written(folder, "run", "--top-k", 1, "--length", 20, "--temperature", 2) == greedy
    assert written(folder, "run", "--top-p", 1e-9, "--length", 20, "--temperature", 2) == greedy
    assert written(folder, "run", "--top-k", 10**6, "--length", 20, "--seed", 2) == written(
        folder, "run", "--length", 20, "--seed", 2
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--temperature", "-1"], "temperature = -1.0 must be a finite number from 0"),
        (["--temperature", "nan"], "temperature = nan"),
        (["--temperature", "inf"], "temperature = inf"),
        (["--top-k", "0"], "top-k = 0 must be a number of tokens, from 1"),
        (["--top-k", "-3"], "top-k = -3 must be a number of tokens, from 1"),
        (["--top-p", "0"], "top-p = 0.0 must be in (0, 1]"),
        (["--top-p", "1.5"], "top-p = 1.5 must be in (0, 1]"),
        (["--length", "0"], "length = 0 must be at least 1"),
        (["--samples", "0"], "samples = 0 must be at least 1"),
        (["--seed", "-1"], "seed = -1"),
        (["--device", "nowhere"], "device nowhere can't be used"),
    ],
)
def test_a_setting_out_of_range_is_one_line(args: list[str], said: str, folder: Path):
    finished = groundup("generate", "run", *args, folder=folder)
    assert finished.stdout == ""
    assert finished.returncode == 2
    assert said in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_what_is_no_model_is_one_line(folder: Path, tmp_path: Path):
    assert "nothing is neither a run nor a model folder" in error_line(
        groundup("generate", "nothing", folder=folder)
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "config.json" in error_line(groundup("generate", empty, folder=folder)).replace(
        "is no ", ""
    )


def test_a_long_prompt_keeps_its_end_and_says_so(folder: Path):
    prompt = "the quick brown fox jumps"
    finished = groundup(
        "generate", "run", "--prompt", prompt, "--length", 9, "--seed", 3, folder=folder
    )
    assert "the prompt has 25 tokens: the model sees the newest 16" in finished.stderr
    shown = finished.stdout.removeprefix(prompt)
    assert (
        written(folder, "run", "--prompt", prompt[-16:], "--length", 9, "--seed", 3)
        == prompt[-16:] + shown
    )
    refused = groundup("generate", "run", "--prompt", prompt, "--strict", folder=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        "the prompt has 25 tokens, but the model's context is 16" in refused.stderr.splitlines()[-1]
    )


def test_an_unknown_character_is_named_before_anything_is_written(folder: Path):
    finished = groundup("generate", "run", "--prompt", "the §", folder=folder)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "'§' (U+00A7) at position 4" in finished.stderr.splitlines()[-1]


def test_text_flows_while_it_is_made_and_a_closed_pipe_is_no_crash(folder: Path):
    """The reader takes what is there, piece after piece, and goes; the writer stops without
    a word.
    """
    args = [sys.executable, "-m", "groundup", "generate", "run", "--length", "3000", "--seed", "1"]
    process = subprocess.Popen(
        args, cwd=folder, env=BUFFERED, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    pieces = [os.read(process.stdout.fileno(), 65536) for _ in range(3)]
    assert all(pieces)
    # a buffer that is written at the end would have come at once
    assert len(b"".join(pieces)) < 3000
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 141
    assert said.count("\n") == 1
    assert said.startswith("gpt2, ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_is_full_and_an_output_that_is_closed(folder: Path):
    words = f"{sys.executable} -m groundup generate run --length 40 --seed 1"
    for where, status, said in ((">/dev/full", 2, "No space left on device"), (">&-", 0, "")):
        finished = subprocess.run(
            ["bash", "-c", f"{words} {where}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (finished.returncode, said in finished.stderr) == (status, True)
        assert "Traceback" not in finished.stderr


def test_head_takes_what_it_wants(folder: Path):
    line = (
        f"{sys.executable} -m groundup generate run --length 400 --seed 1 2>errors.txt | head -c 5"
    )
    finished = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=BUFFERED, capture_output=True, check=True
    )
    assert len(finished.stdout) == 5
    assert "Traceback" not in (folder / "errors.txt").read_text()
    assert "BrokenPipe" not in (folder / "errors.txt").read_text()
