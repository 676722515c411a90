"""Stateless shuffling: permutations of any length and random numbers as functions of a key."""

MASK = 2**64 - 1
ROUNDS = 4


def mix(*key: int) -> int:
    """Returns 64 pseudo-random bits of the key (SplitMix64's finaliser, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for part in key:
        state = (state ^ (part & MASK)) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state


def permuted(index: int, count: int, *key: int) -> int:
    """Returns the image of `index` under a permutation of range(count) that the key selects.

    It is a Feistel network on the next even number of bits, repeated until the result lies in the
    range (cycle walking; Black and Rogaway 2002), so no table is needed whatever the count.
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
    """Returns the index at a position in an endless sequence of permutations of range(count).

    Every index occurs once in each permutation.
    """
    epoch, place = divmod(position, count)
    return permuted(place, count, *key, epoch)
