"""Random cases that a test of crates/metrics makes again, and what each of them scores, in eight bytes.

Of a case the sum of its scores is kept, each times the root of another prime. Scores are fractions, whose differences cannot
cancel then: roots of primes are independent over the fractions. So each score of each case is compared.
"""

import math
import struct
from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "crates/metrics/tests/golden"
WEIGHTS = [math.sqrt(prime) for prime in (2, 3, 5, 7, 11, 13, 17, 19)]


class SplitMix64:
    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) * bound) >> 64


def write(name, cases):
    """`cases` are the scores of each, at most eight."""
    sums = [sum(weight * float(score) for weight, score in zip(WEIGHTS, scores)) for scores in cases]
    assert all(math.isfinite(x) for x in sums)
    (GOLDEN / name).write_bytes(struct.pack(f"<{len(sums)}d", *sums))
