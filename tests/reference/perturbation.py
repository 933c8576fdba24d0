"""The methods that change the image or a layer and read the score again.

x is an image (3, H, W); `probability` gives the probability of the class for any image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from reference.maps import Doubles, bilinear, minmax, relu, weighted

Score = Callable[[Doubles], float]
ManyScores = Callable[[Doubles], Doubles]


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


def reciprocam(a: Doubles, probability: Score, gaussian: bool = False) -> Doubles:
    """m_ij = p(A seen at ij only); or at its neighbours too, with 1/4, 1/8 and 1/16."""
    _, height, width = a.shape
    kernel = {(0, 0): 1.0}
    if gaussian:
        kernel = {(r, s): 1 / 4 / 2 ** (abs(r) + abs(s)) for r in (-1, 0, 1) for s in (-1, 0, 1)}
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        seen = np.zeros(a.shape)
        for (r, s), weight in kernel.items():
            if 0 <= i + r < height and 0 <= j + s < width:
                seen[:, i + r, j + s] = weight * a[:, i + r, j + s]
        m[i, j] = probability(seen)
    return m


def opticam(a: Doubles, x: Doubles, slope: ManyScores, steps: int, rate: float) -> Doubles:
    """sum_k softmax(u)_k relu(A_k); Adam on u, with the chain rule written out."""
    kept = np.stack([relu(channel) for channel in a])
    large = [_enlarge(channel, x) for channel in kept]
    u, first, second = (np.zeros(len(a)) for _ in range(3))
    for step in range(1, steps + 1):
        shares = np.exp(u) / np.exp(u).sum()
        mixed = sum(share * channel for share, channel in zip(shares, large, strict=True))
        lowest = np.unravel_index(mixed.argmin(), mixed.shape)
        highest = np.unravel_index(mixed.argmax(), mixed.shape)
        span = mixed.max() - mixed.min()
        mask = (mixed - mixed.min()) / span
        by_mask = (slope(x * mask) * x).sum(axis=0)
        by_map = by_mask / span
        by_map[lowest] += (by_mask * (mask - 1)).sum() / span
        by_map[highest] -= (by_mask * mask).sum() / span
        by_share = np.array([(by_map * channel).sum() for channel in large])
        gradient = shares * (by_share - (shares * by_share).sum())
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
        u = u + rate * mean / (np.sqrt(square) + 1e-8)
    return weighted(kept, list(np.exp(u) / np.exp(u).sum()))


def groupcam(
    a: Doubles, g: Doubles, x: Doubles, probability: Score, groups: int, quantile: float
) -> Doubles:
    """relu(sum_l (p(x m_l + b (1 - m_l)) - p(b)) m_l), m_l the strong part of a group."""
    size = -(-len(a) // groups)
    blurred = np.stack([blur(blur(colour).T).T for colour in x])
    m = np.zeros(x.shape[1:])
    for start in range(0, len(a), size):
        weights = [float(own.mean()) for own in g[start : start + size]]
        group = weighted(a[start : start + size], weights)
        ranked = np.sort(group.ravel())
        place = quantile * (len(ranked) - 1)
        below, above = ranked[int(place)], ranked[min(int(place) + 1, len(ranked) - 1)]
        group[group <= below + (place % 1) * (above - below)] = 0
        if group.max() > group.min():
            mask = minmax(_enlarge(group, x))
            gained = probability(x * mask + blurred * (1 - mask)) - probability(blurred)
            m += gained * mask
    return relu(m)


def sidu(
    a: Doubles, x: Doubles, probabilities: ManyScores, target: int, cutoff: float, width: float
) -> Doubles:
    """sum_k exp(-(p_c - P_kc)^2 / (2 width^2)) U_k m_k; U_k = sum_j |P_k - P_j|, min-maxed."""
    masks = [np.where(channel > cutoff, 1.0, 0.0) for channel in a]
    answers = [probabilities(x * _enlarge(mask, x)) for mask in masks]
    unique = [sum(float(np.linalg.norm(p - q)) for q in answers) for p in answers]
    whole = probabilities(x)[target]
    m = np.zeros(a.shape[1:])
    for mask, own, far in zip(masks, answers, unique, strict=True):
        similar = float(np.exp(-((whole - own[target]) ** 2) / (2 * width**2)))
        m += similar * (far - min(unique)) / (max(unique) - min(unique)) * mask
    return m


def polycam(stages: Sequence[Doubles], x: Doubles, probability: Score, variant: str) -> Doubles:
    """m = S / up(down(S)) up(m) for each stage from the last on, S = relu(sum_k w_k A_k)."""
    m = np.zeros((0, 0))
    for a in reversed(stages):
        weights = [0.0] * len(a)
        for k, mask in _masks(a, x):
            kept, lost = probability(x * mask), probability(x) - probability(x * (1 - mask))
            weights[k] = {"plus": kept, "minus": max(lost, 0), "both": max(kept + lost, 0)}[variant]
        s = weighted(a, weights)
        if m.size:
            level = bilinear(bilinear(s, m.shape), s.shape)
            before = bilinear(m, s.shape)
            for i, j in np.ndindex(*s.shape):
                s[i, j] = s[i, j] / level[i, j] * before[i, j] if level[i, j] > 0 else 0
        m = s
    return m


def _enlarge(channel: Doubles, x: Doubles) -> Doubles:
    """Bilinear interpolation, as a matrix for the rows and one for the columns."""
    down = bilinear(np.eye(channel.shape[0]), (x.shape[1], channel.shape[0]))
    across = bilinear(np.eye(channel.shape[1]), (x.shape[2], channel.shape[1]))
    enlarged: Doubles = down @ channel @ across.T
    return enlarged


def blur(colour: Doubles) -> Doubles:
    """Each column with a Gaussian of standard deviation 50 over 51 pixels, mirrored at its ends."""
    mirrored = np.pad(colour, ((25, 25), (0, 0)), mode="reflect")
    weights = [float(np.exp(-(d**2) / (2 * 50.0**2))) for d in range(-25, 26)]
    blurred = np.zeros(colour.shape)
    for d, weight in enumerate(weights):
        blurred += weight / sum(weights) * mirrored[d : d + len(colour)]
    return blurred


def _masks(a: Doubles, x: Doubles) -> Iterator[tuple[int, Doubles]]:
    """U_k of every channel that has contrast."""
    for k, channel in enumerate(a):
        if channel.max() > channel.min():
            large = _enlarge(channel, x)
            yield k, (large - large.min()) / (large.max() - large.min())


def _starts(length: int, window: int, stride: int) -> list[int]:
    """0, stride, 2 stride, ... and the last window flush with the border."""
    starts = [start for start in range(0, length, stride) if start + window <= length]
    flush = max(length - window, 0)
    return starts if flush in starts else [*starts, flush]
