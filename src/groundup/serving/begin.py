"""Loads the model of a server, by the thread that will write with it."""

import logging
from dataclasses import dataclass, field

from groundup.checkpoints.model_folder import LoadedModel, load_model
from groundup.errors import ServerError
from groundup.generation.engine import Engine
from groundup.generation.settings import SamplingSettings
from groundup.generation.writer import Precision
from groundup.serving.driver import Driver
from groundup.serving.metrics import Metrics
from groundup.serving.place import Place
from groundup.serving.service import Service

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The model that a server is to have.

    Args:
        model: The name by which it is loaded.
        name: The name that clients call it by; empty for its own.
        device: Where it writes.
        precision: How it writes.
        max_streams: The number of texts that are written at once.
        max_waiting: The number of texts that may wait for that.
        batch_invariant: Whether texts must not depend on others, bit for bit.
        allow_special_tokens: Whether messages may spell special tokens.
    """

    model: str
    name: str = ""
    device: str = "auto"
    precision: Precision = field(default_factory=Precision)
    max_streams: int = 16
    max_waiting: int = 64
    batch_invariant: bool = False
    allow_special_tokens: bool = False


async def begin(place: Place, wanted: Wanted) -> None:
    """Load a model into a place.

    Raises:
        GroundupError: It can't be loaded, or can't be served as it is wanted.
    """
    driver, found = Driver(wanted.max_waiting), list[LoadedModel]()

    def make() -> Engine:
        loaded = load_model(wanted.model, device=wanted.device)
        engine = Engine(
            loaded.model,
            loaded.require_tokenizer(),
            slots=wanted.max_streams,
            ends=loaded.text_ends,
            precision=wanted.precision,
        )
        if wanted.batch_invariant and engine.writer.device.type != "cpu":
            where = engine.writer.device
            problem = f"batch-invariant: on {where} the last bits of a text depend on others"
            raise ServerError(f"{problem}; serve with --device cpu")
        warm_up(engine)
        found.append(loaded)
        return engine

    await driver.start(make)
    (loaded,) = found
    name = wanted.name or loaded.title
    service = Service(driver, loaded, name, wanted.allow_special_tokens)
    place.service, place.metrics = service, Metrics(driver)
    logger.info(f"{loaded.description}; {driver.engine.writer.description}")
    logger.info(f"ready: {name}, {wanted.max_streams} texts at once")


def warm_up(engine: Engine) -> None:
    """Write a token, so that nobody waits for what is done once."""
    for _ in engine.submit([0], SamplingSettings(length=2)):
        pass
    engine.passes = 0
