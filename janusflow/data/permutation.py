"""Order without state: permutations of any length and random numbers, as functions of a key."""

from __future__ import annotations

MASK = 2**64 - 1
ROUNDS = 4


def mix(*key: int) -> int:
    """64 random bits that depend on the key alone. SplitMix64's finaliser (Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = (state ^ (part & MASK)) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state


def permuted(index: int, count: int, *key: int) -> int:
    """Where a permutation of range(count), chosen by the key, sends `index`.

    A Feistel network on the next even number of bits, walked along its cycle until it is back in
    the range (Black and Rogaway 2002): no table, whatever the count.
    """
    half = max(1, (max(count - 1, 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = index >> half, index & low
        for turn in range(ROUNDS):
            left, right = right, left ^ (mix(*key, turn, right) & low)
        index = left << half | right
        if index < count:
            return index


def shuffled(position: int, count: int, *key: int) -> int:
    """The index at a position of an endless sequence of permutations of range(count): every index
    once in each of them."""
    epoch, place = divmod(position, count)
    return permuted(place, count, *key, epoch)
