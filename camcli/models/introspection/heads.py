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
from camcli.models.introspection.hooks import compute_gradients, find_module, record_outputs
from camcli.models.introspection.layers import (
    AFFINE_TYPES,
    choose_numbered_layer,
    create_probe_image,
    output_to_map,
)


class ConvHead(nn.Module):
    """TS-CAM's head: a 3x3 convolution over the patch tokens, then the mean over positions.

    (B, prefix + H*W, C) tokens -> (B, K) logits. The map before the mean is the output of `conv`.
    Source: https://arxiv.org/abs/2103.14862
    """

    def __init__(self, channels: int, class_count: int, grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.conv = nn.Conv2d(channels, class_count, kernel_size=3, padding=1)

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
class ClassifierHead:
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


def find_head(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int], class_count: int
) -> ClassifierHead | None:
    """The head of a network, or None when its logits are not linear in any map.

    Measured, not assumed: a map belongs to the head when pooling it and applying the classifier
    gives the logits of a probe image, or when it is one a class and its mean goes into the logit.
    """
    return _find_conv_head(
        network, [la for la in layers if la.channels == class_count], size
    ) or _find_linear_head(network, layers, size, class_count)


def _find_conv_head(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> ClassifierHead | None:
    """Maps (B,K,H,W) of which the logits are the means, and perhaps something else besides.

    Then the gradient of sum_k r_k y_k is r_k / HW everywhere in the k-th map, whatever r.
    """
    if not layers:
        return None
    with record_outputs(network, graph_layers=[layer.name for layer in layers]) as recorded:
        logits = network(create_probe_image(network, size))
        weights = torch.arange(1.0, 1 + logits.shape[1], device=logits.device)
        tapped = [recorded.graph_outputs[layer.name] for layer in layers]
        found = compute_gradients((logits @ weights).sum(), tapped)
    for layer, output, gradient in zip(layers, tapped, found, strict=True):
        maps, slope = output_to_map(output, layer), output_to_map(gradient, layer)
        even = weights[None, :, None, None].expand_as(slope) / slope[0, 0].numel()
        if torch.allclose(slope, even, rtol=1e-3):
            own = find_module(network, layer.name)
            bias = own.bias if isinstance(own, AFFINE_TYPES) else None
            bias = torch.zeros_like(weights) if bias is None else bias
            return ClassifierHead(
                "conv",
                layer,
                bias,
                exact=_is_close_to_logits(maps.mean(dim=(2, 3)).detach(), logits.detach()),
            )
    return None


def _find_linear_head(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int], class_count: int
) -> ClassifierHead | None:
    classifiers = _find_declared_classifiers(network) or _find_last_classifier(network, class_count)
    if not classifiers:
        return None
    weight = torch.stack([w for w, _ in classifiers]).mean(0)
    bias = torch.stack([b for _, b in classifiers]).mean(0)
    wide = [layer for layer in layers if layer.channels == weight.shape[1]]
    with record_outputs(network, reducers={layer.name: Tensor.clone for layer in wide}) as recorded:
        logits = network(create_probe_image(network, size))
    for layer in reversed(wide):
        features = recorded.reduced_outputs[layer.name]
        pooled = output_to_map(features, layer).mean(dim=(2, 3))
        for norm in (None, *_find_norms(network, pooled.shape[1])):
            if _is_close_to_logits(_apply_norm(pooled, norm) @ weight.T + bias, logits):
                return ClassifierHead(
                    "linear", choose_numbered_layer(layer, wide), bias, weight, norm
                )
        if layer.prefix_token_count >= len(classifiers) and _is_close_to_logits(
            _compute_prefix_logits(features, classifiers), logits
        ):
            return ClassifierHead("linear", layer, bias, weight, exact=False)
    return None


def find_block_reader(network: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """How to read logits from the mean of any block's tokens: (B,N,C) -> (B,K).

    Through the network's own norm and classifier; a convolution head reads the tokens where they
    are. None where there is no final norm or no linear classifier.
    """
    classifiers, norm = _find_declared_classifiers(network), getattr(network, "norm", None)
    head = getattr(network, "head", None)
    if norm is None or not (classifiers or isinstance(head, ConvHead)):
        return None
    if isinstance(head, ConvHead):
        return lambda tokens: head(norm(tokens))
    after = getattr(network, "fc_norm", nn.Identity())

    def read(tokens: Tensor) -> Tensor:
        mean = after(norm(tokens.mean(dim=1, keepdim=True)))
        return _compute_prefix_logits(mean.expand(-1, len(classifiers), -1), classifiers)

    return read


def _find_declared_classifiers(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weight (K, C) and bias (K,) of each linear classifier; a distilled DeiT averages two."""
    ask = getattr(network, "get_classifier", None)
    found = ask() if callable(ask) else None
    heads = found if isinstance(found, tuple) else (found,)
    return (
        _extract_affine_parameters(heads) if all(isinstance(h, AFFINE_TYPES) for h in heads) else []
    )


def _find_last_classifier(network: nn.Module, class_count: int) -> list[tuple[Tensor, Tensor]]:
    """The last layer with a row a class, where the network does not say what classifies."""
    rows = (class_count, 1) if class_count == 2 else (class_count,)
    found = [m for m in network.modules() if isinstance(m, AFFINE_TYPES) and len(m.weight) in rows]
    return _extract_affine_parameters(found[-1:])


def _extract_affine_parameters(heads: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    weights = [h.weight.flatten(1) for h in heads]
    biases = [h.weight.new_zeros(len(h.weight)) if h.bias is None else h.bias for h in heads]
    # A single logit stands for two classes, as everywhere: the second, and with -1 the first.
    return [
        (torch.cat([-w, w]), torch.cat([-b, b])) if len(w) == 1 else (w, b)
        for w, b in zip(weights, biases, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class NormFormula:
    """How a norm of a vector p of channels goes: (p - c mean p) / sqrt(spread(p) + eps)."""

    is_centered: bool
    compute_spread: Callable[[Tensor], Tensor]


# By how the names of their classes begin, for every library has its own of each.
NORM_FORMULAS = {
    "layernorm": NormFormula(True, lambda pooled: pooled.var(dim=1, correction=0)),
    "rmsnorm": NormFormula(False, lambda pooled: pooled.square().mean(dim=1)),
    "simplenorm": NormFormula(False, lambda pooled: pooled.var(dim=1)),
}


def _find_norm_formula(norm: nn.Module) -> NormFormula | None:
    name = type(norm).__name__.casefold()
    return next((s for start, s in NORM_FORMULAS.items() if name.startswith(start)), None)


def _find_norms(network: nn.Module, channels: int) -> list[nn.Module]:
    """The norms that may stand between pool and classifier: the last is the likeliest."""
    known = [m for m in network.modules() if _find_norm_formula(m)]
    return [m for m in reversed(known) if getattr(m, "normalized_shape", ()) == (channels,)]


def _compute_norm_factors(pooled: Tensor, norm: Any) -> tuple[bool, Tensor, Tensor, Tensor]:
    """Whether it centres, its 1 / sigma (B,), and its scale and shift (C,): 1 and 0 without."""
    scaling = _find_norm_formula(norm)
    assert scaling is not None
    eps = torch.finfo(pooled.dtype).eps if norm.eps is None else norm.eps
    own = dict(norm.named_parameters())
    gamma = own.get("weight", torch.ones_like(pooled[0]))
    beta = own.get("bias", torch.zeros_like(pooled[0]))
    return scaling.is_centered, (scaling.compute_spread(pooled) + eps).rsqrt(), gamma, beta


def _apply_norm(pooled: Tensor, norm: nn.Module | None) -> Tensor:
    """A norm over channels (B,C); as a function, for timm's 2-D variants want maps."""
    if norm is None:
        return pooled
    centred, scale, gamma, beta = _compute_norm_factors(pooled, norm)
    moved = pooled - pooled.mean(dim=1, keepdim=True) if centred else pooled
    return moved * scale[:, None] * gamma + beta


def _compute_prefix_logits(
    features: Tensor, classifiers: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """The logits when each classifier reads a prefix token of its own."""
    read = [features[:, i] @ w.T + b for i, (w, b) in enumerate(classifiers)]
    return torch.stack(read).mean(0)


def _is_close_to_logits(found: Tensor, logits: Tensor) -> bool:
    """Up to rounding, which goes by the largest logit: small ones are sums of large terms."""
    scale = float(logits.abs().max())
    return math.isfinite(scale) and torch.allclose(found, logits, rtol=0, atol=1e-3 * scale + 1e-4)


def compute_semantic_map(
    head: ClassifierHead, output: Tensor, logit_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The map of one score an image, and its bias: (B,C,H,W), (B,K) -> (B,H,W), (B,).

    `score` weighs the logits: 1 for the class, and less than 0 for those it is set against.

    F_c = sum_k w_ck A_k, bias b_c; for exact heads the mean of F_c + b_c is the logit. A LayerNorm
    after the pool is linear in the map once the pooled vector's deviation is fixed, so it goes
    into both: F_c = sum_k w_ck gamma_k (A_k - mean_k A) / sigma, bias b_c + sum_k w_ck beta_k. An
    RMS norm takes no mean away.
    """
    features, bias = output_to_map(output, head.layer).float(), logit_weights @ head.bias.float()
    if head.weight is None:
        own = torch.einsum("bk,bkhw->bhw", logit_weights, features)
        return own - bias[:, None, None], bias
    weight = logit_weights @ head.weight.float()
    if head.norm is not None:
        centred, scale, gamma, beta = _compute_norm_factors(features.mean(dim=(2, 3)), head.norm)
        bias, weight = bias + weight @ beta, weight * gamma * scale[:, None]
        features = features - features.mean(dim=1, keepdim=True) if centred else features
    return torch.einsum("bc,bchw->bhw", weight, features), bias
