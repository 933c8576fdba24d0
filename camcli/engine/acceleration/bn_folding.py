"""Batch norms made part of the convolutions before them: the same function, in less time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from camcli.engine.providers.registry import list_hooked_names
from camcli.engine.request import Request
from camcli.models.introspection.hooks import find_handoffs, override_forward
from camcli.models.introspection.probe import create_probe_image
from camcli.models.model import Model

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm

CONV_TYPES = (nn.Conv2d, Conv2dSame)  # whose weights are used as they are stored
BATCH_NORM_TYPES = (nn.BatchNorm2d, BatchNormAct2d)
MAX_LOGIT_ERROR = 1e-3  # of the largest logit


@contextmanager
def fold_batch_norms(model: Model, requests: Sequence[Request]) -> Iterator[int]:
    """Inside the context, batch norms that follow a convolution cost nothing; how many.

    W' = W g / sqrt(v + e), b' = (b - m) g / sqrt(v + e) + beta: what the norm would make of the
    convolution's output comes out of the convolution, and an activation of the norm's own stays.
    None where a method asks what norms do, where the convolution's own output is read, and where
    the logits of a probe do not stay what they were.
    """
    pairs, before = _find_foldable_pairs(model, requests)
    with ExitStack() as stack:
        if pairs:
            for convolution, norm in pairs:
                stack.enter_context(_fold_pair(convolution, norm))
            if not _has_same_logits(before, _compute_probe_logits(model)):
                stack.close()
                pairs = []
        yield len(pairs)


@torch.no_grad()
def _compute_probe_logits(model: Model) -> Tensor:
    logits: Tensor = model.network(create_probe_image(model.network, model.input_size))
    return logits


def _has_same_logits(before: Tensor, after: Tensor) -> bool:
    return bool(
        (before - after).abs().max() <= MAX_LOGIT_ERROR * before.abs().max()
    )  # no, where one is NaN


def _find_foldable_pairs(
    model: Model, requests: Sequence[Request]
) -> tuple[list[tuple[nn.Conv2d, _BatchNorm]], Tensor]:
    """Convolutions with the norms that can be made part of them, and the probe's logits."""
    image = create_probe_image(model.network, model.input_size)
    if any(request.biases or request.guided or request.lrp for request in requests):
        return [], image
    read = list_hooked_names(requests)
    found, logits = find_handoffs(model.network, image, CONV_TYPES, BATCH_NORM_TYPES)
    modules = dict(model.network.named_modules())
    pairs: list[Any] = [(modules[a], modules[b]) for a, b in found if a not in read]
    return [
        (conv, norm)
        for conv, norm in pairs
        if _has_stored_weight(conv) and _has_fixed_statistics(norm)
    ], logits


def _has_stored_weight(convolution: nn.Module) -> bool:
    """Whether its weight is its own, not made anew for every pass, as spectral norm makes it."""
    return any(name == "weight" for name, _ in convolution.named_parameters(recurse=False))


def _has_fixed_statistics(norm: _BatchNorm) -> bool:
    return bool(norm.track_running_stats and norm.affine)


@contextmanager
def _fold_pair(convolution: nn.Conv2d, norm: _BatchNorm) -> Iterator[None]:
    weight, bias = convolution.weight, convolution.bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    made = fuse_conv_bn_weights(
        *(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    )
    convolution.weight, convolution.bias = (p.requires_grad_(False) for p in made)
    try:
        with override_forward(norm, partial(_apply_activation, norm)):
            yield
    finally:
        convolution.weight, convolution.bias = weight, bias


def _apply_activation(norm: Any, values: Tensor) -> Tensor:
    """What is left of a norm: the activation that some have."""
    found: Tensor = norm.act(norm.drop(values)) if isinstance(norm, BatchNormAct2d) else values
    return found
