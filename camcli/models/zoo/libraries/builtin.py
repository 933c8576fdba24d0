"""The built-in networks, whose weights are installed with camcli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from camcli.core.errors import ModelError
from camcli.core.types import Transform
from camcli.models.zoo.builtin_names import BUILTIN_CNN, BUILTIN_NAMES, BUILTIN_TSCAM
from camcli.models.zoo.builtin_networks import (
    load_builtin_cnn,
    load_builtin_vit,
    read_builtin_card,
)
from camcli.models.zoo.efficientnet_lite import EfficientNetLite0
from camcli.models.zoo.libraries.timm import TimmLibrary
from camcli.models.zoo.library import LoadedNetwork, Size, check_trained_size

# timm's transform of the CNN.
CNN_TRANSFORM = Transform((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)


class BuiltinLibrary(TimmLibrary):
    """A CNN of timm, and two transformers on top of its features, all without importing timm."""

    ships_weights = True

    def owns(self, name: str) -> bool:
        """Whether the name is built-in; timm has all other plain names."""
        return name in BUILTIN_NAMES

    def list_names(self) -> Sequence[str]:
        """The names of the built-in networks."""
        return BUILTIN_NAMES

    def check_name(self, name: str) -> None:
        """Accept every name: `owns` has compared it."""

    def has_name(self, name: str) -> bool:
        """Whether a built-in network has the name."""
        return self.owns(name)

    def create(self, name: str, size: Size | None, **options: Any) -> nn.Module:
        """The CNN, for weights from a user's file. Raises ModelError for the transformers."""
        if name != BUILTIN_CNN:
            raise ModelError(f"{name} works only with its built-in weights; omit --checkpoint")
        return EfficientNetLite0(**options)

    def create_pretrained(self, name: str, size: Size | None) -> nn.Module:
        """A network with its built-in weights."""
        return load_builtin_cnn() if name == BUILTIN_CNN else load_builtin_vit(name)

    def find_transform(
        self, name: str, size: Size | None, network: nn.Module | None = None
    ) -> Transform:
        """timm's transform for the CNN; the transformers store theirs, and have one size only."""
        if name == BUILTIN_CNN:
            return replace(CNN_TRANSFORM, size=size or CNN_TRANSFORM.size)
        transform = read_builtin_card().transform
        check_trained_size(size, transform.size, name)
        return transform

    def is_cached(self, name: str) -> bool:
        """Always true: the weights are installed with camcli."""
        return True

    def load_pretrained(self, name: str, size: Size | None) -> LoadedNetwork:
        """A network with its built-in weights, and the box thresholds of the TS-CAM transformer."""
        transform = self.find_transform(name, size)
        thresholds = read_builtin_card().thresholds if name == BUILTIN_TSCAM else {}
        network = self.create_pretrained(name, size)
        return LoadedNetwork(name, network, transform, thresholds=thresholds)


LIBRARY = BuiltinLibrary()
