"""The soak of benchmarks/, shortly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_streams_get_what_each_would_get_alone(tmp_path: Path) -> None:
    """64 clients, then ten times as many requests as are answered: no error, memory flat."""
    command = [sys.executable, ROOT / "benchmarks" / "soak.py", "--minutes", "0.15"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "all as alone" in finished.stdout
    assert 0.8 < json.loads(finished.stdout.splitlines()[-1])["ratio"] < 1.2
