"""Classifiers of several layers, built from the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.zoo.checkpoints import find_classifier_layers
from camcli.models.zoo.state_tables import StateDict

MAX_HEAD_LAYERS = 100  # a file could name layer 999999999
PLAIN_HEAD_TYPES = (nn.Linear, nn.Dropout, nn.ReLU, nn.Hardswish, nn.Identity)
LayerTensors = Mapping[str, Tensor]  # the tensors of one layer: weight, bias, running_mean


class ConcatPool(nn.Module):
    """fastai's pooling: the maximum, then the mean over positions. (B,C,H,W) -> (B,2C)."""

    def forward(self, features: Tensor) -> Tensor:
        """The pooled features (B,2C) of maps (B,C,H,W)."""
        return torch.cat([features.amax(dim=(2, 3)), features.mean(dim=(2, 3))], dim=1)


def attach_deep_head(network: nn.Module, plain: nn.Module, state: StateDict) -> str:
    """Replace a network's linear classifier if the file has several layers in its place.

    `plain` is the architecture as its library makes it, which says where the classifier is.
    Returns a note that says what was assumed; "" if the classifier is left as it is, because the
    file has no such layers or they do not follow each other.
    """
    named = find_classifier_layers(plain)
    if len(named) != 1 or f"{named[0]}.weight" in state:
        return ""
    for name in (named[0], named[0].rpartition(".")[0]):
        head = build_head(select_layers(state, f"{name}."), _find_input_width(plain, name))
        if name and head is not None:
            network.set_submodule(name, head)
            return describe_head(name, head)
    return ""


def _find_input_width(network: nn.Module, name: str) -> int:
    """The features that a linear layer takes, or a Sequential of such layers; else 0."""
    module = dict(network.named_modules()).get(name)
    parts = list(module) if isinstance(module, nn.Sequential) else [module]
    linear = [part for part in parts if isinstance(part, nn.Linear)]
    is_plain = all(isinstance(part, PLAIN_HEAD_TYPES) for part in parts)
    return linear[0].in_features if linear and is_plain else 0


def select_layers(state: StateDict, prefix: str) -> dict[int, dict[str, Tensor]]:
    """The tensors under a prefix by the number of their layer; empty if a layer has no number."""
    layers: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        number, _, name = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix):
            if not number.isdecimal() or int(number) >= MAX_HEAD_LAYERS:
                return {}
            layers.setdefault(int(number), {})[name] = value
    return dict(sorted(layers.items()))


def build_head(layers: Mapping[int, LayerTensors], width: int) -> nn.Sequential | None:
    """Linear and norm layers at their numbers, with a ReLU in the first gap after each linear one.

    The other gaps are dropout, which does nothing here. None if the layers do not follow each
    other from features (B,`width`).
    """
    if not layers:
        return None
    modules: list[nn.Module] = [nn.Identity() for _ in range(max(layers) + 1)]
    expects_activation = False
    for number in range(len(modules)):
        tensors = layers.get(number)
        if tensors is not None:
            module = _create_layer(tensors)
            if module is None or _get_input_width(module) != width:
                return None
            modules[number] = module
            width = len(tensors["weight"])
            expects_activation |= isinstance(module, nn.Linear)
        elif expects_activation:
            modules[number], expects_activation = nn.ReLU(), False
    return nn.Sequential(*modules) if sum(map(_is_linear, modules)) > 1 else None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _create_layer(tensors: LayerTensors) -> nn.Module | None:
    """A layer with these tensors, without their values; None for another kind of layer."""
    weight, names = tensors.get("weight"), {*tensors} - {"num_batches_tracked"}
    if weight is None or not weight.numel():
        return None
    if weight.ndim == 2 and names <= {"weight", "bias"}:
        return nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in names)
    create = NORMS_BY_TENSORS.get(frozenset(names))
    return create(len(weight)) if create and weight.ndim == 1 else None


NORMS_BY_TENSORS: Mapping[frozenset[str], Callable[[int], nn.Module]] = {
    frozenset({"weight", "bias", "running_mean", "running_var"}): nn.BatchNorm1d,
    frozenset({"weight", "bias"}): nn.LayerNorm,
}


def _get_input_width(module: Any) -> int:
    weight: Tensor = module.weight
    return weight.shape[-1]


def describe_head(name: str, head: nn.Sequential) -> str:
    """Say what the layers are taken to be."""
    parts = [
        f"Linear {module.in_features}-{module.out_features}" if _is_linear(module) else kind
        for module in head
        if (kind := type(module).__name__) != "Identity"
    ]
    said = f"its classifier {name} is taken to be {', '.join(parts)}"
    if "ReLU" not in parts:
        return said
    return f"{said}: ReLU is assumed; for another activation use --model package.module:function"


def write_head_function(architecture: str, layers: Sequence[str]) -> str:
    """The lines of a function that gives a network of a library other classifiers."""
    is_torchvision = architecture.startswith("torchvision:")
    create = "models.get_model" if is_torchvision else "timm.create_model"
    bare = architecture.removeprefix("torchvision:")
    return "\n".join(
        (
            "# my_network.py, then: --model my_network:network --checkpoint FILE",
            "from torchvision import models" if is_torchvision else "import timm",
            "from torch import nn",
            "def network():",
            f"    network = {create}({bare!r})",
            *(
                f"    network.set_submodule({layer!r}, nn.Sequential(...))  # as it was trained"
                for layer in layers
            ),
            "    return network",
        )
    )
