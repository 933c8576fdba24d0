"""Find out how a classifier's logits come from a map, to read the map class by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.models.introspection.default_layer import choose_numbered_layer
from camcli.models.introspection.hooks import compute_gradients, find_module, record_outputs
from camcli.models.introspection.layouts import output_to_map
from camcli.models.introspection.norms import apply_norm, compute_norm_step, find_norms
from camcli.models.introspection.probe import create_probe_image

AFFINE_TYPES = (nn.Linear, nn.Conv2d)


class ConvHead(nn.Module):
    """TS-CAM's head: a 3x3 convolution over the patch tokens, then the mean over positions.

    (B,prefix+H*W,C) tokens -> (B,K) logits. The output of `conv` is the map before the mean.
    Source: https://arxiv.org/abs/2103.14862
    """

    def __init__(self, channels: int, class_count: int, grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        self.grid = grid
        self.prefix = prefix
        self.conv = nn.Conv2d(channels, class_count, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B,K) of tokens (B,N,C)."""
        patches = tokens[:, self.prefix :].transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        logits: Tensor = self.conv(patches).mean(dim=(2, 3))
        return logits


class PooledHead(nn.Linear):
    """CAM's head: the mean over positions, then one linear layer. (B,C,H,W) -> (B,K).

    Source: https://arxiv.org/abs/1512.04150
    """

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B,K) of maps (B,C,H,W)."""
        return super().forward(features.mean(dim=(2, 3)))


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """A linear classifier: weight (K,C) and bias (K,)."""

    weight: Tensor
    bias: Tensor

    def compute_logits(self, features: Tensor) -> Tensor:
        """Logits (B,K) of features (B,C)."""
        return features @ self.weight.T + self.bias


@dataclass(frozen=True, slots=True)
class ClassifierHead:
    """The map that the logits are pooled from, and how to turn it into one map per class.

    kind "conv": the output of `layer` is a map per class (B,K,H,W), with the bias in it. kind
    "linear": it is features (B,C,H,W), which are pooled, normalized by `norm` if there is one, and
    weighted by `weight` (K,C). `exact` says that the logits are the mean of the class maps; they
    are not if the network classifies a CLS token and not the patches.
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
    """The head of a network; None if its logits are not linear in any map.

    The head is measured on the probe: a map belongs to it if the pooled map and the classifier
    give the logits, or if the map has one channel per class and its mean goes into the logits.
    """
    class_maps = [layer for layer in layers if layer.channels == class_count]
    return _find_conv_head(network, class_maps, size) or _find_linear_head(
        network, layers, size, class_count
    )


def _find_conv_head(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> ClassifierHead | None:
    """Find maps (B,K,H,W) whose means are the logits, or are added to them.

    For such maps the gradient of sum_k r_k y_k is r_k / HW at every cell of map k, for any r.
    """
    if not layers:
        return None
    with record_outputs(network, graph_layers=[layer.name for layer in layers]) as recording:
        logits = network(create_probe_image(network, size))
        factors = torch.arange(1.0, 1 + logits.shape[1], device=logits.device)
        outputs = [recording.graph_outputs[layer.name] for layer in layers]
        gradients = compute_gradients((logits @ factors).sum(), outputs)
    for layer, output, gradient in zip(layers, outputs, gradients, strict=True):
        slope = output_to_map(gradient, layer)
        expected = factors[None, :, None, None].expand_as(slope) / slope[0, 0].numel()
        if torch.allclose(slope, expected, rtol=1e-3):
            pooled = output_to_map(output, layer).mean(dim=(2, 3)).detach()
            bias = _find_bias(find_module(network, layer.name))
            return ClassifierHead(
                kind="conv",
                layer=layer,
                bias=torch.zeros_like(factors) if bias is None else bias,
                exact=_is_close_to_logits(pooled, logits.detach()),
            )
    return None


def _find_bias(module: nn.Module) -> Tensor | None:
    return module.bias if isinstance(module, AFFINE_TYPES) else None


def _find_linear_head(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int], class_count: int
) -> ClassifierHead | None:
    classifiers = _find_declared_classifiers(network, class_count) or _find_last_classifier(
        network, class_count
    )
    if not classifiers:
        return None
    classifier = _average_classifiers(classifiers)
    wide = [layer for layer in layers if layer.channels == classifier.weight.shape[1]]
    reducers = {layer.name: Tensor.clone for layer in wide}
    with record_outputs(network, reducers=reducers) as recording:
        logits = network(create_probe_image(network, size))
    for layer in reversed(wide):
        features = recording.reduced_outputs[layer.name]
        pooled = output_to_map(features, layer).mean(dim=(2, 3))
        for norm in (None, *find_norms(network, pooled.shape[1])):
            if _is_close_to_logits(classifier.compute_logits(apply_norm(pooled, norm)), logits):
                numbered = choose_numbered_layer(layer, wide)
                return _create_linear_head(numbered, classifier, norm=norm)
        if layer.prefix_token_count >= len(classifiers) and _is_close_to_logits(
            _compute_prefix_logits(features, classifiers), logits
        ):
            return _create_linear_head(layer, classifier, exact=False)
    return None


def _create_linear_head(
    layer: Layer, classifier: LinearClassifier, norm: nn.Module | None = None, *, exact: bool = True
) -> ClassifierHead:
    return ClassifierHead(
        kind="linear",
        layer=layer,
        bias=classifier.bias,
        weight=classifier.weight,
        norm=norm,
        exact=exact,
    )


def find_block_reader(network: nn.Module, class_count: int) -> Callable[[Tensor], Tensor] | None:
    """A function that reads logits from the tokens of any block: (B,N,C) -> (B,K).

    It applies the network's own final norm and classifier to the mean of the tokens; a convolution
    head reads the tokens themselves. None without a final norm or a linear classifier.
    """
    classifiers = _find_declared_classifiers(network, class_count)
    norm = getattr(network, "norm", None)
    head = getattr(network, "head", None)
    if norm is None or not (classifiers or isinstance(head, ConvHead)):
        return None
    if isinstance(head, ConvHead):
        return lambda tokens: head(norm(tokens))
    norm_after_pool = getattr(network, "fc_norm", nn.Identity())

    def read(tokens: Tensor) -> Tensor:
        mean = norm_after_pool(norm(tokens.mean(dim=1, keepdim=True)))
        return _compute_prefix_logits(mean.expand(-1, len(classifiers), -1), classifiers)

    return read


def _find_declared_classifiers(network: nn.Module, class_count: int) -> list[LinearClassifier]:
    """The linear classifiers that timm's networks declare; a distilled DeiT averages two."""
    get_classifier = getattr(network, "get_classifier", None)
    found = get_classifier() if callable(get_classifier) else None
    heads = found if isinstance(found, tuple) else (found,)
    are_linear = all(isinstance(head, AFFINE_TYPES) for head in heads)
    return [_to_classifier(head, class_count) for head in heads] if are_linear else []


def _find_last_classifier(network: nn.Module, class_count: int) -> list[LinearClassifier]:
    """The last layer with a row per class, if the network does not declare its classifier."""
    row_counts = (class_count, 1) if class_count == 2 else (class_count,)
    found = [
        module
        for module in network.modules()
        if isinstance(module, AFFINE_TYPES) and len(module.weight) in row_counts
    ]
    return [_to_classifier(module, class_count) for module in found[-1:]]


def _to_classifier(module: Any, class_count: int) -> LinearClassifier:
    weight = module.weight.flatten(1)
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias
    if len(weight) == 1 and class_count == 2:  # a single logit z became the two logits (-z, z)
        return LinearClassifier(torch.cat([-weight, weight]), torch.cat([-bias, bias]))
    return LinearClassifier(weight, bias)


def _average_classifiers(classifiers: Sequence[LinearClassifier]) -> LinearClassifier:
    return LinearClassifier(
        torch.stack([classifier.weight for classifier in classifiers]).mean(0),
        torch.stack([classifier.bias for classifier in classifiers]).mean(0),
    )


def _compute_prefix_logits(features: Tensor, classifiers: Sequence[LinearClassifier]) -> Tensor:
    """The mean logits (B,K) of classifiers that read one prefix token each."""
    logits = [c.compute_logits(features[:, index]) for index, c in enumerate(classifiers)]
    return torch.stack(logits).mean(0)


def _is_close_to_logits(found: Tensor, logits: Tensor) -> bool:
    """Whether values equal the logits up to rounding.

    The tolerance depends on the largest logit, because small logits are sums of large terms.
    """
    scale = float(logits.abs().max())
    return math.isfinite(scale) and torch.allclose(found, logits, rtol=0, atol=1e-3 * scale + 1e-4)


def compute_semantic_map(
    head: ClassifierHead, output: Tensor, logit_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The map of one score per image, and its bias: (B,C,H,W), (B,K) -> (B,H,W), (B,).

    The score is a weighted sum of logits: 1 for the class, negative for the classes that it is
    contrasted with.

    F_c = sum_k w_ck A_k, bias b_c; for exact heads the mean of F_c + b_c is the logit. With the
    deviation sigma of the pooled vector held fixed, a LayerNorm after the pool is linear in the
    map, and goes into both: F_c = sum_k w_ck gamma_k (A_k - mean_k A) / sigma, bias
    b_c + sum_k w_ck beta_k. An RMS norm subtracts no mean.
    """
    features, bias = output_to_map(output, head.layer).float(), logit_weights @ head.bias.float()
    if head.weight is None:
        score_map = torch.einsum("bk,bkhw->bhw", logit_weights, features)
        return score_map - bias[:, None, None], bias
    weight = logit_weights @ head.weight.float()
    if head.norm is not None:
        step = compute_norm_step(features.mean(dim=(2, 3)), head.norm)
        bias = bias + weight @ step.beta
        weight = weight * step.gamma * step.inverse_deviation[:, None]
        features = features - features.mean(dim=1, keepdim=True) if step.is_centered else features
    return torch.einsum("bc,bchw->bhw", weight, features), bias
