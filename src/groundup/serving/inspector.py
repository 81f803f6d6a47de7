"""Looks into texts for the server's page, between the steps of the engine."""

from collections import OrderedDict
from collections.abc import Generator
from typing import Any

from groundup.errors import GroundupError
from groundup.inspection.answer import Answer, MissingError, Wanted, tokens_alone
from groundup.inspection.reading import Inspection
from groundup.serving.answers import ApiError, overloaded
from groundup.serving.driver import Driver, EngineFailedError, OverloadedError
from groundup.tokenizers.texts import TokenTexts

MOST_KEPT, MOST_KEPT_BYTES = 8, 256 * 2**20  # texts that can be looked at again without reading


class Inspector:
    """Answers requests for what a model computes on its way through a text.

    What was computed for the last texts is kept, so that the next question about one of them is
    answered at once.

    Args:
        driver: What runs the engine, and this beside it.
        texts: What its tokens look like.
    """

    def __init__(self, driver: Driver, texts: TokenTexts) -> None:
        self.driver, self.texts = driver, texts
        self._kept: OrderedDict[tuple[int, ...], Inspection] = OrderedDict()

    async def answer(self, tokens: list[int], wanted: Wanted) -> dict[str, Any]:
        """Return what is wanted of a text.

        Raises:
            ApiError: The text or the model doesn't have that, or too many wait.
        """
        if wanted.is_tokens_alone:
            return tokens_alone(self.driver.engine.writer.model, self.texts, tokens)
        try:
            return await self.driver.beside(lambda: self._parts(tuple(tokens), wanted))
        except OverloadedError:
            raise overloaded() from None
        except EngineFailedError as error:
            raise ApiError(503, f"{error}; try again", code="engine_error") from None
        except GroundupError as error:
            where = error.field if isinstance(error, MissingError) else None
            raise ApiError(400, str(error), where) from None

    def _parts(
        self, tokens: tuple[int, ...], wanted: Wanted
    ) -> Generator[None, None, dict[str, Any]]:
        """Yield between the parts of the work; called by the thread of the engine."""
        inspection = self._kept.get(tokens)
        if inspection is None:
            inspection = Inspection.by_engine(self.driver.engine, tokens)
            wanted.check(inspection)
            for other in self._kept.values():  # a text that has grown has the same beginning
                inspection.adopt(other)
        try:
            return (yield from Answer(inspection, self.texts).parts(wanted))
        finally:  # also where nobody waits for it any more
            if inspection.length:
                self._keep(tokens, inspection)

    def _keep(self, tokens: tuple[int, ...], inspection: Inspection) -> None:
        """Keep a text, and forget the ones that were asked for the longest ago."""
        self._kept[tokens] = inspection
        self._kept.move_to_end(tokens)
        while len(self._kept) > 1 and (
            len(self._kept) > MOST_KEPT
            or sum(each.nbytes for each in self._kept.values()) > MOST_KEPT_BYTES
        ):
            self._kept.popitem(last=False)
