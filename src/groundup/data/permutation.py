"""Seeded random numbers and permutations, each a pure function, computed where it is needed."""

import numpy as np

PERIOD = 2**16  # examples after which the order of a mixture's corpora repeats


def random_key(*parts: int | np.ndarray) -> np.ndarray:
    """Give a pseudo-random number that depends on nothing but the given numbers.

    Args:
        parts: The numbers, each an int of at least 0 or [n] uint64.

    Returns:
        [1] or [n] uint64.
    """
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mix(key ^ (part if isinstance(part, np.ndarray) else np.uint64(part)))
    return key


def permute(indices: np.ndarray, size: int, key: np.ndarray, rounds: int = 6) -> np.ndarray:
    """Evaluate a seeded permutation of range(size) at some indices, in constant memory.

    The permutation is a Feistel network on the smallest even number of bits that holds range(size).
    A result outside of range(size) is permuted again until it falls inside (Black & Rogaway 2002,
    sections 4 and 5).

    Args:
        indices: [n] in [0, size).
        size: How many numbers are permuted.
        key: [1] or [n] uint64; each key gives another permutation.
        rounds: The number of rounds of the network.

    Returns:
        [n] int64.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    round_keys = [mix(key ^ np.uint64(number)) for number in range(rounds)]
    result = indices.astype(np.uint64)
    outside = np.arange(len(result))
    while outside.size:
        left, right = result[outside] >> shift, result[outside] & mask
        for round_key in round_keys:
            here = round_key if len(key) == 1 else round_key[outside]
            left, right = right, left ^ (mix(right ^ here) & mask)
        result[outside] = (left << shift) | right
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def mix(value: np.ndarray) -> np.ndarray:
    """Mix [n] uint64 by splitmix64's finaliser (Steele et al. 2014).

    Every bit of the input changes about half of the bits of the output.
    """
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
