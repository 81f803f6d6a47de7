"""Runs the functions that prepare a corpus, in this process or in several of this machine.

The processes are started as commands, so that no script needs a main guard: a worker never imports
the script or notebook that began the work. When the process that started a worker ends, for any
reason, the worker ends too.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any

from groundup import errors
from groundup.console import messages_to, report
from groundup.errors import CorpusError, GroundupError
from groundup.prepare.plan import make_plan
from groundup.prepare.steps import count_shards, encode_part, write_index, write_shard

Call = tuple[str, dict[str, Any]]  # the name of one of CALLS, and its arguments
Results = Iterator[tuple[Call, dict[str, Any]]]
Runner = Callable[[Iterable[Call]], Results]  # this process, several, or a cluster

CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    call.__name__: call for call in (make_plan, encode_part, count_shards, write_shard, write_index)
}


def run_here(calls: Iterable[Call]) -> Results:
    """Make function calls one after the other in this process.

    Yields:
        Each call and its result.
    """
    for call in calls:
        yield call, CALLS[call[0]](**call[1])


class Workers:
    """Worker processes that make function calls; the end of a `with` block kills them."""

    def __init__(self, count: int) -> None:
        self.processes = [_start() for _ in range(count)]

    def run(self, calls: Iterable[Call]) -> Results:
        """Make function calls, and take each from `calls` only when a worker is free.

        Yields:
            Each call and its result, in the order in which the calls end.

        Raises:
            CorpusError: A worker died.
            GroundupError: A call raised it.
        """
        waiting, free = iter(calls), list(self.processes)
        running: dict[Future[dict[str, Any]], tuple[subprocess.Popen[bytes], Call]] = {}
        with ThreadPoolExecutor(len(free)) as threads:
            try:
                while True:
                    while free and (call := next(waiting, None)) is not None:
                        process = free.pop()
                        running[threads.submit(_ask, process, call)] = (process, call)
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        process, call = running.pop(future)
                        free.append(process)
                        yield call, future.result()
            except BaseException:
                self.end()  # threads that wait for other workers come back
                raise

    def end(self) -> None:
        """Kill all worker processes at once.

        This is safe, because a file gets its final name only when it is complete.
        """
        for process in self.processes:
            process.kill()
            process.wait()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "groundup.prepare.workers"]
    paths = os.pathsep.join(filter(None, sys.path))  # but not the folder that it happens to be in
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
    pipe = subprocess.PIPE
    # in a session of its own: Ctrl-C goes to the process that began the work, which ends them
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, env=environment, start_new_session=True
    )


def _ask(process: subprocess.Popen[bytes], call: Call) -> dict[str, Any]:
    """Send a call and wait for its result; what it raised is raised here."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(call).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        line = b""
    if not line:
        status, how = process.wait(), "failed, see above"
        if status < 0:
            remedy = "most likely for want of memory: try fewer --workers"
            how = f"was killed by signal {-status}, {remedy}"
        raise CorpusError(f"a worker {how}. What is done is kept: the same command goes on")
    answer = json.loads(line)
    if "error" in answer:
        raise (getattr(errors, answer["error"], None) or RuntimeError)(answer["message"])
    return answer["result"]


def main() -> None:
    """Work as a worker process, which reads function calls and writes results as lines of JSON.

    The end of the input ends the worker at once.
    """
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints isn't a result
    calls: SimpleQueue[Call] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            calls.put(tuple(json.loads(line)))
        os._exit(0)

    Thread(target=listen, daemon=True).start()
    with messages_to(report):
        while True:
            name, arguments = calls.get()
            try:
                answer: dict[str, Any] = {"result": CALLS[name](**arguments)}
            except GroundupError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            results.write(json.dumps(answer).encode() + b"\n")
            results.flush()


if __name__ == "__main__":
    main()
