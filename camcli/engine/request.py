"""A request: one method on given layers, with the parts of the model that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from camcli.core.types import PIXELS, Layer
from camcli.engine.fusion import Fusion
from camcli.engine.providers.base import ModelPart
from camcli.engine.providers.classifier import CLASSIFIER_HEAD
from camcli.engine.providers.provider_registry import list_providers
from camcli.engine.refinement import Refiner
from camcli.methods.registry import Method
from camcli.models.introspection.heads import ClassifierHead

Found = TypeVar("Found")
PIXEL_CLIP_QUANTILE = 0.99  # a few pixels are far above all others


@dataclass(frozen=True, slots=True)
class Request:
    """One method on given layers, with the parts of the model that it reads.

    `layers` are the layers that the user chose, for methods that explain one layer at a time.
    `to_map` turns the method's result, for a score of logits with weights (B,K), into a map
    (B,H,W). `has_chosen_blocks` says that the user
    chose which blocks a method joins by itself. `refiner` refines the maps by the image itself.
    """

    method: Method
    layers: tuple[Layer, ...]
    fusion: Fusion
    options: Mapping[str, Any]
    to_map: Callable[[Tensor, Tensor], Tensor]
    model_parts: Mapping[ModelPart[Any], Any] = field(default_factory=dict)
    has_chosen_blocks: bool = False
    refiner: Refiner | None = None

    def get_part(self, part: ModelPart[Found]) -> Found:
        """Get a part of the model. Raises KeyError if no provider of the method declares it."""
        found: Found = self.model_parts[part]
        return found

    def find_option(self, key: str, default: Any) -> Any:
        """The value of an option, set by the user or in the method's name; else the default."""
        in_name = getattr(self.method.function, "keywords", {})
        return {**in_name, **self.options}.get(key, default)

    @property
    def is_pixel_level(self) -> bool:
        """Whether a map has a value for each pixel of the input; an affinity makes it coarse."""
        return (self.method.family == "saliency" or self._reads_pixels) and not self._is_coarse

    @property
    def clip_quantile(self) -> float:
        """The quantile of a map that is shown as its maximum."""
        if self._is_coarse:
            return 1.0
        return PIXEL_CLIP_QUANTILE if self._reads_pixels else self.method.clip_quantile

    @property
    def _reads_pixels(self) -> bool:
        return any(layer.name == PIXELS for layer in self.layers)

    @property
    def _is_coarse(self) -> bool:
        return self.refiner is not None and self.refiner.kind == "affinity"

    @property
    def head(self) -> ClassifierHead | None:
        """The classifier, if the method reads it."""
        return self.model_parts.get(CLASSIFIER_HEAD)

    @property
    def source_layers(self) -> tuple[Layer, ...]:
        """The layers that the method reads: the chosen ones, or its providers' own."""
        own = (provider.list_source_layers(self) for provider in list_providers(self.method))
        return self.layers or next((layers for layers in own if layers), ())
