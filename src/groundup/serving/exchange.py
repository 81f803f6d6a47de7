"""One request for texts, and its answer: whole, or a stream of events."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request, Response

from groundup.serving.answers import DONE, ApiError, TextSoFar, as_json, event
from groundup.serving.driver import Piece, Stream
from groundup.serving.event_stream import EventStream
from groundup.serving.gate import Visit
from groundup.serving.place import Place
from groundup.serving.protocol import ChatRequest
from groundup.serving.service import Plan, Service, follow


async def unless_gone(work: Any, request: Request) -> Any:
    """Wait for something, unless the client goes before it is there.

    Raises:
        ApiError: The client has gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(499, "the client left")
    finally:
        for task in (working, leaving):
            task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Exchange:
    """One request for texts and its answer.

    Args:
        place: What the server has.
        service: The model.
        plan: What the request asks for.
        request: The request.
    """

    def __init__(self, place: Place, service: Service, plan: Plan, request: Request) -> None:
        self.place, self.service, self.plan, self.request = place, service, plan, request
        self.body, self.chats = plan.body, isinstance(plan.body, ChatRequest)
        self.visit: Visit = request.state.visit
        self.texts = service.begun_texts(plan)
        kind = "chat.completion" if self.chats else "text_completion"
        prefix = "chatcmpl" if self.chats else "cmpl"
        self.head = {
            "id": f"{prefix}-{self.visit.id}",
            "object": kind + (".chunk" if self.chats and self.body.stream else ""),
            "created": int(time.time()),
            "model": service.name,
            "system_fingerprint": service.fingerprint,
        }

    async def answer(self) -> Response:
        """Return the whole answer, or a response that streams it."""
        stream = self.service.start(self.plan)
        self.place.open += 1
        if self.body.stream:
            events = self.events(stream)
            try:
                first = await unless_gone(anext(events), self.request)
            except BaseException:
                self.close(stream)
                raise
            return EventStream(first, events, lambda: self.close(stream))
        try:
            await unless_gone(self._collect(stream), self.request)
        finally:
            self.close(stream)
        choices = [self._whole(index, text) for index, text in enumerate(self.texts)]
        whole = self.head | {"choices": choices, "usage": self._usage()}
        return Response(as_json(whole), media_type="application/json")

    async def _collect(self, stream: Stream) -> None:
        """Write all texts to their ends."""
        async for pieces in follow(stream):
            for piece in pieces:
                self._begin(stream, piece.index)
                self.texts[piece.index].add(piece)

    def _begin(self, stream: Stream, index: int) -> bool:
        """Put its prompt in front of a text if it has just begun, and return whether it has."""
        text = self.texts[index]
        if text.begun:
            return False
        text.begun = True
        if getattr(self.body, "echo", None):
            # the engine has read this text's prompt, and perhaps not yet those of others
            which = index // (self.body.n or 1)
            self.service.echo(self.plan, which, stream.requests[which], text)
        return True

    async def events(self, stream: Stream) -> AsyncGenerator[bytes]:
        """Yield the events of a stream."""
        async with aclosing(follow(stream)) as found:
            async for pieces in found:
                events = list[bytes]()
                for piece in pieces:
                    if self._begin(stream, piece.index):
                        events += self._first_events(piece.index)
                    events += self._events_of(piece)
                if events:
                    yield b"".join(events)
        last = [DONE]
        if (options := self.body.stream_options) is not None and options.include_usage:
            last.insert(0, event(self.head | {"choices": [], "usage": self._usage()}))
        yield b"".join(last)

    def _first_events(self, index: int) -> list[bytes]:
        """The events before a text has its first token."""
        if self.chats:
            return [self._chunk(index, {"role": "assistant", "content": ""}, None, "")]
        text = self.texts[index]
        logprobs = self.service.logprobs(self.plan, text)
        return [self._chunk(index, text.shown, logprobs, "")] if text.shown else []

    def _events_of(self, piece: Piece) -> list[bytes]:
        """The events of what a step added to a text."""
        text = self.texts[piece.index]
        new = text.add(piece)
        logprobs = self.service.logprobs(self.plan, text)
        said = logprobs is not None and any(logprobs.values())
        ids = text.take_ids() if self.body.return_token_ids else []
        found = []
        if new or said or ids:
            content = {"content": new} if self.chats else new
            found.append(self._chunk(piece.index, content, logprobs if said else None, "", ids))
        if piece.finish:
            found.append(self._chunk(piece.index, {} if self.chats else "", None, piece.finish))
        return found

    def _chunk(
        self, index: int, content: Any, logprobs: Any, finish: str, ids: Sequence[int] = ()
    ) -> bytes:
        """An event about one text."""
        name = "delta" if self.chats else "text"
        choice = {"index": index, name: content, "logprobs": logprobs}
        choice |= {"token_ids": ids} if self.body.return_token_ids else {}
        whole = self.head | {"choices": [choice | {"finish_reason": finish or None}]}
        if (options := self.body.stream_options) is not None:
            if options.continuous_usage_stats:
                whole["usage"] = self._usage()
            elif options.include_usage:
                whole["usage"] = None
        return event(whole)

    def _whole(self, index: int, text: TextSoFar) -> dict[str, Any]:
        """A text that is over, as a choice of the answer."""
        logprobs = self.service.logprobs(self.plan, text)
        rest = {"logprobs": logprobs, "finish_reason": text.finish}
        rest |= {"token_ids": text.take_ids()} if self.body.return_token_ids else {}
        if self.chats:
            message = {"role": "assistant", "content": text.shown}
            return {"index": index, "message": message} | rest
        return {"index": index, "text": text.shown} | rest

    def _usage(self) -> dict[str, int]:
        prompt, written = self.plan.prompt_tokens, sum(text.tokens for text in self.texts)
        known = {"prompt_tokens": prompt, "completion_tokens": written}
        return known | {"total_tokens": prompt + written}

    def close(self, stream: Stream) -> None:
        """Count the request, and give back what it had, whether it is over or not."""
        self.place.open -= 1
        self.service.driver.finish(stream)
        seconds = time.perf_counter() - stream.begun
        usage = self._usage()
        self.visit.numbers |= {name: usage[name] for name in ("prompt_tokens", "completion_tokens")}
        if stream.first is not None:
            self.visit.numbers["first_token_seconds"] = round(stream.first, 3)
        assert self.place.metrics is not None
        tokens = [text.tokens for text in self.texts]
        self.place.metrics.count(stream, self.plan.prompt_tokens, tokens, seconds)
        for text in self.texts:
            self.place.metrics.success.labels(text.finish or "abort").inc()
