"""The methods that explain an image x (3, H, W) by its own pixels.

`gradient` gives the gradient of the class logit at any image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reference import relevance
from reference.maps import Doubles, bilinear

Gradient = Callable[[Doubles], Doubles]
deeplift = relevance.deeplift  # it reads a network as LRP does


def saliency(g: Doubles) -> Doubles:
    """max_c |g_c|."""
    colours, height, width = g.shape
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        m[i, j] = max(abs(float(g[c, i, j])) for c in range(colours))
    return m


def inputxgradient(x: Doubles, g: Doubles) -> Doubles:
    """|sum_c x_c g_c|."""
    colours, height, width = x.shape
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        m[i, j] = abs(sum(float(x[c, i, j]) * float(g[c, i, j]) for c in range(colours)))
    return m


def integratedgradients(x: Doubles, gradient: Gradient, steps: int = 50) -> Doubles:
    """|sum_c x_c int_0^1 g_c(t x) dt|, by Gauss-Legendre."""
    mean = np.zeros(x.shape)
    nodes, shares = np.polynomial.legendre.leggauss(steps)
    for node, share in zip(nodes, shares, strict=True):
        mean += share / 2 * gradient((node + 1) / 2 * x)
    return inputxgradient(x, mean)


def smoothgrad(gradient: Gradient, images: Sequence[Doubles]) -> Doubles:
    """max_c |1/N sum_i g_c(x_i)|, x_i the noisy images."""
    mean = np.zeros(images[0].shape)
    for image in images:
        mean += gradient(image) / len(images)
    return saliency(mean)


def guidedbackprop(
    x: Doubles, first: tuple[Doubles, Doubles], second: tuple[Doubles, Doubles], head: Doubles
) -> Doubles:
    """R^l = (f^l > 0) (R > 0) R at each ReLU of conv, ReLU, conv of stride 2, ReLU, mean, head.

    `first` and `second` are weights (O, I, 3, 3) and biases (O,), `head` is one class's weights.
    """
    low = _convolved(x, *first, stride=1)
    high = _convolved(np.maximum(low, 0), *second, stride=2)
    r = np.zeros(high.shape)
    for k, i, j in np.ndindex(*high.shape):
        r[k, i, j] = float(head[k]) / (high.shape[1] * high.shape[2])
    r = _returned(_guided(r, high), second[0], low.shape, stride=2)
    return _returned(_guided(r, low), first[0], x.shape, stride=1)


def guided_gradcam(guided: Doubles, m: Doubles) -> Doubles:
    """max_c |guided_c| times M, enlarged."""
    large = bilinear(m, (guided.shape[1], guided.shape[2]))
    return saliency(guided) * large


def _guided(r: Doubles, f: Doubles) -> Doubles:
    """(f > 0) (R > 0) R."""
    kept = np.zeros(r.shape)
    for k, i, j in np.ndindex(*r.shape):
        if f[k, i, j] > 0 and r[k, i, j] > 0:
            kept[k, i, j] = r[k, i, j]
    return kept


def _convolved(x: Doubles, weight: Doubles, bias: Doubles, stride: int) -> Doubles:
    """y_oij = b_o + sum_cuv w_ocuv x_c,si+u-1,sj+v-1."""
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    y = np.zeros((len(weight), -(-height // stride), -(-width // stride)))
    for o, i, j in np.ndindex(*y.shape):
        top, left = i * stride, j * stride
        y[o, i, j] = bias[o] + (weight[o] * padded[:, top : top + 3, left : left + 3]).sum()
    return y


def _returned(r: Doubles, weight: Doubles, shape: tuple[int, ...], stride: int) -> Doubles:
    """R_c,si+u-1,sj+v-1 = sum_oij w_ocuv R_oij: the convolution, transposed."""
    channels, height, width = shape
    padded = np.zeros((channels, height + 2, width + 2))
    for o, i, j in np.ndindex(*r.shape):
        top, left = i * stride, j * stride
        padded[:, top : top + 3, left : left + 3] += r[o, i, j] * weight[o]
    return padded[:, 1:-1, 1:-1]


def gradientshap(
    gradient: Gradient,
    copies: Sequence[Doubles],
    plain: Sequence[Doubles],
    shares: Sequence[float],
) -> Doubles:
    """sum_c 1/N sum_i (x_i - b_i) g(b_i + a_i (x_i - b_i)), signed."""
    m = np.zeros(copies[0].shape[1:])
    for x, b, a in zip(copies, plain, shares, strict=True):
        g = gradient(b + a * (x - b))
        for c, i, j in np.ndindex(*x.shape):
            m[i, j] += float(x[c, i, j] - b[c, i, j]) * float(g[c, i, j]) / len(copies)
    return m


def guidedig(
    x: Doubles, gradient: Gradient, steps: int, fraction: float, distance: float
) -> Doubles:
    """sum_c of the signed contributions along the path; the baseline is 0.

    Step t ends where the L1 distance to x is (1 - t / steps) of the whole. Values move to their
    limit, those with the smallest |g| first, `fraction` of all values at a time; the last ones
    move in part.
    """
    target, size = x.ravel(), x.size
    at, total = np.zeros(size), np.zeros(size)
    whole = np.abs(target).sum()
    for t in range(1, steps + 1):
        g = gradient(at.reshape(x.shape)).ravel()
        before = at.copy()
        low, high = max(t / steps - distance, 0) * target, min(t / steps + distance, 1) * target
        for n in range(size):
            if abs(at[n]) < abs(low[n]):
                at[n] = low[n]
        left = np.abs(target - at).sum() - whole * (1 - t / steps)
        while left > 1e-12 * whole:
            free = [n for n in range(size) if abs(high[n] - at[n]) > 1e-12 * abs(target[n])]
            slopes = sorted([abs(float(g[n])) for n in free] + [np.inf] * (size - len(free)))
            bound = slopes[int(fraction * (size - 1))]
            chosen = [n for n in free if abs(g[n]) <= bound]
            room = sum(abs(high[n] - at[n]) for n in chosen)
            part = min(left / room, 1.0)
            for n in chosen:
                at[n] = high[n] if part == 1 else at[n] + part * (high[n] - at[n])
            left -= part * room
        total += (at - before) * g
    summed: Doubles = total.reshape(x.shape).sum(axis=0)
    return summed


def blurig(x: Doubles, gradient: Gradient, steps: int, sigma: float) -> Doubles:
    """sum_c sum_t (x_t - x_{t+1}) g(x_t), x_t blurred by t / steps of sigma; signed."""
    total, at = np.zeros(x.shape), x
    for t in range(1, steps + 1):
        further = blurred(x, sigma * t / steps)
        total += (at - further) * gradient(at)
        at = further
    summed: Doubles = total.sum(axis=0)
    return summed


def blurred(x: Doubles, sigma: float) -> Doubles:
    """Along one axis after the other: sum_d exp(-d^2 / 2 sigma^2) x_{i+d}, zeros beyond x."""
    reach = int(4 * sigma + 0.5)
    weights = [np.exp(-(d**2) / (2 * sigma**2)) for d in range(-reach, reach + 1)]
    for axis in (1, 2):
        moved, size = np.zeros(x.shape), x.shape[axis]
        for d, weight in zip(range(-reach, reach + 1), weights, strict=True):
            for i in range(max(0, -d), min(size, size - d)):
                here, there = ((slice(None),) * axis + (n,) for n in (i, i + d))
                moved[here] += weight / sum(weights) * x[there]
        x = moved
    return x
