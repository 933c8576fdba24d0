"""The methods that explain an image x (C, H, W) by its segments.

`score` gives the class's score of any image, labels (H, W) the segment of each pixel, and `fill`
what a segment shows when it is off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import exp, factorial, sqrt

import numpy as np
from numpy.typing import NDArray

from reference.maps import Doubles, relu

Score = Callable[[Doubles], float]
Labels = NDArray[np.int64]
State = Sequence[int]  # 1 for each segment that is on


def altered(x: Doubles, labels: Labels, state: State, fill: Doubles) -> Doubles:
    """x where the segment is on, else the fill."""
    image = x.copy()
    for s, on in enumerate(state):
        if not on:
            image[:, labels == s] = fill[:, labels == s]
    return image


def own_means(x: Doubles, labels: Labels) -> Doubles:
    """Each segment's mean colour."""
    fill = np.zeros(x.shape)
    for s in range(int(labels.max()) + 1):
        for c in range(len(x)):
            fill[c][labels == s] = np.mean([x[c, i, j] for i, j in np.argwhere(labels == s)])
    return fill


def spread(values: Sequence[float], labels: Labels) -> Doubles:
    """The value of each pixel's segment."""
    m = np.zeros(labels.shape)
    for i, j in np.ndindex(*labels.shape):
        m[i, j] = values[int(labels[i, j])]
    return m


def lime(
    x: Doubles,
    score: Score,
    labels: Labels,
    states: Sequence[State],
    fill: Doubles,
    width: float = 0.25,
    ridge: float = 1.0,
) -> Doubles:
    """relu(w) of min sum_z pi(z) (p(z) - w_0 - w z)^2 + ridge |w|^2.

    pi(z) = exp(-d^2 / (2 width^2)).
    """
    rows, answers = [], []
    for state in states:
        root = sqrt(exp(-(cosine_distance(state) ** 2) / (2 * width**2)))
        rows.append([root, *(root * on for on in state)])
        answers.append(root * score(altered(x, labels, state, fill)))
    for s in range(len(states[0])):  # the penalty as further equations, none for the intercept
        rows.append([sqrt(ridge) if n == s + 1 else 0.0 for n in range(len(states[0]) + 1)])
        answers.append(0.0)
    coefficients = np.linalg.lstsq(np.array(rows), np.array(answers), rcond=None)[0]
    return relu(spread(coefficients[1:].tolist(), labels))


def cosine_distance(state: State) -> float:
    """1 - z 1 / (|z| |1|); 1 if all is off."""
    dot = sum(1.0 * on for on in state)
    lengths = sqrt(sum(on**2 for on in state)) * sqrt(len(state))
    return 1 - dot / lengths if dot else 1.0


def kernelshap(x: Doubles, score: Score, labels: Labels, fill: Doubles) -> Doubles:
    """relu of the Shapley values."""
    return relu(spread(shapley_values(x, score, labels, fill), labels))


def shapley_values(x: Doubles, score: Score, labels: Labels, fill: Doubles) -> list[float]:
    """sum_T |T|! (S - |T| - 1)! / S! (p(T + s) - p(T))."""
    count = int(labels.max()) + 1

    def value(members: frozenset[int]) -> float:
        return score(altered(x, labels, [int(s in members) for s in range(count)], fill))

    every = [frozenset(t) for size in range(count + 1) for t in combinations(range(count), size)]
    values = {members: value(members) for members in every}
    shapley = [0.0] * count
    for s in range(count):
        for t in (t for t in every if s not in t):
            share = factorial(len(t)) * factorial(count - len(t) - 1) / factorial(count)
            shapley[s] += share * (values[t | {s}] - values[t])
    return shapley


def constrained_fit(states: Doubles, weights: Doubles, scores: Doubles) -> Doubles:
    """min sum_z k(z) (p(z) - p(0) - w z)^2 where sum w = p(1) - p(0), with a multiplier.

    The first two states are all off and all on.
    """
    empty, whole = scores[0], scores[1]
    count = states.shape[1]
    system, right = np.zeros((count + 1, count + 1)), np.zeros(count + 1)
    for z, k, p in zip(states[2:], weights[2:], scores[2:], strict=True):
        system[:count, :count] += k * np.outer(z, z)
        right[:count] += k * (p - empty) * z
    system[:count, count] = system[count, :count] = 1
    right[count] = whole - empty
    solution: Doubles = np.linalg.solve(system, right)[:count]
    return solution


def xrai(
    x: Doubles,
    slope: Callable[[Doubles], Doubles],
    baselines: Sequence[Doubles],
    masks: Sequence[NDArray[np.bool_]],
    steps: int,
    least: int = 50,
) -> Doubles:
    """The density of A in each region, the densest first; A = max_c mean_b IG_b."""
    mean = np.zeros(x.shape)
    nodes, shares = np.polynomial.legendre.leggauss(steps)
    for start in baselines:
        for node, share in zip(nodes, shares, strict=True):
            at = start + (node + 1) / 2 * (x - start)
            mean += share / 2 * (x - start) * slope(at) / len(baselines)
    return rank(mean.max(axis=0), masks, least)


def rank(a: Doubles, masks: Sequence[NDArray[np.bool_]], least: int) -> Doubles:
    """While a mask adds enough pixels: add the mask whose new pixels have the largest mean."""
    m, covered, left = np.zeros(a.shape), np.zeros(a.shape, np.bool_), list(masks)
    while True:
        left = [mask for mask in left if (mask & ~covered).sum() >= least]
        if not left:
            break
        best = max(left, key=lambda mask: float(a[mask & ~covered].mean()))
        m[best & ~covered] = a[best & ~covered].mean()
        covered |= best
    if not covered.all():
        m[~covered] = a[~covered].mean()
    return m


def dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """All pixels at most so far from the mask."""
    wide = np.zeros(mask.shape, np.bool_)
    for i, j in np.argwhere(mask):
        for di in range(-radius, radius + 1):
            for dj in range(-radius, radius + 1):
                inside = 0 <= i + di < mask.shape[0] and 0 <= j + dj < mask.shape[1]
                if inside and di**2 + dj**2 <= radius**2:
                    wide[i + di, j + dj] = True
    return wide
