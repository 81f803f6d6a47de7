"""The session: the context of a run, which the command line opens."""

from dataclasses import dataclass, field

from groundup.parallel.world import World
from groundup.training.journal import Journal
from groundup.training.stopping import StopRequest


@dataclass(frozen=True)
class Session:
    """The context of a run. By default one process that nobody stops, and that records nothing.

    Attributes:
        world: The processes that share the run.
        journal: Where this process records what happens.
        stop: The request to stop that signals make.
    """

    world: World = field(default_factory=World)
    journal: Journal = field(default_factory=Journal)
    stop: StopRequest = field(default_factory=StopRequest)
