"""Wrong labels put into a data set: how they are chosen, and what they become.

uniform:    points drawn from all of them; the label becomes any other class.
one-sided:  points of the classes 1, 3, 5, ... only, as many as half the portion of all points; the label becomes the
            class before. Of two classes of the same size the portion of class 1 is wrong, and none of class 0.
boundary:   points drawn from the 2 x portion of all points that a model of the true labels knows least, by the
            probability of their true class; the label becomes the other class that this model finds most probable.
"""

from typing import NamedTuple

import numpy as np

from config import UserError


class Noise(NamedTuple):
    """kind: uniform, one-sided or boundary. portion: of wrong labels (one-sided: among the classes that have any)."""

    kind: str
    portion: float

    @property
    def name(self):
        return f"{self.kind} {self.portion:.0%}"


NOISES = (*(Noise("uniform", p) for p in (0.05, 0.1, 0.2, 0.3, 0.4)), Noise("one-sided", 0.3), Noise("boundary", 0.2))


def with_noise(y, C, noise, seed, probabilities=None):
    """The labels y (n,), 0 ... C-1, with wrong ones among them, and the sorted indices of these, (k,).

    probabilities (n,C): by a model of the true labels; boundary noise needs them.
    """
    generator, n = np.random.default_rng(seed), len(y)
    other = (y + generator.integers(1, C, n)) % C
    number, candidates = int(n * noise.portion), np.arange(n)
    if noise.kind == "one-sided":
        number, candidates, other = number // 2, np.flatnonzero(y % 2 == 1), y - 1
    elif noise.kind == "boundary":
        known = probabilities[np.arange(n), y]
        rest = probabilities.copy()
        rest[np.arange(n), y] = -1
        candidates, other = np.argsort(known, kind="stable")[: 2 * number], rest.argmax(1)
    elif noise.kind != "uniform":
        raise UserError(f"noise is {noise.kind!r}: give uniform, one-sided or boundary")
    if not 0 < number <= len(candidates):
        raise UserError(
            f"{noise.name} of {n} labels are {number}, of {len(candidates)} candidates: give another portion"
        )
    wrong = np.sort(generator.choice(candidates, number, replace=False))
    noisy = y.copy()
    noisy[wrong] = other[wrong]
    return noisy, wrong
