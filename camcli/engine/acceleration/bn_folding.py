"""Batch norms folded into the convolutions before them: the same function, in less time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from camcli.engine.providers.provider_registry import gather_needs
from camcli.engine.request import Request
from camcli.models.introspection.hooks import find_handoffs, override_forward
from camcli.models.introspection.probe import create_probe_image
from camcli.models.model import Model

if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm

# Classes that use their weights as stored. Those of timm are known by their names, like camcli's
# own: `import timm` takes seconds.
CONV_NAMES = ("Conv2d", "Conv2dSame")
BATCH_NORM_NAMES = ("BatchNorm2d", "BatchNormAct2d")
MAX_LOGIT_ERROR = 1e-3  # of the largest logit


@contextmanager
def fold_batch_norms(model: Model, requests: Sequence[Request]) -> Iterator[int]:
    """Inside the context, batch norms are folded into the convolutions before them.

    W' = W g / sqrt(v + e), b' = (b - m) g / sqrt(v + e) + beta; an activation inside the norm
    stays. A norm is not folded if a method reads norms or the convolution's own output. No norm is
    folded if folding changes the logits of a test image. Yields the number of folded norms.
    """
    needs = gather_needs(requests)
    if needs.batch_norms:
        yield 0
        return
    image = create_probe_image(model.network, model.input_size)
    convolutions = _list_types(model.network, nn.Conv2d, CONV_NAMES)
    norms = _list_types(model.network, nn.BatchNorm2d, BATCH_NORM_NAMES)
    handoffs, before = find_handoffs(model.network, image, convolutions, norms)
    free = [(conv, norm) for conv, norm in handoffs if conv not in needs.hooked_modules]
    pairs = _find_foldable_pairs(model.network, free)
    with ExitStack() as stack:
        for convolution, norm in pairs:
            stack.enter_context(_fold_pair(convolution, norm))
        if pairs and not _has_same_logits(before, _compute_probe_logits(model)):
            stack.close()
            pairs = []
        yield len(pairs)


def _list_types(
    network: nn.Module, base: type[nn.Module], names: Collection[str]
) -> tuple[type[nn.Module], ...]:
    """The classes of a network's modules that are `base`, or derived from it with one of the names.

    Another class of that name would do no harm: if it computes something else, the logits change.
    """
    types = {type(module) for module in network.modules()}
    return tuple(kind for kind in types if issubclass(kind, base) and kind.__name__ in names)


@torch.no_grad()
def _compute_probe_logits(model: Model) -> Tensor:
    logits: Tensor = model.network(create_probe_image(model.network, model.input_size))
    return logits


def _has_same_logits(before: Tensor, after: Tensor) -> bool:
    """Whether logits agree within MAX_LOGIT_ERROR; False if one is NaN."""
    return bool((before - after).abs().max() <= MAX_LOGIT_ERROR * before.abs().max())


def _find_foldable_pairs(
    network: nn.Module, named_pairs: Sequence[tuple[str, str]]
) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Select the pairs of a convolution and its norm that can be folded; return their modules."""
    modules: dict[str, Any] = dict(network.named_modules())
    pairs = [(modules[conv], modules[norm]) for conv, norm in named_pairs]
    return [
        (conv, norm)
        for conv, norm in pairs
        if _has_stored_weight(conv) and _has_fixed_statistics(norm)
    ]


def _has_stored_weight(convolution: nn.Module) -> bool:
    """Whether the weight is a parameter; spectral norm, for example, computes it anew."""
    return any(name == "weight" for name, _ in convolution.named_parameters(recurse=False))


def _has_fixed_statistics(norm: _BatchNorm) -> bool:
    return bool(norm.track_running_stats and norm.affine)


@contextmanager
def _fold_pair(convolution: nn.Conv2d, norm: _BatchNorm) -> Iterator[None]:
    weight, bias = convolution.weight, convolution.bias
    folded = _compute_folded_weights(convolution, norm)
    convolution.weight, convolution.bias = (p.requires_grad_(False) for p in folded)
    try:
        with override_forward(norm, partial(_apply_activation, norm)):
            yield
    finally:
        convolution.weight, convolution.bias = weight, bias


def _compute_folded_weights(convolution: nn.Conv2d, norm: Any) -> tuple[nn.Parameter, nn.Parameter]:
    return fuse_conv_bn_weights(
        conv_w=convolution.weight,
        conv_b=convolution.bias,
        bn_rm=norm.running_mean,
        bn_rv=norm.running_var,
        bn_eps=norm.eps,
        bn_w=norm.weight,
        bn_b=norm.bias,
    )


def _apply_activation(norm: Any, values: Tensor) -> Tensor:
    """The rest of a folded norm: the activation that some norms contain."""
    if not hasattr(norm, "act"):
        return values
    activated: Tensor = norm.act(norm.drop(values))
    return activated
