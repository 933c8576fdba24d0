"""The methods that follow attention through a transformer, for one image and class.

A block's attention A and the class score's gradient dA are (heads, N, N), queries in rows;
the N tokens are the prefix, CLS first, and then the patches row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from reference.maps import Doubles


def attention_to_patches(
    matrix: Doubles, prefix: int, grid: tuple[int, int], cls: bool = True
) -> Doubles:
    """How much CLS attends to each patch, heads averaged; without a CLS token all queries."""
    heads, tokens, _ = matrix.shape
    queries = [0] if cls else list(range(tokens))
    m = np.zeros(grid)
    for i, j in np.ndindex(*grid):
        for h in range(heads):
            for q in queries:
                m[i, j] += float(matrix[h, q, prefix + i * grid[1] + j])
    for i, j in np.ndindex(*grid):
        m[i, j] /= heads * len(queries)
    return m


def tscam(matrices: Sequence[Doubles], f: Doubles, prefix: int = 1, cls: bool = True) -> Doubles:
    """The attention of all blocks, summed, times the semantic map as it is."""
    height, width = f.shape
    joint = np.zeros((height, width))
    for matrix in matrices:
        joint += attention_to_patches(matrix, prefix, (height, width), cls)
    coupled = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        coupled[i, j] = joint[i, j] * f[i, j]
    return coupled


def mctformer(
    matrices: Sequence[Doubles],
    f: Doubles | None,
    token: int,
    classes: int,
    grid: tuple[int, int],
    power: float = 1.0,
) -> Doubles:
    """(sum_l mean_h A_lh[token of the class] * relu(F))^power; without F the attention alone."""
    height, width = grid
    m = np.zeros(grid)
    for i, j in np.ndindex(height, width):
        for matrix in matrices:
            of_heads = [float(head[token, classes + i * width + j]) for head in matrix]
            m[i, j] += sum(of_heads) / len(of_heads)
        if f is not None:
            m[i, j] = (m[i, j] * max(float(f[i, j]), 0.0)) ** power
    return m


def attention(matrices: Sequence[Doubles], prefix: int, grid: tuple[int, int]) -> Doubles:
    """mean_h A_h[CLS] of the last block."""
    heads = matrices[-1]
    tokens = heads.shape[1]
    row = np.zeros(tokens)
    for head in heads:
        for key in range(tokens):
            row[key] += float(head[0, key]) / len(heads)
    return read(row, [0], prefix, grid)


def gradientattention(matrix: Doubles, gradient: Doubles) -> Doubles:
    """mean_h relu(A_h dA_h) of one block."""
    return _relevant(matrix, gradient)


def rollout(matrices: Sequence[Doubles]) -> Doubles:
    """R = A'_L ... A'_1, A' = (mean_h A_h + I) / 2 with rows of sum 1."""
    return _rolled([matrix.mean(axis=0) for matrix in matrices])


def gradrollout(matrices: Sequence[Doubles], gradients: Sequence[Doubles]) -> Doubles:
    """R = A'_L ... A'_1, A' = (mean_h relu(A_h dA_h) + I) / 2 with rows of sum 1."""
    return _rolled([_relevant(*pair) for pair in zip(matrices, gradients, strict=True)])


def chefer(matrices: Sequence[Doubles], gradients: Sequence[Doubles]) -> Doubles:
    """R = I; R <- R + mean_h relu(dA_h A_h) R, block by block."""
    total = np.eye(matrices[0].shape[1])
    for matrix, gradient in zip(matrices, gradients, strict=True):
        total = total + _relevant(matrix, gradient) @ total
    return total


def legrad(gradients: Sequence[Doubles]) -> Doubles:
    """E_j = sum_l 1/(h N) sum_h sum_i relu(ds_l / dA_l,hij)."""
    tokens = gradients[0].shape[1]
    row = np.zeros(tokens)
    for gradient in gradients:
        for head in gradient:
            for query in range(tokens):
                for key in range(tokens):
                    row[key] += max(float(head[query, key]), 0.0) / (len(gradient) * tokens)
    return row


def read(matrix: Doubles, queries: Sequence[int], prefix: int, grid: tuple[int, int]) -> Doubles:
    """m_ij = mean_q R[q, prefix + i W + j]; a single row is its own only query."""
    rows = [matrix] if matrix.ndim == 1 else [matrix[query] for query in queries]
    m = np.zeros(grid)
    for i, j in np.ndindex(*grid):
        m[i, j] = sum(float(row[prefix + i * grid[1] + j]) for row in rows) / len(rows)
    return m


def _rolled(joined: Sequence[Doubles]) -> Doubles:
    """A'_L ... A'_1, A' = (A + I) / 2 with rows of sum 1."""
    tokens = len(joined[0])
    total = np.eye(tokens)
    for matrix in joined:
        step = np.zeros((tokens, tokens))
        for i, j in np.ndindex(tokens, tokens):
            step[i, j] = (float(matrix[i, j]) + (i == j)) / 2
        for row in step:
            row /= sum(row)
        total = step @ total
    return total


def _relevant(matrix: Doubles, gradient: Doubles) -> Doubles:
    """mean_h relu(A_h dA_h)."""
    heads, tokens, _ = matrix.shape
    mean = np.zeros((tokens, tokens))
    for h, i, j in np.ndindex(*matrix.shape):
        mean[i, j] += max(float(matrix[h, i, j]) * float(gradient[h, i, j]), 0.0) / heads
    return mean


def lrp(vit: Any, image: Doubles, target: int, block: int) -> Doubles:
    """AttnLRP: M = sum_c R_c of the patch tokens that leave blocks[block], R = logit at the logit.

    `vit` is a timm VisionTransformer in double precision, pre-norm, with the head on CLS.
    """
    relevance = token_relevance(vit, image, target, block).sum(axis=1)
    return read(relevance, [0], vit.num_prefix_tokens, vit.patch_embed.grid_size)


def token_relevance(vit: Any, image: Doubles, target: int, block: int) -> Doubles:
    """R of every token and channel that leaves blocks[block], (N, C)."""
    with torch.no_grad():
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(torch.from_numpy(image)[None])))
    states = [tokens[0].numpy()]
    for layer in vit.blocks:
        states.append(_out(layer, states[-1]))
    r = np.zeros(states[-1].shape)
    r[0] = _out(vit.norm, states[-1])[0] * _numbers(vit.head.weight)[target]
    r = _norm(states[-1], vit.norm, r)
    for later in range(len(vit.blocks) - 1, block, -1):
        r = _block(vit.blocks[later], states[later], r)
    return r


def _block(block: Any, x: Doubles, r: Doubles) -> Doubles:
    """Back through y = z + mlp(norm(z)), z = x + attn(norm(x)): a sum shares R by its summands."""
    first = _out(block.norm1, x)
    attended = _out(block.attn, first)
    z = x + attended
    second = _out(block.norm2, z)
    added = _out(block.mlp, second)
    share = _over(r, z + added)
    r = z * share + _norm(z, block.norm2, _mlp(block.mlp, second, added * share))
    share = _over(r, z)
    return x * share + _norm(x, block.norm1, _attention(block.attn, first, attended * share))


def _mlp(mlp: Any, x: Doubles, r: Doubles) -> Doubles:
    """Back through fc2(gelu(fc1(x))): a GELU lets R pass."""
    active = _out(mlp.act, _out(mlp.fc1, x))
    return _linear(x, mlp.fc1, _linear(active, mlp.fc2, r))


def _attention(attn: Any, x: Doubles, r: Doubles) -> Doubles:
    """Back through proj(softmax(q k^T / sqrt(d)) v): a factor sqrt(d) lets R pass."""
    tokens, heads = len(x), attn.num_heads
    q, k, v = _out(attn.qkv, x).reshape(tokens, 3, heads, -1).transpose(1, 2, 0, 3)
    logits = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
    powers = np.exp(logits - logits.max(axis=2, keepdims=True))
    s = powers / powers.sum(axis=2, keepdims=True)
    joined = (s @ v).swapaxes(0, 1).reshape(tokens, -1)
    r = _linear(joined, attn.proj, r).reshape(tokens, heads, -1).swapaxes(0, 1)
    r_s, r_v = _product(s, v, r)
    r_q, r_k = _product(q, k.swapaxes(1, 2), _softmax(logits, s, r_s))
    r = np.stack([r_q, r_k.swapaxes(1, 2), r_v])
    return _linear(x, attn.qkv, r.transpose(2, 0, 1, 3).reshape(tokens, -1))


def _linear(x: Doubles, layer: Any, r: Doubles) -> Doubles:
    """R_i = sum_j x_i w_ji / z_j R_j, z_j = sum_i w_ji x_i + b_j: the bias keeps its share."""
    weight = _numbers(layer.weight)
    back: Doubles = _over(r, _out(layer, x)) @ weight
    return x * back


def _norm(x: Doubles, layer: Any, r: Doubles) -> Doubles:
    """The same with w_ji = gamma_j / std (delta_ij - 1/C): the deviation counts as a constant."""
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + layer.eps)
    back = _over(r, _out(layer, x)) * _numbers(layer.weight) / deviation
    handed: Doubles = x * (back - back.mean(axis=1, keepdims=True))
    return handed


def _product(a: Doubles, b: Doubles, r: Doubles) -> tuple[Doubles, Doubles]:
    """C = A B: a term A_ik B_kj has its share of R_ij, and each of the factors half of it."""
    half = _over(r, a @ b) / 2
    return a * (half @ b.swapaxes(1, 2)), b * (a.swapaxes(1, 2) @ half)


def _softmax(x: Doubles, s: Doubles, r: Doubles) -> Doubles:
    """R_i = x_i (R_i - s_i sum_j R_j)."""
    handed: Doubles = x * (r - s * r.sum(axis=2, keepdims=True))
    return handed


def _over(r: Doubles, z: Doubles) -> Doubles:
    """R / z, and nothing where z is nothing."""
    return np.divide(r, z, out=np.zeros(r.shape), where=z != 0)


def _out(module: Any, x: Doubles) -> Doubles:
    """The module's own output, of one image."""
    with torch.no_grad():
        return _numbers(module(torch.from_numpy(np.ascontiguousarray(x))[None])[0])


def _numbers(values: torch.Tensor) -> Doubles:
    return np.asarray(values.detach().numpy(), dtype=np.float64)
