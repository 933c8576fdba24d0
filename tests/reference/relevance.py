"""The methods that share the score between a layer's inputs, for networks as lists of steps.

A step is ("affine", matrix, bias, shape of the output, kind "conv" or "linear"), ("activation", f),
("norm", scale, shift), ("maximum", places for each output, shape), ("mean",), and, with the steps
of a branch b: ("sum", b) for x + b(x), ("concat", b) for [x, b(x)], ("gate", b) for x * b(x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reference.maps import Doubles

Step = tuple[Any, ...]
TINY = 1e-6  # what keeps all rules but epsilon from dividing by 0


@dataclass(frozen=True)
class How:
    """The rules of the first convolution, of other convolutions, and of linear layers.

    `box` are the inputs of black and of white.
    """

    rules: tuple[str, str, str]
    gamma: float = 0.25
    epsilon: float = 1e-6
    box: tuple[Doubles, Doubles] | None = None


def lrp(steps: Sequence[Step], x: Doubles, target: int, how: How, start: int = 0) -> Doubles:
    """R of what goes into steps[start]; the logit has R = logit, other logits 0."""
    values = _values(steps, x)
    first = next(n for n, step in enumerate(steps) if step[0] == "affine")
    later = replace(how, rules=(how.rules[1], *how.rules[1:]))
    r = np.zeros(values[-1].shape)
    r[target] = values[-1][target]
    for n in range(len(steps) - 1, start - 1, -1):
        r = _shared(steps[n], values[n], r, how if n == first else later)
    return r


def conv_matrix(weight: Doubles, shape: tuple[int, ...], stride: int, padding: int) -> Doubles:
    """The matrix of y_oij = sum_cuv w_ocuv x_c,si+u-p,sj+v-p."""
    channels, height, width = shape
    out, _, rows, cols = weight.shape
    down, right = ((n + 2 * padding - k) // stride + 1 for n, k in ((height, rows), (width, cols)))
    matrix = np.zeros((out, down, right, channels, height, width))
    for o, i, j, c, u, v in np.ndindex(out, down, right, channels, rows, cols):
        y, x = stride * i + u - padding, stride * j + v - padding
        if 0 <= y < height and 0 <= x < width:
            matrix[o, i, j, c, y, x] += weight[o, c, u, v]
    return matrix.reshape(out * down * right, -1)


def deeplift(steps: Sequence[Step], x: Doubles, x0: Doubles, target: int) -> Doubles:
    """(x - x0) m, m = dy/dx by the rescale rule, for each input."""
    values, before = _values(steps, x), _values(steps, x0)
    m = np.zeros(values[-1].shape)
    m[target] = 1
    for n in range(len(steps) - 1, -1, -1):
        m = _multiplied(steps[n], values[n], before[n], m)
    return (x - x0) * m


def _values(steps: Sequence[Step], x: Doubles) -> list[Doubles]:
    """What goes into each step, and what comes out of the last."""
    values = [x]
    for step in steps:
        values.append(_out(step, values[-1]))
    return values


def _out(step: Step, x: Doubles) -> Doubles:
    kind, *own = step
    if kind == "affine":
        matrix, bias, shape, _ = own
        found: Doubles = (matrix @ x.ravel()).reshape(shape) + _wide(bias, len(shape))
    elif kind == "activation":
        found = own[0](x)
    elif kind == "norm":
        found = x * _wide(own[0], x.ndim) + _wide(own[1], x.ndim)
    elif kind == "maximum":
        found = np.array([x.ravel()[places].max() for places in own[0]]).reshape(own[1])
    elif kind == "mean":
        found = x.mean(axis=(1, 2))
    else:
        other = _values(own[0], x)[-1]
        found = np.concatenate([x, other]) if kind == "concat" else _joined(kind, x, other)
    return found


def _joined(kind: str, x: Doubles, other: Doubles) -> Doubles:
    return x + other if kind == "sum" else x * _wide(other, x.ndim)


def _wide(values: Doubles, ndim: int) -> Doubles:
    """One number a channel, for every position."""
    return values.reshape(len(values), *[1] * (ndim - 1)) if values.ndim < ndim else values


def _shared(step: Step, x: Doubles, r: Doubles, how: How) -> Doubles:
    """The relevance of a step's input, from that of its output."""
    kind, *own = step
    if kind in ("activation", "norm", "gate"):
        return r
    if kind == "maximum":
        return _sent(x, r, [places[int(np.argmax(x.ravel()[places]))] for places in own[0]])
    if kind == "mean":
        size = x.shape[1] * x.shape[2]
        return _flat(x / size * _wide(r / _apart(x.sum(axis=(1, 2)) / size, TINY), 3), x.shape)
    if kind == "affine":
        matrix, bias, shape, layer = own
        wide = np.broadcast_to(_wide(bias, len(shape)), shape)
        rule = how.rules[0] if layer == "conv" else how.rules[2]
        if rule == "box" and how.box is not None:
            shares = _box_shares(matrix, x, *how.box)
        else:
            shares = _shares(rule, matrix, wide.ravel(), x.ravel(), how)
        return _flat(r @ shares if r.ndim == 1 else r.ravel() @ shares, x.shape)
    values = _values(own[0], x)
    if kind == "sum":
        part = r / _apart(x + values[-1], TINY)
        kept, inner_r = x * part, values[-1] * part
    else:
        kept, inner_r = r[: len(x)], r[len(x) :]
    for inner, value in zip(own[0][::-1], values[-2::-1], strict=True):
        inner_r = _shared(inner, value, inner_r, how)
    return _flat(kept + inner_r, x.shape)


def _flat(values: Any, shape: tuple[int, ...]) -> Doubles:
    return np.asarray(values, dtype=np.float64).reshape(shape)


def _sent(x: Doubles, values: Doubles, places: Sequence[int]) -> Doubles:
    """Each value added at its place in x."""
    back = np.zeros(x.size)
    for place, value in zip(places, values.ravel(), strict=True):
        back[place] += float(value)
    return back.reshape(x.shape)


def _shares(
    rule: str,
    matrix: Doubles,
    bias: Doubles,
    x: Doubles,
    how: How,
) -> Doubles:
    """How much of each output's relevance each input gets: (outputs, inputs)."""
    gamma = how.gamma
    c = matrix * x  # what input i adds to output j
    up, down = np.maximum(c, 0), np.minimum(c, 0)
    high, low = np.maximum(bias, 0), np.minimum(bias, 0)
    if rule == "epsilon":
        return _over(c, c.sum(axis=1) + bias, how.epsilon)
    if rule == "zplus":
        return _over(up, up.sum(axis=1) + high)
    if rule == "alpha2-beta1":
        return 2 * _over(up, up.sum(axis=1) + high) - _over(down, down.sum(axis=1) + low)
    if rule == "gamma":
        z = c.sum(axis=1) + bias
        above = _over(c + gamma * up, (c + gamma * up).sum(axis=1) + bias + gamma * high)
        below = _over(c + gamma * down, (c + gamma * down).sum(axis=1) + bias + gamma * low)
        return _flat(above * (z > 0)[:, None] + below * (z < 0)[:, None], c.shape)
    linked = (matrix != 0).astype(np.float64)  # flat
    return _over(linked, linked.sum(axis=1))


def _box_shares(matrix: Doubles, x: Doubles, black: Doubles, white: Doubles) -> Doubles:
    """The same for the box rule: x w - low w+ - high w-."""
    low, high = (np.broadcast_to(end, x.shape).ravel() for end in (black, white))
    part = matrix * x.ravel() - low * np.maximum(matrix, 0) - high * np.minimum(matrix, 0)
    return _over(part, part.sum(axis=1))


def _over(parts: Doubles, whole: Doubles, epsilon: float = TINY) -> Doubles:
    quotient: Doubles = parts / _apart(whole, epsilon)[:, None]
    return quotient


def _apart(z: Doubles, epsilon: float) -> Doubles:
    """z + epsilon sign(z), with sign(0) = 1."""
    return z + np.where(z < 0, -epsilon, epsilon)


def _multiplied(step: Step, x: Doubles, x0: Doubles, m: Doubles) -> Doubles:
    """The multiplier of a step's input, from that of its output."""
    kind, *own = step
    difference = x - x0
    if kind == "affine":
        return _flat(m.ravel() @ own[0], x.shape)
    if kind == "activation":
        near = (own[0](x + 1e-6) - own[0](x - 1e-6)) / 2e-6  # the slope, where x is x0
        rise = own[0](x) - own[0](x0)
        slope = np.divide(rise, difference, out=near, where=np.abs(difference) > TINY)
        return _flat(m * slope, x.shape)
    if kind == "norm":
        return _flat(m * _wide(own[0], x.ndim), x.shape)
    if kind == "mean":
        return _flat(_wide(m, 3) / (x.shape[1] * x.shape[2]) * np.ones(x.shape), x.shape)
    if kind == "maximum":
        return _maximum(own[0], x, x0, m)
    return _branch(step, x, x0, m)


def _maximum(windows: Sequence[Any], x: Doubles, x0: Doubles, m: Doubles) -> Doubles:
    """What the maximum rose by is of its new place, and what it fell by of its old one."""
    new, old = x.ravel(), x0.ravel()
    tops = [(new[places].max(), old[places].max()) for places in windows]
    changed = [
        places[int(np.argmax(new[places] if top >= top0 else old[places]))]
        for places, (top, top0) in zip(windows, tops, strict=True)
    ]
    quotients = [
        (top - top0) / (new[place] - old[place]) if top != top0 else 0.0
        for place, (top, top0) in zip(changed, tops, strict=True)
    ]
    return _sent(x, m.ravel() * np.array(quotients), changed)


def _branch(step: Step, x: Doubles, x0: Doubles, m: Doubles) -> Doubles:
    """A sum and a concatenation are linear; of a product each factor gets half of each change."""
    kind, inner_steps = step
    values, before = _values(inner_steps, x), _values(inner_steps, x0)
    kept, inner_m = m[: len(x)], m[len(x) :]
    if kind == "sum":
        inner_m = m
    if kind == "gate":
        gate, gate0 = _wide(values[-1], x.ndim), _wide(before[-1], x.ndim)
        kept = m * (gate + gate0) / 2
        inner_m = _flat((m * (x + x0) / 2).sum(axis=(1, 2)), (len(x),))
    for inner, value, value0 in zip(inner_steps[::-1], values[-2::-1], before[-2::-1], strict=True):
        inner_m = _multiplied(inner, value, value0, inner_m)
    return _flat(kept + inner_m, x.shape)
