"""`groundup prepare --ray`: on a cluster of two nodes the same bytes as here, and after a
kill too.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Cli, error_line
from sample_sources import files_of, small_tokenizer, some_documents, write_rows

pytestmark = pytest.mark.cluster

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes with a core each, on this machine, in processes of its own."""
    command = [sys.executable, "-c", CLUSTER]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as cluster:
        assert cluster.stdout is not None
        yield cluster.stdout.readline().strip()


@pytest.mark.timeout(400)
def test_a_cluster_writes_the_same_bytes_as_this_process(address: str, cli: Cli, tmp_path: Path):
    (tmp_path / "rows").mkdir()
    for number in range(6):
        write_rows(tmp_path / "rows" / f"{number}.jsonl", some_documents(100, seed=number))
    small_tokenizer(tmp_path / "small")
    command = ("prepare", "rows", "--tokenizer", "small")
    here = cli(*command, "--out", "here", "--workers", "1")
    assert here.returncode == 0, here.stderr

    started = subprocess.Popen(
        [sys.executable, "-m", "groundup", *command, "--out", "there", "--ray", address],
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("there/.work/part-*.json")) and started.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert not (tmp_path / "there" / "index.json").exists()

    there = cli(*command, "--out", "there", "--ray", address, timeout=200)
    assert there.returncode == 0, there.stderr
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")

    (tmp_path / "rows" / "6.jsonl").write_text("{\n")
    refused = cli(*command, "--out", "bad", "--ray", address, timeout=200)
    assert "6.jsonl, line 1 is not JSON" in error_line(refused)


def test_no_cluster_is_said_in_a_line(cli: Cli, tmp_path: Path):
    write_rows(tmp_path / "a.jsonl", some_documents())
    small_tokenizer(tmp_path / "small")
    command = ("prepare", "a.jsonl", "--tokenizer", "small", "--out", "out", "--ray", "127.0.0.1:1")
    assert "no Ray cluster at 127.0.0.1:1" in error_line(cli(*command))
