"""The calls of a preparation on a Ray cluster whose machines share the disk."""

import json
import logging
import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from groundup.errors import CorpusError, GroundupError, MachineError
from groundup.prepare.calls import CALLS
from groundup.prepare.workers import Call, Results


def on_cluster(address: str) -> "OnCluster":
    """Join the cluster at `address` (`auto` finds one on this machine). Raises MachineError,
    CorpusError.
    """
    try:
        import ray
    except ImportError as error:
        raise MachineError("--ray needs Ray: pip install 'groundup[cluster]'") from error
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"there is no Ray cluster at {address}: {str(error).splitlines()[0]}"
        ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    # what is shown is a preparation's own progress
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return OnCluster()


class OnCluster:
    """Works off calls as rows of a Ray Dataset, so many at a time that every core of the cluster
    has a few.
    """

    def __call__(self, calls: Iterable[Call]) -> Results:
        """Each call and its result. Raises what a call raised."""
        import ray

        waiting = iter(calls)
        at_once = 4 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while batch := list(islice(waiting, at_once)):
            rows = [{"call": json.dumps(call)} for call in batch]
            answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map(answer)
            for row in _rows_of(answers):
                (name, arguments), result = json.loads(row["call"]), json.loads(row["answer"])
                if "error" in result:
                    raise CorpusError(result["error"])
                yield (name, arguments), result


def _rows_of(answers: Any) -> Iterator[dict[str, str]]:
    """The rows as they come. Raises CorpusError for what Ray itself ends with."""
    from ray.exceptions import RayError

    try:
        yield from answers.iter_rows()
    except RayError as error:
        raise CorpusError(
            f"the Ray cluster gave up: {str(error).strip().splitlines()[-1]}. What is done is "
            "kept: run again to go on"
        ) from error


def answer(row: dict[str, str]) -> dict[str, str]:
    """A row with what its call gave; what a user did wrong travels as text, because Ray would wrap
    it.
    """
    name, arguments = json.loads(row["call"])
    try:
        result = CALLS[name](**arguments)
    except GroundupError as error:
        result = {"error": str(error)}
    return row | {"answer": json.dumps(result)}
