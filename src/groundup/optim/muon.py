"""Muon, batched: momentum made orthogonal, with one product for all matrices of one shape."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# each step's are the best for what the one before leaves of [SMALLEST, 1], with 1% to spare
COEFFICIENTS = (
    (8.3007, -24.0375, 17.4661),
    (4.0059, -2.9253, 0.5424),
    (3.4840, -2.5614, 0.5024),
    (2.5153, -1.8615, 0.4425),
)
SMALLEST = 0.003  # of the norm: a singular value below ends below the band
BAND = (0.79, 1.21)  # where the others end
ALONE_FROM = 512  # the height from which a CPU multiplies matrices faster one by one


@dataclass(frozen=True)
class Rows:
    """Some rows of a parameter: a matrix, or a part of one.

    Attributes:
        parameter: The parameter, [height, width].
        first: The first row.
        last: The row after the last one.
    """

    parameter: nn.Parameter
    first: int
    last: int

    def of(self, tensor: Tensor) -> Tensor:
        """Return the rows `first:last` of a tensor that has the shape of `parameter`."""
        return tensor[self.first : self.last]


Matrix = list[Rows]  # from top to bottom


def split_rows(parameter: nn.Parameter, parts: int) -> list[Matrix]:
    """Cut a parameter into `parts` matrices of equal height, from top to bottom."""
    height = parameter.size(0) // parts
    return [[Rows(parameter, part * height, (part + 1) * height)] for part in range(parts)]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, "Muon: an optimizer for hidden layers ...").

        m <- beta m + (1 - beta) g;  M = orthogonal(beta m + (1 - beta) g)
        W <- (1 - lr decay) W - lr sqrt(max(1, height / width)) M

    A step is that of `torch.optim.Muon`, but `orthogonalise` has coefficients of its own. Matrices
    of one shape, tall ones transposed, are multiplied together in one batch, except large ones on a
    CPU. A matrix is a whole parameter, some rows of a parameter, or rows of several parameters.
    """

    def __init__(
        self,
        matrices: list[Matrix],
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        precision: torch.dtype,
    ) -> None:
        """Take the matrices, and the settings that hold for all of them.

        Args:
            matrices: The matrices, whose rows are rows of parameters.
            learning_rate: About the spectral norm of a matrix's update, which for a tall matrix is
                sqrt(height / width) times as large.
            momentum: The weight of the past in the running mean of gradients.
            weight_decay: A step shrinks each weight by this share times the learning rate.
            precision: The dtype of the matrix products.
        """
        parameters = {id(rows.parameter): rows.parameter for matrix in matrices for rows in matrix}
        rates = {"lr": learning_rate, "initial_lr": learning_rate}
        settings = {**rates, "momentum": momentum, "decay": weight_decay}
        super().__init__(list(parameters.values()), settings)
        self.precision = precision
        self.by_shape: dict[tuple[int, int], list[Matrix]] = {}
        for matrix in matrices:
            self.by_shape.setdefault(_shape(matrix), []).append(matrix)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix from its gradient."""
        assert closure is None, "Muon takes no closure"
        (group,) = self.param_groups
        updates = {
            parameter: self._with_momentum(parameter, group["momentum"])
            for parameter in group["params"]
        }
        for (height, _), matrices in self.by_shape.items():
            alone = height >= ALONE_FROM and matrices[0][0].parameter.device.type == "cpu"
            for batch in [[matrix] for matrix in matrices] if alone else [matrices]:
                flat = [
                    _flat([rows.of(updates[rows.parameter]) for rows in matrix]) for matrix in batch
                ]
                low = [matrix.to(self.precision) for matrix in flat]
                orthogonal = orthogonalise(low[0][None] if alone else torch.stack(low))
                for matrix, update in zip(batch, orthogonal, strict=True):
                    _apply(matrix, update, group["lr"], group["decay"])

    def _with_momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient and its running mean, mixed as Nesterov's look ahead."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].lerp_(parameter.grad, 1.0 - momentum)
        return parameter.grad.lerp(state["momentum_buffer"], momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring every singular value of each matrix near 1, and keep the singular vectors.

        M <- M / length(M);  M <- a1 M + a3 (M M') M + a5 (M M')^2 M

    The result is roughly the nearest orthogonal matrix. It is found by four steps of a
    Newton-Schulz iteration, each with coefficients of its own (Amsel et al. 2025, "The Polar
    Express"), which bring the values nearer to 1 than five steps with the same coefficients.

    Args:
        matrices: [n, height, width], height <= width.

    Returns:
        The same shape.
    """
    if len(matrices) == 1:
        return _newton_schulz(matrices[0], torch.addmm)[None]
    return _newton_schulz(matrices, torch.baddbmm)


def _newton_schulz(matrices: Tensor, add_product: Callable[..., Tensor]) -> Tensor:
    """The iteration itself; `add_product` is (a, b, c, beta, alpha) -> beta a + alpha b @ c."""
    # no singular value above 1
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for linear, cubic, quintic in COEFFICIENTS:
        square = x @ x.mT
        x = add_product(
            x, add_product(square, square, square, beta=cubic, alpha=quintic), x, beta=linear
        )
    return x


def _shape(matrix: Matrix) -> tuple[int, int]:
    """The shorter side and the longer side."""
    height, width = sum(rows.last - rows.first for rows in matrix), matrix[0].parameter.size(1)
    return min(height, width), max(height, width)


def _flat(parts: list[Tensor]) -> Tensor:
    """The matrix of these rows, turned to be no taller than wide."""
    matrix = torch.cat(parts) if len(parts) > 1 else parts[0]
    return matrix if matrix.size(0) <= matrix.size(1) else matrix.mT


def _apply(matrix: Matrix, update: Tensor, learning_rate: float, weight_decay: float) -> None:
    """Decay the matrix, and move it by its orthogonal update, [shorter side, longer side]."""
    heights, width = [rows.last - rows.first for rows in matrix], matrix[0].parameter.size(1)
    height = sum(heights)
    update = update if height <= width else update.mT
    length = learning_rate * math.sqrt(max(1.0, height / width))
    for rows, part in zip(matrix, update.split(heights), strict=True):
        target = rows.of(rows.parameter)
        if weight_decay:
            target.mul_(1.0 - learning_rate * weight_decay)
        target.add_(part, alpha=-length)
