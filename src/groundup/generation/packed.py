"""A model as it writes: its own modules, with matrices of fewer bits.

Pieces of prompts are read by the models' own code. Of a copy of the module tree, linear layers and
embeddings are replaced by modules that do the same with packed weights. A single token of each text
is read by the C++ of step.cpp, for which `view_of` lists the same weights.
"""

import copy
import ctypes
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.generation.kernels import BlockView, Kernels, MatrixView, ModelView, NormView
from groundup.machine.device import choose_precision
from groundup.models.gpt2 import GPT2, MLP
from groundup.models.modern import Modern, RMSNorm, Rotary
from groundup.models.registry import Model

AnyModule = TypeVar("AnyModule", bound=nn.Module)
# up to so many tokens step.cpp is as fast as torch, as measured: without and with bfloat16 units
FEW, FEW_WITH_UNITS = 64, 16
TILE_DEPTH = 32  # `depth` of tiles.h: the C++ multiplies any number of tokens by whole tiles


class Matrix:
    """The weights of a linear layer or an embedding.

    Args:
        weight: [outputs, inputs], in float32 or bfloat16.
        dtype: float32, bfloat16 or int8. For int8 each row is divided by its largest magnitude over
            127 and rounded, and that factor is its scale.

    Attributes:
        weight: [outputs, inputs] in `dtype`.
        scale: [outputs] float32 for int8, else None.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        weight = weight.detach()
        self.scale: Tensor | None = None
        if dtype == torch.int8:
            largest = weight.float().abs().amax(dim=1)
            self.scale = torch.where(largest > 0, largest / 127, 1.0)
            weight = (weight.float() / self.scale[:, None]).round()
        self.weight = weight.to(dtype).contiguous()

    @classmethod
    def joined(cls, parts: "list[Matrix]") -> "Matrix":
        """Put matrices below one another, in one memory of which they become views."""
        whole = cls.__new__(cls)
        whole.weight = torch.cat([part.weight for part in parts])
        scales = [part.scale for part in parts if part.scale is not None]
        whole.scale = torch.cat(scales) if scales else None
        for part, rows in zip(
            parts, whole.weight.split([len(p.weight) for p in parts]), strict=True
        ):
            part.weight = rows
        return whole

    def view(self, bias: Tensor | None = None) -> MatrixView:
        """Return what step.cpp reads of it, and of a layer's bias."""
        tensors = self.weight, self.scale, bias
        view = MatrixView(*map(_pointer, tensors), *self.weight.shape, self.weight.element_size())
        view.tensors = tensors  # live as long as the view
        return view


class PackedLinear(nn.Module):
    """A linear layer with packed weights: [..., inputs] -> [..., outputs], all float32.

    Few tokens are multiplied by step.cpp, and many by torch: in bfloat16 where the processor has
    units for it and the weights aren't float32.

    Args:
        matrix: The weights.
        bias: [outputs] or None.
        kernels: The C++, or None to multiply by torch in float32 at all times.
    """

    def __init__(self, matrix: Matrix, bias: Tensor | None, kernels: Kernels | None) -> None:
        super().__init__()
        self.matrix, self.kernels = matrix, kernels
        self.bias = None if bias is None else bias.detach().float()
        self.dtype = piece_dtype(matrix.weight.dtype, kernels)
        self.few: float = FEW if self.dtype == torch.float32 else FEW_WITH_UNITS
        has_tiles = self.dtype == torch.bfloat16 and kernels is not None and kernels.has_tiles
        if has_tiles and matrix.weight.size(1) % TILE_DEPTH == 0:
            self.few = math.inf

    @property
    def weight(self) -> Tensor:
        """The matrix that the packed weights stand for: [outputs, inputs] float32, made anew."""
        weight, scale = self.matrix.weight.float(), self.matrix.scale
        return weight if scale is None else weight * scale[:, None]

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        matrix = self.matrix
        if self.kernels is not None and x.numel() <= self.few * x.size(-1):
            return self.kernels.linear(x, matrix.view(self.bias), gelu)
        product = F.linear(x.to(self.dtype), matrix.weight.to(self.dtype)).float()
        if matrix.scale is not None:
            product *= matrix.scale
        product = product if self.bias is None else product + self.bias
        return F.gelu(product, approximate="tanh") if gelu else product


class PackedMLP(nn.Module):
    """The MLP of gpt2.py, whose products and GELU are one call: [..., width] -> [..., width]."""

    def __init__(self, c_fc: PackedLinear, c_proj: PackedLinear) -> None:
        super().__init__()
        self.c_fc, self.c_proj = c_fc, c_proj

    def forward(self, hidden: Tensor) -> Tensor:
        return self.c_proj(self.c_fc(hidden, gelu=True))


class PackedEmbedding(nn.Module):
    """An embedding with packed weights: tokens [...] -> [..., width] float32."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.matrix, self.num_embeddings = matrix, matrix.weight.size(0)

    def forward(self, tokens: Tensor) -> Tensor:
        rows = self.matrix.weight[tokens].float()
        return rows if self.matrix.scale is None else rows * self.matrix.scale[tokens][..., None]


def piece_dtype(weights: torch.dtype, kernels: Kernels | None) -> torch.dtype:
    """Return the dtype of the products of many tokens, beside the sums, which are float32.

    It is bfloat16 where the processor has units for it and the weights aren't float32.

    Args:
        weights: The dtype of the weights.
        kernels: The C++, or None for torch alone.
    """
    packed = kernels is not None and weights != torch.float32
    fast = packed and choose_precision("auto", torch.device("cpu")) == "bfloat16"
    return torch.bfloat16 if fast else torch.float32


def packed(model: Model, dtype: torch.dtype, kernels: Kernels | None) -> Model:
    """Return a model that computes the same with packed weights, in eval mode.

    The model that is given stays as it is. Weights of float32 that stay float32 share its memory.

    Args:
        model: A model in float32 or bfloat16, without adapters.
        dtype: The dtype of its matrices: float32, bfloat16 or int8. All else is float32.
        kernels: The C++ that multiplies few tokens, or None for torch alone.
    """
    return _packed(model, dtype, kernels, {}).eval()


def _packed(
    module: AnyModule,
    dtype: torch.dtype,
    kernels: Kernels | None,
    matrices: dict[int, Matrix],
    name: str = "",
) -> AnyModule:
    """Pack a module and all within it. A matrix that several modules share is packed once."""
    if isinstance(module, nn.Linear | nn.Embedding) and name != "wpe":  # a small table
        key = id(module.weight)
        if key not in matrices:
            matrices[key] = Matrix(module.weight, dtype)
        if isinstance(module, nn.Linear):
            return PackedLinear(matrices[key], module.bias, kernels)  # pyright: ignore
        return PackedEmbedding(matrices[key])  # pyright: ignore
    children = {
        name: None if child is None else _packed(child, dtype, kernels, matrices, name)
        for name, child in module._modules.items()
    }
    if isinstance(module, MLP):
        return PackedMLP(children["c_fc"], children["c_proj"])  # pyright: ignore
    twin = copy.copy(module)
    twin._modules = children
    twin._parameters = {
        name: None if each is None else nn.Parameter(each.detach().float(), requires_grad=False)
        for name, each in module._parameters.items()
    }
    # the given model makes its own anew when it moves
    twin._buffers = {
        name: None if each is None else each.float().clone()
        for name, each in module._buffers.items()
    }
    if isinstance(twin, Rotary):
        twin.fill()  # a model in bfloat16 has rounded tables
    return twin


def weight_bytes(model: Model, of_a_step: bool = False) -> int:
    """Count the bytes of a model's weights, packed or not, those of a tied head once.

    Args:
        model: The model, which may be on the meta device.
        of_a_step: Count what a step reads whole: all but embeddings, of which it reads few rows.
    """
    found: dict[int, int] = {}
    for module in model.modules():
        if not (of_a_step and isinstance(module, nn.Embedding | PackedEmbedding)):
            found |= {id(tensor): tensor.nbytes for tensor in _tensors(module)}
    return sum(found.values())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield a module's own weights, not those of modules within it."""
    yield from module.parameters(recurse=False)
    if isinstance(module, PackedLinear | PackedEmbedding):
        bias = module.bias if isinstance(module, PackedLinear) else None
        for tensor in (module.matrix.weight, module.matrix.scale, bias):
            if tensor is not None:
                yield tensor


def view_of(model: GPT2 | Modern) -> ModelView:
    """Return what step.cpp reads of a packed model."""
    config = model.config
    if isinstance(model, GPT2):
        body: Any = model.transformer
        blocks = [_gpt2_block(block) for block in body.h]
        tokens, last, heads = body.wte, body.ln_f, (config.n_head, config.n_head)
        size, inner = config.n_embd // config.n_head, 4 * config.n_embd
        tables = body.wpe.weight, None, None
    else:
        config, body = model.config, model.model
        blocks = [_modern_block(block) for block in body.layers]
        tokens, last, heads = body.embed_tokens, body.norm, (config.n_head, config.n_kv_head)
        size, inner = config.head_dim, config.n_inner
        tables = None, body.rotary.cosine, body.rotary.sine
    array = (BlockView * len(blocks))(*blocks)
    view = ModelView(
        *(tokens.matrix.view(), *map(_pointer, tables), ctypes.cast(array, ctypes.c_void_p)),
        *(len(blocks), config.n_embd, inner, *heads, size, _norm(last)),
        _linear(model.lm_head),
    )
    view.read = model, array  # live as long as the view
    view.weight_bytes = weight_bytes(model, of_a_step=True)
    return view


def _gpt2_block(block: Any) -> BlockView:
    """The view of a packed block of gpt2.py."""
    attention, mlp, nothing = block.attn, block.mlp, NormView()
    return BlockView(
        *(_norm(block.ln_1), _linear(attention.c_attn), nothing, nothing),
        *(_linear(attention.c_proj), _norm(block.ln_2), MatrixView()),
        *(_linear(mlp.c_fc), _linear(mlp.c_proj)),
    )


def _modern_block(block: Any) -> BlockView:
    """The view of a packed block of modern.py, whose queries, keys and values become one matrix."""
    attention, mlp = block.self_attn, block.mlp
    parts = attention.q_proj, attention.k_proj, attention.v_proj
    qkv = attention.qkv = Matrix.joined([part.matrix for part in parts])
    return BlockView(
        *(_norm(block.input_layernorm), qkv.view()),
        *(_norm(attention.q_norm), _norm(attention.k_norm), _linear(attention.o_proj)),
        *(_norm(block.post_attention_layernorm), _linear(mlp.gate_proj)),
        *(_linear(mlp.up_proj), _linear(mlp.down_proj)),
    )


def _linear(layer: Any) -> MatrixView:
    return layer.matrix.view(layer.bias)


def _norm(norm: nn.LayerNorm | RMSNorm) -> NormView:
    bias = norm.bias if isinstance(norm, nn.LayerNorm) else None
    assert norm.eps is not None
    return NormView(norm.weight.data_ptr(), _pointer(bias), norm.weight.numel(), norm.eps)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
