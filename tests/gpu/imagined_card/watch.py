"""Watches what is done on the imagined card: each operation, and the memory of what lives."""

import weakref
from collections import Counter
from typing import Any

from imagined_card.imagined import CARD, described
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512  # bytes: what torch takes for a tensor on a card is a multiple of it


class Watch(TorchDispatchMode):
    """Watches the operations: what they take and give, and the memory of what lives.

    Attributes:
        operations: How often each operation took and gave which dtypes and shapes.
        live: The bytes of each storage on the card that lives, by the storage's address.
        now: Their sum.
        peak: The largest sum since `forget`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[tuple[str, str, str]] = Counter()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        for tensor in tensors_of(found):
            self.note_storage(tensor)
        if func.namespace not in ("prim", "profiler") and not func.is_view:
            given = listed((args, kwargs))
            self.operations[func.name(), given, listed(found)] += 1
        return found

    def note_storage(self, tensor: Tensor) -> None:
        """Count the memory of a tensor on the card until nobody holds it any more."""
        storage = tensor.untyped_storage()
        if tensor.device.type != CARD.type or storage._cdata in self.live:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self.live[storage._cdata] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.release, storage._cdata)

    def release(self, address: int) -> None:
        """Note that a storage is freed."""
        self.now -= self.live.pop(address)

    def forget(self) -> None:
        """Forget all operations and the peak."""
        self.operations.clear()
        self.peak = self.now


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors among the arguments or results of an operation."""
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def listed(values: Any) -> str:
    """The tensors of an operation in words; of more than eight only how many of which dtype."""
    tensors = tensors_of(values)
    if len(tensors) <= 8:
        return " ".join(map(described, tensors))
    kinds = Counter(str(each.dtype).removeprefix("torch.") for each in tensors)
    return " ".join(f"{count}x{dtype}" for dtype, count in sorted(kinds.items()))
