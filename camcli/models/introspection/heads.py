"""How a classifier's logits come from a map, so that the map can be read class by class.

Knows nothing of methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.models.introspection.hooks import module, record, slopes
from camcli.models.introspection.layers import AFFINE, probe, proper, spatial


class ConvHead(nn.Module):
    """TS-CAM's head: a 3x3 convolution over the patch tokens, then the mean over positions.

    (B, prefix + H*W, C) tokens -> (B, K) logits. The map before the mean is the output of `conv`.
    Source: https://arxiv.org/abs/2103.14862
    """

    def __init__(self, channels: int, classes: int, grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.conv = nn.Conv2d(channels, classes, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, K) of tokens (B, N, C)."""
        patches = tokens[:, self.prefix :].transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        logits: Tensor = self.conv(patches).mean(dim=(2, 3))
        return logits


class PooledHead(nn.Linear):
    """CAM's head: the mean over positions, then one linear layer. (B,C,H,W) -> (B,K).

    Source: https://arxiv.org/abs/1512.04150
    """

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, K) of maps (B, C, H, W)."""
        return super().forward(features.mean(dim=(2, 3)))


@dataclass(frozen=True, slots=True)
class Head:
    """The map that the logits are pooled from, and what turns it into one map a class.

    kind "conv": `layer` already yields a map a class (B, K, H, W), its bias included. kind
    "linear": `layer` yields features (B, C, H, W), pooled and weighted by `weight` (K, C), with
    `norm` after the pool where there is one. `exact` says whether the logits are the
    mean of the class maps: not so where a CLS token, and not the patches, is classified.
    """

    kind: Literal["conv", "linear"]
    layer: Layer
    bias: Tensor
    weight: Tensor | None = None
    norm: nn.Module | None = None
    exact: bool = True


def find(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int], classes: int
) -> Head | None:
    """The head of a network, or None when its logits are not linear in any map.

    Measured, not assumed: a map belongs to the head when pooling it and applying the classifier
    gives the logits of a probe image, or when it is one a class and its mean goes into the logit.
    """
    return _conv(network, [la for la in layers if la.channels == classes], size) or _linear(
        network, layers, size, classes
    )


def _conv(network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]) -> Head | None:
    """Maps (B,K,H,W) of which the logits are the means, and perhaps something else besides.

    Then the gradient of sum_k r_k y_k is r_k / HW everywhere in the k-th map, whatever r.
    """
    if not layers:
        return None
    with record(network, taps=[layer.name for layer in layers]) as recorded:
        logits = network(probe(network, size))
        weights = torch.arange(1.0, 1 + logits.shape[1], device=logits.device)
        tapped = [recorded.taps[layer.name] for layer in layers]
        found = slopes((logits @ weights).sum(), tapped)
    for layer, output, gradient in zip(layers, tapped, found, strict=True):
        maps, slope = spatial(output, layer), spatial(gradient, layer)
        even = weights[None, :, None, None].expand_as(slope) / slope[0, 0].numel()
        if torch.allclose(slope, even, rtol=1e-3):
            own = module(network, layer.name)
            bias = own.bias if isinstance(own, AFFINE) else None
            bias = torch.zeros_like(weights) if bias is None else bias
            return Head(
                "conv", layer, bias, exact=_same(maps.mean(dim=(2, 3)).detach(), logits.detach())
            )
    return None


def _linear(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int], classes: int
) -> Head | None:
    classifiers = _classifiers(network) or _last(network, classes)
    if not classifiers:
        return None
    weight = torch.stack([w for w, _ in classifiers]).mean(0)
    bias = torch.stack([b for _, b in classifiers]).mean(0)
    wide = [layer for layer in layers if layer.channels == weight.shape[1]]
    with record(network, readings={layer.name: Tensor.clone for layer in wide}) as recorded:
        logits = network(probe(network, size))
    for layer in reversed(wide):
        features = recorded.readings[layer.name]
        pooled = spatial(features, layer).mean(dim=(2, 3))
        for norm in (None, *_norms(network, pooled.shape[1])):
            if _same(_normed(pooled, norm) @ weight.T + bias, logits):
                return Head("linear", proper(layer, wide), bias, weight, norm)
        if layer.prefix >= len(classifiers) and _same(_of_tokens(features, classifiers), logits):
            return Head("linear", layer, bias, weight, exact=False)
    return None


def reader(network: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """How to read logits from the mean of any block's tokens: (B,N,C) -> (B,K).

    Through the network's own norm and classifier; a convolution head reads the tokens where they
    are. None where there is no final norm or no linear classifier.
    """
    classifiers, norm = _classifiers(network), getattr(network, "norm", None)
    head = getattr(network, "head", None)
    if norm is None or not (classifiers or isinstance(head, ConvHead)):
        return None
    if isinstance(head, ConvHead):
        return lambda tokens: head(norm(tokens))
    after = getattr(network, "fc_norm", nn.Identity())

    def read(tokens: Tensor) -> Tensor:
        mean = after(norm(tokens.mean(dim=1, keepdim=True)))
        return _of_tokens(mean.expand(-1, len(classifiers), -1), classifiers)

    return read


def _classifiers(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight (K, C) and bias (K,) of each linear classifier; a distilled DeiT averages two."""
    ask = getattr(network, "get_classifier", None)
    found = ask() if callable(ask) else None
    heads = found if isinstance(found, tuple) else (found,)
    return _affine(heads) if all(isinstance(h, AFFINE) for h in heads) else []


def _last(network: nn.Module, classes: int) -> list[tuple[Tensor, Tensor]]:
    """The last layer with a row a class, where the network does not say what classifies."""
    rows = (classes, 1) if classes == 2 else (classes,)
    found = [m for m in network.modules() if isinstance(m, AFFINE) and len(m.weight) in rows]
    return _affine(found[-1:])


def _affine(heads: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    weights = [h.weight.flatten(1) for h in heads]
    biases = [h.weight.new_zeros(len(h.weight)) if h.bias is None else h.bias for h in heads]
    # A single logit stands for two classes, as everywhere: the second, and with -1 the first.
    return [
        (torch.cat([-w, w]), torch.cat([-b, b])) if len(w) == 1 else (w, b)
        for w, b in zip(weights, biases, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a norm of a vector p of channels goes: (p - c mean p) / sqrt(spread(p) + eps)."""

    centred: bool
    spread: Callable[[Tensor], Tensor]


# By how the names of their classes begin, for every library has its own of each.
SCALINGS = {
    "layernorm": Scaling(True, lambda pooled: pooled.var(dim=1, correction=0)),
    "rmsnorm": Scaling(False, lambda pooled: pooled.square().mean(dim=1)),
    "simplenorm": Scaling(False, lambda pooled: pooled.var(dim=1)),
}


def _scaling(norm: nn.Module) -> Scaling | None:
    name = type(norm).__name__.casefold()
    return next((s for start, s in SCALINGS.items() if name.startswith(start)), None)


def _norms(network: nn.Module, channels: int) -> list[nn.Module]:
    """The norms that may stand between pool and classifier: the last is the likeliest."""
    known = [m for m in network.modules() if _scaling(m)]
    return [m for m in reversed(known) if getattr(m, "normalized_shape", ()) == (channels,)]


def _steps(pooled: Tensor, norm: Any) -> tuple[bool, Tensor, Tensor, Tensor]:
    """Whether it centres, its 1 / sigma (B,), and its scale and shift (C,): 1 and 0 without."""
    scaling = _scaling(norm)
    assert scaling is not None
    eps = torch.finfo(pooled.dtype).eps if norm.eps is None else norm.eps
    own = dict(norm.named_parameters())
    gamma = own.get("weight", torch.ones_like(pooled[0]))
    beta = own.get("bias", torch.zeros_like(pooled[0]))
    return scaling.centred, (scaling.spread(pooled) + eps).rsqrt(), gamma, beta


def _normed(pooled: Tensor, norm: nn.Module | None) -> Tensor:
    """A norm over channels (B,C); as a function, for timm's 2-D variants want maps."""
    if norm is None:
        return pooled
    centred, scale, gamma, beta = _steps(pooled, norm)
    moved = pooled - pooled.mean(dim=1, keepdim=True) if centred else pooled
    return moved * scale[:, None] * gamma + beta


def _of_tokens(features: Tensor, classifiers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The logits when each classifier reads a prefix token of its own."""
    read = [features[:, i] @ w.T + b for i, (w, b) in enumerate(classifiers)]
    return torch.stack(read).mean(0)


def _same(found: Tensor, logits: Tensor) -> bool:
    """Up to rounding, which goes by the largest logit: small ones are sums of large terms."""
    scale = float(logits.abs().max())
    return math.isfinite(scale) and torch.allclose(found, logits, rtol=0, atol=1e-3 * scale + 1e-4)


def semantic(head: Head, output: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The map of one score an image, and its bias: (B,C,H,W), (B,K) -> (B,H,W), (B,).

    `score` weighs the logits: 1 for the class, and less than 0 for those it is set against.

    F_c = sum_k w_ck A_k, bias b_c; for exact heads the mean of F_c + b_c is the logit. A LayerNorm
    after the pool is linear in the map once the pooled vector's deviation is fixed, so it goes
    into both: F_c = sum_k w_ck gamma_k (A_k - mean_k A) / sigma, bias b_c + sum_k w_ck beta_k. An
    RMS norm takes no mean away.
    """
    features, bias = spatial(output, head.layer).float(), score @ head.bias.float()
    if head.weight is None:
        own = torch.einsum("bk,bkhw->bhw", score, features)
        return own - bias[:, None, None], bias
    weight = score @ head.weight.float()
    if head.norm is not None:
        centred, scale, gamma, beta = _steps(features.mean(dim=(2, 3)), head.norm)
        bias, weight = bias + weight @ beta, weight * gamma * scale[:, None]
        features = features - features.mean(dim=1, keepdim=True) if centred else features
    return torch.einsum("bc,bchw->bhw", weight, features), bias
