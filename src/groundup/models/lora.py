"""LoRA: a model's matrices are frozen, and beside each a product of two thin matrices learns.

The models' own code doesn't know LoRA: the linear layers of a model's blocks are replaced once the
model is built.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.models.registry import Model

Adapter = dict[str, Tensor]  # `transformer.h.0.attn.c_attn.lora_A.weight` and so on


class LoRALinear(nn.Module):
    """A linear layer that is frozen, to whose matrix a product of two thin ones is added.

        y = W x + b + alpha / rank W_B W_A x

    The source is Hu et al. (2021, section 4.1). W_A [rank, in] is uniform in +-1/sqrt(in), as in
    the authors' code, and W_B [out, rank] is zero, so at first nothing is added. The layer maps
    [..., in] to [..., out].
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.alpha, self.scale = alpha, alpha / rank
        # drawn on the CPU, for whatever device
        self.lora_A = nn.Linear(linear.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)
        self.to(linear.weight.device, linear.weight.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        frozen = F.linear(hidden, self.weight, self.bias)
        return frozen + self.scale * self.lora_B(self.lora_A(hidden))


def adaptable_layers(model: Model) -> dict[str, nn.Linear]:
    """Return by name the linear layers that get LoRA adapters.

    They are all layers of attention and of the MLP in all blocks. Adapters on attention's layers
    alone fell short of full fine-tuning (Dettmers et al. 2023, section 4). The head gets none.
    """
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not model.head and "lora_" not in name
    }


def adapt(model: Model, rank: int, alpha: float) -> None:
    """Freeze a model and put LoRA adapters on its blocks; then only the adapters train.

    Args:
        model: The model, changed in place. The adapters' first weights are drawn by torch's seed.
        rank: The rank of the adapters.
        alpha: The adapters are scaled by alpha / rank.
    """
    model.requires_grad_(False)
    for name, linear in adaptable_layers(model).items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, LoRALinear(linear, rank, alpha))


def adapter_of(model: Model) -> Adapter:
    """Return a model's LoRA weights by name, without copies; an empty dict if there are none."""
    return {name: weight for name, weight in model.state_dict().items() if ".lora_" in name}


@torch.no_grad()
def merge(model: Model, adapter: Adapter, scale_of: Callable[[str], float]) -> None:
    """Add the product of each LoRA adapter's matrices to its matrix (Hu et al. 2021, 4.1).

        W <- W + alpha / rank W_B W_A

    Args:
        model: The model without adapters, changed in place.
        adapter: The weights of the adapters by name.
        scale_of: Takes the name of a layer and gives the scale of its adapter, alpha / rank.
            Products are taken in float32 at least.
    """
    for name in sorted({name.rpartition(".lora_")[0] for name in adapter}):
        weight = model.get_parameter(f"{name}.weight")
        first, second = adapter[f"{name}.lora_A.weight"], adapter[f"{name}.lora_B.weight"]
        dtype = torch.promote_types(torch.promote_types(weight.dtype, first.dtype), torch.float32)
        weight.copy_(weight.to(dtype) + scale_of(name) * (second.to(dtype) @ first.to(dtype)))
