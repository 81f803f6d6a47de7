"""The calls of a preparation by their names, as processes and machines are told them."""

from collections.abc import Callable
from typing import Any

from groundup.prepare.plan import make_plan
from groundup.prepare.steps import encode_part, write_index, write_shard

CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    "make_plan": make_plan,
    "encode_part": encode_part,
    "write_shard": write_shard,
    "write_index": write_index,
}
