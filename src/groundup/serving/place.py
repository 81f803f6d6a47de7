"""What a server has, from its start to its end."""

import asyncio
from dataclasses import dataclass, field

from groundup.serving.answers import ApiError, overloaded
from groundup.serving.metrics import Metrics
from groundup.serving.service import Service


@dataclass
class Place:
    """What a server has, from its start to its end.

    Attributes:
        service: The model, once it is loaded.
        metrics: What is counted, once the model is loaded.
        draining: Whether the server is about to stop, and takes nothing new.
        open: The number of requests that are being answered.
        rendering: Held by the one chat that is being rendered.
    """

    service: Service | None = None
    metrics: Metrics | None = None
    draining: bool = False
    open: int = 0
    rendering: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def state(self) -> str:
        """What `/health` says: ok, loading, draining or failed."""
        if self.draining:
            return "draining"
        if self.service is None:
            return "loading"
        return "failed" if self.service.driver.broken else "ok"

    def ready(self) -> Service:
        """Return the service, where it takes requests.

        Raises:
            ApiError: It doesn't now.
        """
        if self.service is None or self.state != "ok":
            raise ApiError(503, f"the server is not ready: {self.state}", code=self.state)
        return self.service

    def check_room(self) -> None:
        """Refuse a request where not even one text more can wait.

        Raises:
            ApiError: There are too many already.
        """
        if self.service is not None and self.service.driver.is_full:
            raise overloaded()
