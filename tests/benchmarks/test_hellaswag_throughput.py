"""The benchmark of HellaSwag's throughput: every contender scores the same texts, each at its own
batch size.
"""

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ITEMS = [
    {"ind": 1, "activity_label": "Canoeing", "ctx": "Two people sit in a canoe. they", "label": 0},
    {
        "ind": 2,
        "activity_label": "How to nap",
        "ctx": "[header] How to nap [title] Lie down.",
        "label": 3,
    },
    {
        "ind": 3,
        "activity_label": "High jump",
        "ctx": "A boy is running down a track. the boy",
        "label": 2,
    },
]
ENDINGS = [
    "paddle.",
    "close both eyes [step] and sleep.",
    "runs into a car, again and again.",
    "jump  over it.",
]


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of three items; the benchmarks can be imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    path = tmp_path / "items.jsonl"
    path.write_text(
        "".join(json.dumps(item | {"endings": ENDINGS}) + "\n" for item in ITEMS), "utf-8"
    )
    return path


@pytest.mark.peers
def test_every_contender_scores_the_same(
    items: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import common
    import hellaswag_throughput

    # a kind with a figure: README.md's doesn't concern a model of one layer
    monkeypatch.setattr(common, "figures", lambda: {"title": "", "hellaswag_throughput": 1e9})
    hellaswag_throughput.main(
        ["--items", "3", "--rounds", "2", "--layers", "1", "--file", str(items)]
    )
    *rounds, difference, result = capsys.readouterr().out.splitlines()
    names = [
        "groundup, 8 items at once",
        *(f"lm-evaluation-harness, batch {size}" for size in (1, 8, 16)),
    ]
    assert [line.partition(",")[0] for line in rounds[-2:]] == ["round 1", "round 2"]
    assert all(name in line for name in names for line in rounds[-2:])
    assert float(difference.split()[-2]) < 1e-3
    found = json.loads(result)
    assert found["ratio"] == pytest.approx(found["ours"] / found["peer"])


def test_without_the_peer_it_is_refused(
    items: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import hellaswag_throughput

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match="2"):
        hellaswag_throughput.main(["--file", str(items)])
    assert "lm-evaluation-harness isn't installed: pip install" in capsys.readouterr().err
