"""The thread that makes the engine's steps, and what joins it to the event loop of the server.

The event loop never waits for a step: what it asks for goes into an inbox, which the thread empties
between two steps, and what was written comes back to the loop all at once after each step.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from groundup.errors import GroundupError
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.texts import Choice, Request, Written

logger = logging.getLogger(__name__)

STEP_FAILED = "an error ended a step of the engine"
MOST_BESIDE = 32  # pieces of other work that may wait


class OverloadedError(Exception):
    """So many texts are being written and waited for that no more are taken."""


class EngineFailedError(Exception):
    """An error ended a step of the engine, and the texts that it was writing with it."""


@dataclass(frozen=True)
class Job:
    """Texts that are to follow one prompt.

    Args:
        prompt: The tokens of the prompt.
        settings: How the texts are drawn.
        choices: The number of texts.
        logprobs: The number of most probable tokens to list beside each; None for no scores.
        prompt_logprobs: Whether the prompt's tokens get scores, too.
    """

    prompt: list[int]
    settings: SamplingSettings
    choices: int = 1
    logprobs: int | None = None
    prompt_logprobs: bool = False


@dataclass(frozen=True)
class Piece:
    """What a step added to one text.

    Args:
        index: The number of the text among all of the stream.
        written: The tokens and texts that were added.
        finish: Why the text is over, or empty.
    """

    index: int
    written: list[Written]
    finish: str


@dataclass(eq=False)
class Stream:
    """The texts of one HTTP request, which may have several prompts.

    Attributes:
        jobs: What was asked for.
        requests: The engine's requests, one for each job, once it has them.
        unfinished: The number of texts that are not over.
        begun: When it was asked for, by `time.perf_counter`.
        first: The seconds until the first token, once there is one.
        reported: The numbers of the texts whose end was handed over.
    """

    jobs: Sequence[Job]
    requests: list[Request] = field(default_factory=list)
    unfinished: int = 0
    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None
    reported: set[int] = field(default_factory=set)
    _queue: "asyncio.Queue[list[Piece] | Exception]" = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self.unfinished = sum(job.choices for job in self.jobs)

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """Yield what was added, until all texts are over: of a step, or of several at once.

        Where steps come faster than they are sent, one sending has all that waits.

        Raises:
            EngineFailedError: The engine can't go on with these texts.
            GenerationError: The engine doesn't take such a request.
        """
        while self.unfinished or not self._queue.empty():
            found = list[Piece]()
            some = await self._queue.get()
            while isinstance(some, list):
                found += some
                if self._queue.empty():
                    break
                some = self._queue.get_nowait()
            if found:
                yield found
            if isinstance(some, Exception):
                raise some

    def put(self, found: "list[Piece] | Exception") -> None:
        """Take what a step added; called by the event loop."""
        if isinstance(found, list):
            self.unfinished -= sum(bool(piece.finish) for piece in found)
            if self.first is None:
                self.first = time.perf_counter() - self.begun
        self._queue.put_nowait(found)


@dataclass(frozen=True)
class Beside:
    """Work beside the engine's steps.

    Args:
        parts: Does it, and yields wherever others may be served.
        done: Gets its result.
    """

    parts: Generator[None, None, Any]
    done: "asyncio.Future[Any]"


class Driver:
    """Writes the texts of all streams with one engine.

    The thread makes the engine, too: OpenMP keeps threads for each thread that computes, and where
    a process has more of them than the machine has cores, they wait less well for one another.

    Args:
        max_waiting: The number of texts that may wait for a slot of the engine.

    Attributes:
        engine: The engine, which nobody else may use, once it is there.
        broken: Whether the engine couldn't be emptied after an error.
    """

    engine: Engine

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting, self.broken = max_waiting, False
        self._inbox: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._streams: list[Stream] = []  # those that the thread writes
        self._open = set[Stream]()  # those that the event loop answers
        self._works: deque[Beside] = deque()  # other work, which the thread does
        self._works_open = set[asyncio.Future[Any]]()  # that the event loop waits for
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    async def start(self, make: Callable[[], Engine]) -> None:
        """Begin, within the event loop that asks for texts, and wait for the engine.

        Args:
            make: Makes the engine, by the thread. What it raises is raised here.
        """
        self._loop = asyncio.get_running_loop()
        made: asyncio.Future[None] = self._loop.create_future()
        # a daemon: a model that is still being read doesn't keep the process
        self._thread = Thread(target=self._begin, args=(make, made), name="engine", daemon=True)
        self._thread.start()
        await made

    def stop(self, seconds: float | None = None) -> bool:
        """End the thread after the step that it makes now, and return whether it has ended.

        Args:
            seconds: How long to wait for that; None waits for ever.
        """
        self._inbox.put(None)
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def end_all(self, reason: str) -> None:
        """End all streams, and all other work, by an error."""
        for stream in self._open:
            stream.put(EngineFailedError(reason))
        for done in self._works_open:
            _resolve(done, EngineFailedError(reason))

    def submit(self, jobs: Sequence[Job]) -> Stream:
        """Ask for texts.

        Raises:
            OverloadedError: Too many texts wait already.
        """
        count = sum(job.choices for job in jobs)
        if self.taken and self.taken + count > self.most:
            raise OverloadedError
        stream = Stream(jobs)
        self._open.add(stream)
        self._inbox.put(lambda: self._submit(stream))
        return stream

    async def beside(self, make: Callable[[], Generator[None, None, Any]]) -> Any:
        """Let the thread do other work, a part of it after each step, and return its result.

        Works are done one after the other. One that nobody waits for any more is left.

        Args:
            make: Returns the generator that does the work; called by the thread.

        Raises:
            OverloadedError: Too much waits already.
            EngineFailedError: An error ended it.
            GroundupError: Whatever the work itself raises of this kind.
        """
        if len(self._works_open) >= MOST_BESIDE:
            raise OverloadedError
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._inbox.put(lambda: self._works.append(Beside(make(), done)))
        self._works_open.add(done)
        try:
            return await done
        finally:
            self._works_open.discard(done)

    def finish(self, stream: Stream) -> None:
        """Give back what a stream has, whether its texts are over or not."""
        self._open.discard(stream)
        if stream.unfinished:
            stream.unfinished = 0
            self._inbox.put(lambda: self._cancel(stream))

    @property
    def taken(self) -> int:
        """The number of texts that were asked for and aren't over."""
        return sum(stream.unfinished for stream in self._open)

    @property
    def most(self) -> int:
        """The number of texts that are written or wait, at most."""
        return self.engine.pool.slots + self.max_waiting

    @property
    def is_full(self) -> bool:
        """Whether not even one text more is taken."""
        return self.taken >= self.most

    @property
    def waiting(self) -> int:
        """The number of requests that have no slots yet."""
        return self.engine.waiting + self._inbox.qsize()

    def _begin(self, make: Callable[[], Engine], made: "asyncio.Future[None]") -> None:
        """Make the engine, and then its steps."""
        try:
            self.engine = make()
        except BaseException as error:
            self._tell(made.set_exception, error)
            return
        self._tell(made.set_result, None)
        self._run()

    def _tell(self, function: Callable[..., object], *args: object) -> None:
        """Let the event loop call a function, unless it has ended."""
        with suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *args)

    def _run(self) -> None:
        """Make steps as long as there is something to write."""
        while True:
            idle = not self._streams and not self._works
            if idle and not self._handle(self._inbox.get()):
                return
            try:
                while True:
                    if not self._handle(self._inbox.get_nowait()):
                        return
            except Empty:
                self._step()
                self._go_on_beside()

    def _handle(self, letter: Callable[[], object] | None) -> bool:
        """Do what the inbox has, and return whether to go on."""
        if letter is not None:
            letter()
        return letter is not None

    def _submit(self, stream: Stream) -> None:
        """Hand a stream's jobs to the engine."""
        try:
            for job in stream.jobs:
                what = {"logprobs": job.logprobs, "prompt_logprobs": job.prompt_logprobs}
                stream.requests.append(
                    self.engine.submit(job.prompt, job.settings, job.choices, **what)
                )
        except Exception as error:
            self._cancel(stream)
            known = isinstance(error, GroundupError)
            self._hand_over([(stream, error if known else EngineFailedError(STEP_FAILED))])
            return
        self._streams.append(stream)

    def _cancel(self, stream: Stream) -> None:
        for request in stream.requests:
            self.engine.cancel(request)
        if stream in self._streams:
            self._streams.remove(stream)

    def _step(self) -> None:
        """Make a step and hand over what it wrote."""
        if not self._streams:
            return
        found: list[tuple[Stream, list[Piece] | Exception]] = []
        try:
            self.engine.step()
            for stream in self._streams:
                if pieces := _new_pieces(stream):
                    found.append((stream, pieces))
        except Exception as error:  # whatever it is, others are to be served
            self._fail(error)
            return
        self._streams = [s for s in self._streams if len(s.reported) < len(_choices(s))]
        self._hand_over(found)

    def _go_on_beside(self) -> None:
        """Do a part of the first work that somebody waits for."""
        if not self._works:
            return
        work = self._works[0]
        try:
            if not work.done.done():
                next(work.parts)
                return
            work.parts.close()
        except StopIteration as end:
            self._tell(_resolve, work.done, end.value)
        except GroundupError as error:
            self._tell(_resolve, work.done, error)
        except Exception as error:  # whatever it is, others are to be served
            logger.error(f"looking into a text failed: {type(error).__name__}: {error}")
            self._tell(_resolve, work.done, EngineFailedError("looking into the text failed"))
        self._works.popleft()

    def _fail(self, error: Exception) -> None:
        """Empty the engine after an error in a step: its texts can't go on."""
        logger.error(f"a step of the engine failed: {type(error).__name__}: {error}")
        streams, self._streams = self._streams, []
        for stream in streams:
            for request in stream.requests:
                self.engine.cancel(request)
        self.broken = self.engine.pool.free != self.engine.pool.slots
        self._hand_over([(stream, EngineFailedError(STEP_FAILED)) for stream in streams])

    def _hand_over(self, found: "Sequence[tuple[Stream, list[Piece] | Exception]]") -> None:
        """Give the event loop what there is, in one call."""
        if found:
            self._tell(_put, found)


def _resolve(done: "asyncio.Future[Any]", found: Any) -> None:
    """Hand the result of a work, or its error, to who waits for it."""
    if done.done():  # nobody waits any more
        return
    if isinstance(found, Exception):
        done.set_exception(found)
    else:
        done.set_result(found)


def _choices(stream: Stream) -> list[Choice]:
    return [choice for request in stream.requests for choice in request.choices]


def _new_pieces(stream: Stream) -> list[Piece]:
    """Return what was added to the texts of a stream since the last call."""
    pieces = list[Piece]()
    for index, choice in enumerate(_choices(stream)):
        if index in stream.reported:
            continue
        written, finish = choice.take(), choice.finish
        if written or finish:
            pieces.append(Piece(index, written, finish))
        if finish:
            stream.reported.add(index)
    return pieces


def _put(found: "Sequence[tuple[Stream, list[Piece] | Exception]]") -> None:
    for stream, pieces in found:
        stream.put(pieces)
