"""Random numbers by draw, a whole batch at a time: each depends on seed and draw alone, not on its neighbours.

splitmix64: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
doi:10.1145/2660193.2660195. Setting up one of numpy's generators for each draw takes longer than an image on a GPU.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

_BITS = 24  # that float32 holds of a number below 1
PARTS = 2**_BITS

_GAMMA = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))

Words = npt.NDArray[np.uint64]


def random_integers(draws: Sequence[int], *, seed: int, count: int) -> npt.NDArray[np.int32]:
    """Uniform random numbers for some draws, as integers, which half precision does not round.

    Args:
        draws: Of the batch's items, each 0 to 2**64 - 1.
        seed: 0 or more, less than 2**64.
        count: Numbers a draw.

    Returns:
        (B, count), 0 to PARTS - 1: a fraction once divided by PARTS.
    """
    starts = _mixed(np.array(draws, np.uint64) ^ splitmix64(np.array([seed], np.uint64), 1)[:, 0])  # (B,)
    return (splitmix64(starts, count) >> np.uint64(64 - _BITS)).astype(np.int32)


def splitmix64(states: Words, count: int) -> Words:
    """The first numbers of the generator from some states: (B,) -> (B, count)."""
    steps = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):  # modulo 2**64, as the paper has it
        return _mixed(states[:, None] + steps * _GAMMA)


def _mixed(words: Words) -> Words:
    with np.errstate(over="ignore"):
        words = (words ^ (words >> _SHIFTS[0])) * _FACTORS[0]
        words = (words ^ (words >> _SHIFTS[1])) * _FACTORS[1]
    return cast(Words, words ^ (words >> _SHIFTS[2]))
