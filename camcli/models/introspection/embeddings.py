"""Embeddings: what a network returns that has no classifier, or reads before its classifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.introspection.heads import AFFINE_TYPES
from camcli.models.introspection.logits import find_logits
from camcli.models.introspection.probe import create_probe_image

# timm's image towers that were trained with text end in a projection, not in a classifier.
TEXT_TOWER_PATTERN = re.compile(r"clip|pe_core|_mci")
CLASSIFIER_TAG_PATTERN = re.compile(r"ft_in\d")


def is_embedding_network(network: Any) -> bool:
    """Whether timm says that a network returns an embedding: no classifier, or a projection.

    timm gives the width of CLIP's projection as the number of classes.
    """
    if getattr(network, "num_classes", None) == 0 and callable(
        getattr(network, "get_classifier", None)
    ):
        return isinstance(network.get_classifier(), nn.Identity)
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, dict):
        return False
    name = f"{config.get('architecture')}.{config.get('tag')}"
    return getattr(network, "num_classes", None) == config.get(
        "num_classes"
    ) and is_text_tower_name(name)


def is_text_tower_name(name: str) -> bool:
    """Whether timm's name with its tag is of a tower without a classifier, such as CLIP's."""
    return bool(TEXT_TOWER_PATTERN.search(name)) and not CLASSIFIER_TAG_PATTERN.search(name)


def find_embedding(output: Any) -> Tensor | None:
    """The embedding (B,D) in what a network returns: of maps and tokens the mean over positions.

    (B,D), (B,C,H,W) or (B,N,C) -> (B,D). None for anything else.
    """
    flat = find_logits(output)
    if flat is not None or not isinstance(output, Tensor) or not output.is_floating_point():
        return flat
    if output.ndim not in (3, 4) or not output.numel():
        return None
    return output.mean(dim=1) if output.ndim == 3 else output.mean(dim=(2, 3))


def remove_classifier(network: nn.Module, size: tuple[int, int]) -> bool:
    """Replace the last linear layer of a network that camcli owns, to get what the layer reads.

    Returns False, and changes nothing, if the logits are not the output of a linear layer.
    """
    probe = create_probe_image(network, size)
    with torch.no_grad():
        logits = network(probe)
    affine = [(name, m) for name, m in network.named_modules() if isinstance(m, AFFINE_TYPES)]
    return any(
        _try_remove_layer(network, name, module, probe, logits)
        for name, module in reversed(affine)
        if isinstance(module, nn.Linear)
    )


def _try_remove_layer(
    network: nn.Module, name: str, layer: nn.Linear, probe: Tensor, logits: Tensor
) -> bool:
    """Replace a layer by the identity if it computes the logits from an embedding."""
    if layer.out_features not in (logits.shape[1], logits.shape[1] // 2):  # one logit became two
        return False
    parent, _, own_name = name.rpartition(".")
    holder = network.get_submodule(parent)
    setattr(holder, own_name, nn.Identity())
    if _gives_logits(network, layer, probe, logits):
        return True
    setattr(holder, own_name, layer)
    return False


@torch.no_grad()
def _gives_logits(network: nn.Module, layer: nn.Linear, probe: Tensor, logits: Tensor) -> bool:
    try:
        embedding = network(probe)
    except (RuntimeError, ValueError, TypeError, AssertionError):  # the layer is inside
        return False
    if not isinstance(embedding, Tensor) or embedding.shape[1:] != (layer.in_features,):
        return False
    # The last logit is the same whether or not one logit became two.
    return torch.allclose(layer(embedding)[:, -1], logits[:, -1], rtol=1e-3, atol=1e-4)


def compute_similarities(references: Sequence[Tensor], embeddings: Tensor) -> Tensor:
    """The cosine of the angle to each of R references (D,): embeddings (B,D) -> (B,R)."""
    stacked = torch.stack(list(references)).to(embeddings)
    return nn.functional.normalize(embeddings, dim=1) @ nn.functional.normalize(stacked, dim=1).T
