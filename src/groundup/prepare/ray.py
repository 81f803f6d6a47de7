"""Makes the function calls of a preparation on a Ray cluster whose machines share the disk."""

import json
import logging
import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from groundup.errors import CorpusError, GroundupError, MachineError
from groundup.prepare.workers import CALLS, Call, Results


def join_cluster(address: str) -> None:
    """Join a Ray cluster, so that `run_on_cluster` can use it.

    Args:
        address: Where the cluster is; `auto` finds one on this machine.

    Raises:
        MachineError: Ray isn't installed.
        CorpusError: There is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise MachineError("--ray needs Ray: pip install 'groundup[cluster]'") from error
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, ignore_reinit_error=True, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise CorpusError(f"there is no Ray cluster at {address}: {what}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    # what is shown is a preparation's own progress
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def run_on_cluster(calls: Iterable[Call]) -> Results:
    """Make function calls as rows of a Ray Dataset, four at a time for every core of the cluster.

    Yields:
        Each call and its result.

    Raises:
        CorpusError: The cluster gave up, or a call raised a GroundupError.
    """
    import ray

    waiting = iter(calls)
    at_once = 4 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    while batch := list(islice(waiting, at_once)):
        rows = [{"call": json.dumps(call)} for call in batch]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(run_row)
        for row in _rows_of(results):
            (name, arguments), result = json.loads(row["call"]), json.loads(row["result"])
            if "error" in result:
                raise CorpusError(result["error"])
            yield (name, arguments), result


def _rows_of(results: Any) -> Iterator[dict[str, str]]:
    """The rows as they come; what Ray itself ends with is one line."""
    from ray.exceptions import RayError

    try:
        yield from results.iter_rows()
    except RayError as error:
        what = str(error).strip().splitlines()[-1]
        remedy = "What is done is kept: run again to go on"
        raise CorpusError(f"the Ray cluster gave up: {what}. {remedy}") from error


def run_row(row: dict[str, str]) -> dict[str, str]:
    """Make the function call of a row; a GroundupError becomes text, because Ray would wrap it."""
    name, arguments = json.loads(row["call"])
    try:
        result = CALLS[name](**arguments)
    except GroundupError as error:
        result = {"error": str(error)}
    return row | {"result": json.dumps(result)}
