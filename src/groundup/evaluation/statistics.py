"""Statistics of evaluations: intervals, and whether two models differ by more than chance."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The difference between two models in one figure, with its interval and a p-value.

    Args:
        value: The second model's figure minus the first's.
        low: The lower end of the 95% interval of the difference.
        high: The upper end of that interval.
        p_value: The probability of a difference at least as large if the models are equally good.
    """

    value: float
    low: float
    high: float
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """Return the difference as `groundup compare --json` states it."""
        interval = [self.low, self.high]
        return {"difference": self.value, "interval": interval, "p_value": self.p_value}


@dataclass(frozen=True)
class PairedItems:
    """Counts of items by which of two models got them right.

    Args:
        both: The number of items that both models got right.
        only_a: The number of items that only the first model got right.
        only_b: The number of items that only the second model got right.
        neither: The number of items that neither model got right.
    """

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, right_a: Sequence[bool], right_b: Sequence[bool]) -> "PairedItems":
        """Count items by which of two models got them right.

        Args:
            right_a: Whether the first model was right, for each item.
            right_b: Whether the second model was right, for each item.
        """
        pairs = list(zip(right_a, right_b, strict=True))
        kinds = ((True, True), (True, False), (False, True), (False, False))
        return cls(*map(pairs.count, kinds))

    @property
    def items(self) -> int:
        """The number of items."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """The accuracy of each model, as shares of 1."""
        return (self.both + self.only_a) / self.items, (self.both + self.only_b) / self.items

    @property
    def difference(self) -> Difference:
        """The second model's accuracy minus the first's, (only_b - only_a) / items.

        It has Bonett and Price's interval and the p-value of McNemar's exact test.
        """
        low, high = bonett_price(self.only_a, self.only_b, self.items)
        value = (self.only_b - self.only_a) / self.items
        return Difference(value, low, high, mcnemar(self.only_a, self.only_b))

    def to_json(self) -> dict[str, Any]:
        """Return the four numbers of items, both accuracies and their difference."""
        return asdict(self) | {"accuracy": list(self.accuracies)} | self.difference.to_json()


def wilson(right: int, items: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Compute the confidence interval of an accuracy, right / items (Wilson 1927).

    The interval holds every p with |right / items - p| <= z sqrt(p (1 - p) / items), where z is the
    quantile of the normal distribution for the confidence.

    Args:
        right: The number of items that a model got right.
        items: The number of all items.
        confidence: The share of such intervals that hold the true accuracy.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = right / items, z * z / items
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / items + weight / (4 * items)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Compute the p-value of McNemar's exact test (McNemar 1947), which is two-sided.

    Of the n = only_a + only_b items that a single model got right, equally good models have half
    each on average: p = min(1, 2 P(X <= min(only_a, only_b))), X ~ Binomial(n, 1/2). All is
    computed in integers until the one division at the end.

    Args:
        only_a: The number of items that only the first of two models got right.
        only_b: The number of items that only the second model got right.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    ways, tail = 1, 0  # C(n, k), and the sum of those up to k
    for k in range(fewer + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n)


def bonett_price(
    only_a: int, only_b: int, items: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Compute the confidence interval of two models' difference in accuracy on the same items.

    The difference is (only_b - only_a) / items. The interval (Bonett and Price 2012) is Wald's
    after one item is added to `only_a` and one to `only_b`: p_a = (only_a + 1) / (items + 2),
    p_b = (only_b + 1) / (items + 2), d = p_b - p_a, and the ends of the interval are
    d -+ z sqrt((p_a + p_b - d^2) / (items + 2)), where z is the quantile of the normal distribution
    for the confidence. So the interval has a width even where both models get the same items right.

    Args:
        only_a: The number of items that only the first model got right.
        only_b: The number of items that only the second model got right.
        items: The number of all items.
        confidence: The share of such intervals that hold the true difference.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share_a, share_b = (only_a + 1) / (items + 2), (only_b + 1) / (items + 2)
    middle = share_b - share_a
    half = z * math.sqrt((share_a + share_b - middle * middle) / (items + 2))
    return max(-1.0, middle - half), min(1.0, middle + half)


def paired_rate(
    differences: np.ndarray, sizes: np.ndarray, confidence: float = CONFIDENCE
) -> Difference:
    """Compute the rate sum(differences) / sum(sizes) over a text's passages, with its interval.

    The interval and a p-value follow from Student's distribution.

    The standard error is that of a ratio (Cochran 1977, section 6.3): with e = differences - rate *
    sizes and n passages, sqrt(n / (n - 1) sum(e^2)) / sum(sizes); over passages of one size it is
    the paired t-test's, with n - 1 degrees of freedom. Passages count as independent of each other.

    Args:
        differences: The second model's figure minus the first's on each passage, [passages], at
            least 2.
        sizes: The size of each passage, [passages].
        confidence: The share of such intervals that hold the true rate.
    """
    n, total = len(sizes), float(sizes.sum())
    rate = float(differences.sum()) / total
    errors = differences - rate * sizes
    error = math.sqrt(n / (n - 1) * float(errors @ errors)) / total
    if error == 0.0:
        return Difference(rate, rate, rate, 1.0 if rate == 0.0 else 0.0)
    half = student_quantile(confidence, n - 1) * error
    return Difference(rate, rate - half, rate + half, student_tails(rate / error, n - 1))


def student_tails(t: float, degrees: int) -> float:
    """Compute P(|T| >= |t|) for T of Student's distribution with `degrees` degrees of freedom.

    The probability is I_x(degrees / 2, 1 / 2) at x = degrees / (degrees + t^2), where I is the
    regularized incomplete beta function.
    """
    square = t * t
    below, above = degrees / (degrees + square), square / (degrees + square)
    # x is large, where the fraction for 1 - x is the one that converges
    if square * (degrees + 2) < 3 * degrees:
        return 1.0 - _beta_share(0.5, degrees / 2, above, below)
    return _beta_share(degrees / 2, 0.5, below, above)


@cache
def student_quantile(confidence: float, degrees: int) -> float:
    """Find by bisection the t with P(|T| <= t) = confidence, for T of Student's distribution."""
    low, high = 0.0, 1.0
    while student_tails(high, degrees) > 1 - confidence:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        too_low = student_tails(middle, degrees) > 1 - confidence
        low, high = (middle, high) if too_low else (low, middle)
    return high


def _beta_share(a: float, b: float, x: float, rest: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22).

    `rest` is 1 - x. Lentz's method evaluates the fraction from the front, for x below
    (a + 1) / (a + b + 2), where it converges fast.
    """
    if x == 0.0:
        return 0.0
    logarithm = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    tiny = 1e-300
    numerator, denominator = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0) or tiny)
    value = denominator
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            numerator = 1.0 + step / numerator or tiny
            denominator = 1.0 / (1.0 + step * denominator or tiny)
            value *= numerator * denominator
        if abs(numerator * denominator - 1.0) < 1e-15:
            break
    return math.exp(logarithm) * value / a


def p_text(p_value: float, equals: str = "") -> str:
    """Write the sign `equals` and a p-value of two digits; below 1e-12 only that bound."""
    return "< 1e-12" if p_value < 1e-12 else f"{equals}{p_value:.2g}"
