"""A response that streams events for as long as somebody reads them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Response

from groundup.serving.answers import ApiError, event

STALL_SECONDS = 30  # a reader that takes nothing for so long is left


class EventStream(Response):
    """A response that streams events, and stops when its reader goes or takes nothing.

    Args:
        first: The first events.
        events: The others.
        close: Is called once, however the stream ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self, first: bytes, events: AsyncIterator[bytes], close: Callable[[], None]
    ) -> None:
        super().__init__()
        self.first, self.events, self.close = first, events, close

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, as ASGI calls it."""
        del self.headers["content-length"]
        self.headers["cache-control"], self.headers["x-accel-buffering"] = "no-cache", "no"
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        writing = asyncio.ensure_future(self._write(send, start))
        leaving = asyncio.ensure_future(_leaving(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
            self.close()

    async def _write(self, send: Any, start: Any) -> None:
        """Send all events. One that can't be sent in time ends the stream."""
        async with asyncio.timeout(STALL_SECONDS) as limit:
            await send(start)
            await self._send(send, self.first, limit)
            try:
                async for some in self.events:
                    await self._send(send, some, limit)
            except ApiError as error:
                await self._send(send, event(error.body), limit)
            await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Any, some: bytes, limit: asyncio.Timeout) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + STALL_SECONDS)
        await send({"type": "http.response.body", "body": some, "more_body": True})
        limit.reschedule(None)


async def _leaving(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
