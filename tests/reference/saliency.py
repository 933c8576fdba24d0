"""The methods that explain an image x (3, H, W) by its own pixels.

`gradient` gives the gradient of the class logit at any image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reference.maps import Doubles, bilinear

Gradient = Callable[[Doubles], Doubles]


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
