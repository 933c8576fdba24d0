"""The activations of several layers at once: one of each resolution, from the finest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from camcli.core.errors import MethodError
from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.model import Model


def _find_stages(model: Model) -> tuple[Layer, ...] | None:
    """The last layer of each resolution whose output is never negative, stages first.

    None if there is only one resolution of such layers. A noise image tells which these are.
    """
    from camcli.models.introspection.hooks import record_outputs
    from camcli.models.introspection.probe import create_probe_image

    reducers = {layer.name: lambda output: output.amin() for layer in model.layers}
    with record_outputs(model.network, reducers=reducers) as recording:
        model.network(create_probe_image(model.network, model.input_size))
    lowest = recording.reduced_outputs
    positive = (layer for layer in model.layers if lowest[layer.name] >= 0)
    by_preference = sorted(positive, key=lambda layer: layer.stage is not None)
    last = {layer.grid: layer for layer in by_preference}
    return _sort_by_grid(last.values()) if len(last) > 1 else None


def _sort_by_grid(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    return tuple(sorted(layers, key=lambda layer: layer.grid, reverse=True))


def _select_stages(_found: tuple[Layer, ...], layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The chosen layers, from the finest on. Raises MethodError if two have the same grid."""
    if len({layer.grid for layer in layers}) < len(layers):
        raise MethodError("the layers to combine must have different resolutions; choose stages")
    return _sort_by_grid(layers)


STAGES = ModelPart(
    _find_stages,
    lambda model: (
        "maps of several resolutions that are never negative, as after a ReLU; "
        f"{model.name} has no such maps"
    ),
    select_blocks=_select_stages,
)


def provide_stage_activations(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """For each resolution the output of a layer, from the finest on: (B,C,h,w)."""
    return [state.get_activations(layer) for layer in request.get_part(STAGES)]


register_provider(
    Provider(
        "stage_activations",
        provide_stage_activations,
        model_parts=(STAGES,),
        list_needs=lambda request: PassNeeds(
            copied_layers=tuple(layer.name for layer in request.get_part(STAGES))
        ),
        list_source_layers=lambda request: request.get_part(STAGES),
    )
)
