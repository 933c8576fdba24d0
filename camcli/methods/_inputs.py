"""The tensors that methods may ask for: what the registry of methods knows about providers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

PROVIDER_REGISTRY = "camcli.engine.providers.provider_registry"


class MethodInput(Protocol):
    """The properties of a provider that this registry reads."""

    @property
    def cost(self) -> str:
        """What the tensor costs, such as "gradient" for a backward pass."""

    @property
    def class_specific(self) -> bool:
        """Whether the tensor depends on the class."""

    @property
    def layer_specific(self) -> bool:
        """Whether there is one tensor for each layer."""


def find_method_inputs() -> Mapping[str, MethodInput]:
    """Every tensor that a method may ask for, by name.

    Providers compute with models, so they belong above this package. camcli finds them by name,
    like plug-ins. They import torch only when they compute.
    """
    found: Mapping[str, MethodInput] = import_module(PROVIDER_REGISTRY).PROVIDERS
    return found
