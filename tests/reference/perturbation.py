"""The methods that change the image or a layer and read the score again.

x is an image (3, H, W); `probability` gives the probability of the class for any image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from reference.maps import Doubles, bilinear, relu, weighted

Score = Callable[[Doubles], float]


def scorecam(a: Doubles, x: Doubles, probability: Score) -> Doubles:
    """w_k = p(x U_k), U_k = A_k enlarged and min-maxed; relu(sum_k w_k A_k)."""
    weights = [0.0] * len(a)
    for k, mask in _masks(a, x):
        weights[k] = probability(x * mask)
    return weighted(a, weights)


def sscam(a: Doubles, x: Doubles, probability: Score, noises: Sequence[Doubles]) -> Doubles:
    """w_k = 1/N sum_i p(x (U_k + noise_i)); relu(sum_k w_k A_k)."""
    weights = [0.0] * len(a)
    for k, mask in _masks(a, x):
        for noise in noises:
            weights[k] += probability(x * (mask + noise)) / len(noises)
    return weighted(a, weights)


def iscam(a: Doubles, x: Doubles, probability: Score, steps: int = 10) -> Doubles:
    """w_k = 1/N sum_i p(c_i U_k x), c_i = sum_{j<=i} j / N; relu(sum_k w_k A_k)."""
    weights = [0.0] * len(a)
    for k, mask in _masks(a, x):
        coefficient = 0.0
        for i in range(1, steps + 1):
            coefficient += i / steps
            weights[k] += probability(coefficient * mask * x) / steps
    return weighted(a, weights)


def ablationcam(a: Doubles, score: Score) -> Doubles:
    """w_k = (s(A) - s(A without channel k)) / |s(A)|; relu(sum_k w_k A_k)."""
    whole = score(a)
    weights = []
    for k in range(len(a)):
        without = a.copy()
        without[k] = 0
        weights.append((whole - score(without)) / abs(whole))
    return weighted(a, weights)


def occlusion(x: Doubles, probability: Score, window: int, stride: int) -> Doubles:
    """relu(mean of p(x) - p(x with W zeroed) over the windows W that cover the pixel)."""
    _, height, width = x.shape
    drops, covered = np.zeros((height, width)), np.zeros((height, width))
    whole = probability(x)
    for top in _starts(height, window, stride):
        for left in _starts(width, window, stride):
            inside = np.s_[top : top + window, left : left + window]
            occluded = x.copy()
            for colour in occluded:
                colour[inside] = 0
            drops[inside] += whole - probability(occluded)
            covered[inside] += 1
    return relu(drops / np.maximum(covered, 1))


def rise(x: Doubles, probability: Score, masks: Sequence[Doubles], keep: float) -> Doubles:
    """1/(N keep) sum_i p(x m_i) m_i."""
    m = np.zeros(x.shape[1:])
    for mask in masks:
        m += probability(x * mask) * mask
    return m / (len(masks) * keep)


def _masks(a: Doubles, x: Doubles) -> Iterator[tuple[int, Doubles]]:
    """U_k of every channel that has contrast.

    Bilinear interpolation is a matrix for the rows and one for the columns: enlarged identities.
    """
    _, height, width = a.shape
    down = bilinear(np.eye(height), (x.shape[1], height))
    across = bilinear(np.eye(width), (x.shape[2], width))
    for k, channel in enumerate(a):
        if channel.max() > channel.min():
            large = down @ channel @ across.T
            yield k, (large - large.min()) / (large.max() - large.min())


def _starts(length: int, window: int, stride: int) -> list[int]:
    """0, stride, 2 stride, ... and the last window flush with the border."""
    starts = [start for start in range(0, length, stride) if start + window <= length]
    flush = max(length - window, 0)
    return starts if flush in starts else [*starts, flush]
