"""`groundup verify`: what it says at the command line, and a table of faults, each of which it must
name.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from verify_faults import FAULTS

from commands import groundup
from conftest import Cli, error_line, model_of, perturb
from groundup.checkpoints import model_folder
from groundup.cli.main import main
from groundup.models.config import GPTConfig
from groundup.tokenizers.characters import CharacterTokenizer
from groundup.verification import claims, differences, round_trip, verify
from groundup.verification.model_under_test import CPU, Measurement, ModelUnderTest, Skipped


def failures_of(architecture: str, claim_name: str) -> list[str]:
    """The parts of a claim that fail on the random model of that name."""
    claim = next(claim for claim in verify.CLAIMS if claim.name == claim_name)
    tested = next(tested for tested in verify.random_models(CPU) if tested.name == architecture)
    findings = list(verify.verify(claim, tested))
    assert findings
    for finding in findings:
        assert (finding.status == "FAILED") == (claim.meaning in finding.note)
        assert finding.error is not None, finding.note
    return [finding.claim for finding in findings if finding.status == "FAILED"]


COMPILING = "another result when compiled"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=pytest.mark.long) if fault == COMPILING else fault
        for fault in FAULTS
    ],
)
def test_a_fault_is_named(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, architecture, row = FAULTS[fault]
    patch(monkeypatch)
    assert row in failures_of(architecture, row.partition(":")[0])


def test_unbroken_nothing_fails(cli: Cli) -> None:
    """In one process, as a user has it. Without a compiler that claim is skipped, and says so."""
    finished = cli("verify", "--json", env={"PATH": "", "CXX": ""})
    assert finished.returncode == 0, finished.stdout + finished.stderr
    found = json.loads(finished.stdout)
    assert (found["model"], found["device"], found["failed"], found["skipped"]) == (
        None,
        "cpu",
        0,
        2,
    )
    rows = {(row["claim"], row["model"]) for row in found["claims"]}
    assert {(row, architecture) for _, architecture, row in FAULTS.values()} - rows == {
        # the other rows of the table of faults are all green here
        ("compiled = eager: gradients", "bigram")
    }
    for row in found["claims"]:
        if row["status"] == "skipped":
            assert row["claim"] == "compiled = eager"
            assert "no C++ compiler" in row["note"]
        else:
            assert row["status"] == "ok"
            assert row["error"] <= row["bound"] <= 0.1


@pytest.mark.long
def test_compiled_is_eager_where_there_is_a_compiler() -> None:
    assert failures_of("gpt2", "compiled = eager") == []


def write_model(folder: Path, architecture: str = "gpt2") -> None:
    """A model folder with a tokenizer of characters."""
    tokenizer = CharacterTokenizer("abc \né中\r")
    torch.manual_seed(0)
    model = model_of(
        architecture,
        GPTConfig(16, tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=16, dropout=0.2),
    )
    perturb(model)
    model_folder.save(folder, model, tokenizer)


@pytest.mark.parametrize("architecture", ["bigram", "readable", "modern"])
def test_a_model_of_ones_own_is_verified(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "runs" / "mine", architecture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "has_compiler", lambda: False)
    found = list(verify.verify_all(verify.models_to_test("mine", CPU)))
    assert {row.status for row in found if not row.claim.startswith("compiled")} == {"ok"}
    expected = {claim.name for claim in verify.CLAIMS if architecture in claim.architectures}
    assert {row.claim.partition(":")[0] for row in found} == expected


def test_a_model_kept_in_bfloat16_is_examined_in_it_too() -> None:
    """As `generate` and `evaluate` run it."""
    model = model_of("modern", GPTConfig(16, 24, n_layer=2, n_head=2, n_embd=16))
    perturb(model)
    tested = ModelUnderTest("mine", model.to(torch.bfloat16), None, CPU)
    for name in ("cached = uncached", "batch = alone"):
        found = list(
            verify.verify(next(claim for claim in verify.CLAIMS if claim.name == name), tested)
        )
        assert {row.status for row in found} == {"ok"}
        assert (
            len([row for row in found if row.claim.endswith(", in bfloat16")])
            == {"c": 1, "b": 2}[name[0]]
        )


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("raise ImportError('no libthis.so')", "can't be imported: no libthis.so"),
        ("__version__ = '4.57.1'", "older"),
    ],
)
def test_a_transformers_that_does_not_work_is_no_failed_claim(
    package: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text(package, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    claim = verify.Claim("ours = transformers", claims.ours_is_transformers, "it isn't")
    [(status, _, _, note)] = findings_of(claim)
    assert status == "skipped"
    assert said in note


def test_a_damaged_model_fails_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A weight that is no number: nothing that is computed from it holds, but it is saved and
    loaded faithfully.
    """
    write_model(tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    tensors = load_file(file)
    tensors["transformer.h.0.mlp.c_fc.bias"][3] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["groundup", "verify", "broken", "--device", "cpu"])
    monkeypatch.setattr(claims, "has_compiler", lambda: False)
    with pytest.raises(SystemExit, match="1"):
        main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("verifying broken (gpt2) on cpu")
    failed = [line for line in lines if line.startswith("FAILED")]
    assert any("readable = fused: logits" in line for line in failed)
    assert not any("tokenizer" in line or "tensors" in line for line in failed)
    assert len([line for line in lines if line.startswith("        This means: ")]) == len(failed)
    assert any(
        line.startswith("skipped compiled = eager") and "no C++ compiler" in line for line in lines
    )
    assert lines[-1].endswith(f"{len(failed)} failed, 1 skipped")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing-here"], "nothing-here is neither a run nor a model folder"),
        (["--device", "abacus"], "device abacus can't be used"),
        (["--device", "cuda:9"], "device cuda:9 can't be used"),
        (["--devise", "cpu"], "--device"),
        (["one", "two"], "two"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(
    words: list[str], said: str, tmp_path: Path
) -> None:
    assert said in error_line(groundup("verify", *words, folder=tmp_path))


def measuring(*steps: float | Exception) -> verify.Claim:
    """A claim with these errors, all held against 0.5."""

    def measure(_: ModelUnderTest) -> Iterator[Measurement]:
        for number, step in enumerate(steps):
            if isinstance(step, Exception):
                raise step
            yield Measurement(str(number), step, 0.5)

    return verify.Claim("it works", measure, "it doesn't work")


def findings_of(claim: verify.Claim) -> list[tuple[str, str, float | None, str]]:
    tested = ModelUnderTest("gpt2", model_of("gpt2", GPTConfig(4, 3, 1, 1, 2)), None, CPU)
    return [(row.status, row.claim, row.error, row.note) for row in verify.verify(claim, tested)]


def test_what_is_no_number_or_raises_does_not_hold() -> None:
    assert findings_of(measuring(0.5, math.nan, math.inf, 0.6, RuntimeError("sizes\ndiffer"))) == [
        ("ok", "it works: 0", 0.5, ""),
        ("FAILED", "it works: 1", None, "it doesn't work"),
        ("FAILED", "it works: 2", None, "it doesn't work"),
        ("FAILED", "it works: 3", 0.6, "it doesn't work"),
        ("FAILED", "it works", None, "it doesn't work (RuntimeError: sizes differ)"),
    ]


def test_what_cannot_be_examined_is_shown_with_its_reason() -> None:
    assert findings_of(measuring(Skipped("no compiler"))) == [
        ("skipped", "it works", None, "no compiler")
    ]
    assert findings_of(measuring(MemoryError("1 GB")))[0][3] == "out of memory: 1 GB"


def test_a_model_too_large_for_float64_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.machine.memory.available", lambda _: 1000)
    tested = ModelUnderTest("gpt2", model_of("gpt2", GPTConfig(4, 3, 1, 1, 8)), None, CPU)
    with pytest.raises(Skipped, match="float64 needs about"):
        next(claims.readable_is_fused(tested))


def test_differences_see_everything() -> None:
    ones, nan = torch.ones(3), torch.tensor([1.0, math.nan, 1.0])
    assert differences.relative(ones, ones) == 0
    assert differences.relative(ones * 4, ones * 2) == 1
    assert math.isnan(differences.relative(nan, ones))
    assert math.isnan(differences.relative({"a": nan, "b": ones}, {"a": ones, "b": ones}))
    assert math.isnan(differences.relative_of_norms({"a": nan}, {"a": ones}))
    assert differences.relative_of_norms(
        {"a": ones, "b": ones * 2}, {"a": ones, "b": ones}
    ) == pytest.approx(math.sqrt(0.5))
    assert differences.same_bits(nan, nan.clone())
    assert not differences.same_bits(torch.zeros(1), -torch.zeros(1))
    assert not differences.same_bits(ones, ones.double())
    assert differences.count_unequal({"a": ones, "b": ones}, {"a": nan, "c": ones}) == 3
    for other in ({"b": ones}, {"a": torch.ones(2)}):
        with pytest.raises(AssertionError):
            differences.relative(other, {"a": ones})


def test_the_hard_text_is_hard() -> None:
    text = round_trip.HARD + round_trip.random_characters()
    for part in (
        "\r\n",
        "\u2028",
        "\0",
        "e\u0301",
        "\u200d",
        "\ufeff",
        "\U0010ffff",
        "<|endoftext|>",
        "  \n",
    ):
        assert part in text
    assert len(text.encode("utf-8")) > 1500
    assert (
        round_trip.count_differences("abc", "abcd")
        == round_trip.count_differences("abd", "abc")
        == 1
    )
