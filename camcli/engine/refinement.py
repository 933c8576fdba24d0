"""Refine maps by the structure of their own image, from the same forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from camcli.core.errors import LayerError, MethodError
from camcli.core.types import PIXELS, Layer
from camcli.engine.affinity import (
    compute_feature_affinity,
    filter_guided,
    normalize_affinity,
    spread_maps,
)
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.engine.providers.base import PassNeeds
from camcli.engine.refine_options import RefineOptions, parse_refine_options
from camcli.methods.registry import Method
from camcli.models.introspection.affinity_layer import (
    MAX_POSITIONS,
    find_affinity_layer,
    find_trunk_end,
)
from camcli.models.introspection.attention_matrices import AttentionMatrixReader, find_matrix_reader
from camcli.models.introspection.selectors import parse_layer_spec
from camcli.models.model import Model

if TYPE_CHECKING:
    from camcli.engine.pass_state import PassState

ATTENTION_SINKHORN_STEPS = 3


@dataclass(frozen=True, slots=True)
class Refiner:
    """A refinement of the maps of one request.

    `spec` is the value of `--refine` that gives exactly this refinement. `needs` is what the shared
    forward pass must record. `refine(state, maps)` refines maps (B,h,w); the result may have
    another grid.
    """

    kind: str
    spec: str
    needs: PassNeeds
    refine: Callable[[PassState, Tensor], Tensor]


def create_refiner(
    model: Model, options: RefineOptions, map_layers: tuple[Layer, ...]
) -> Refiner | None:
    """The refinement of maps of these layers; None for `none`.

    Without layers a map counts as one of the model's default layer. Raises MethodError if the model
    lacks what the refinement compares, LayerError for a layer that does not exist.
    """
    if options.kind == "none":
        return None
    if options.kind == "guided":
        return _create_guided_refiner(model, options)
    reader = _find_attention(model, options)
    if reader is None:
        return _create_feature_refiner(model, options, map_layers)
    return _create_attention_refiner(reader, options)


def choose_refine_options(method: Method, chosen: RefineOptions) -> RefineOptions:
    """The refinement in the method's name, or else the chosen one."""
    return parse_refine_options(method.refine) if method.refine else chosen


def _find_attention(model: Model, options: RefineOptions) -> AttentionMatrixReader | None:
    """A reader of the attention to compare; None if it is the features.

    "auto" is attention on a transformer without a deep CNN before it. There attention refines
    better than tokens do: GT-known of ViT-Tiny's chefer is 0.711 with attention, and 0.663 with the
    tokens of its middle block. A transformer on a CNN is the other way round: 0.480 and 0.749.
    Raises MethodError if the user asks for attention that the model does not have.
    """
    is_asked = options.source == "attention"
    is_usual = options.source == "auto" and find_trunk_end(model.layers) is None
    if not is_asked and not is_usual:
        return None
    reader = find_matrix_reader(model.network, model.attention_modules, model.input_size)
    if reader is None and is_asked:
        raise MethodError(
            f"--refine affinity: source=attention needs attention over all patch tokens; "
            f"{model.name} has none; try source=features"
        )
    return reader


def _create_guided_refiner(model: Model, options: RefineOptions) -> Refiner:
    mean, std = model.transform.mean, model.transform.std
    radius, epsilon = options.radius, options.epsilon

    def refine(state: PassState, maps: Tensor) -> Tensor:
        center, scale = (maps.new_tensor(values)[:, None, None] for values in (mean, std))
        images = state.inputs.detach().float() * scale + center
        return filter_guided(maps, images, radius, epsilon)

    spec = f"guided:radius={radius},epsilon={epsilon:g}"
    return Refiner("guided", spec, PassNeeds(), refine)


def _create_feature_refiner(
    model: Model, options: RefineOptions, map_layers: tuple[Layer, ...]
) -> Refiner:
    layer = _choose_layer(model, options.layer, map_layers)

    sinkhorn = options.sinkhorn or 0

    def compute(state: PassState) -> Tensor:
        features = state.get_activations(layer)
        return normalize_affinity(compute_feature_affinity(features, options.power), sinkhorn)

    def refine(state: PassState, maps: Tensor) -> Tensor:
        # The grid of this pass: views of `--smooth scales` have other sizes.
        rows, cols = state.get_activations(layer).shape[2:]
        return spread_maps(maps, _cache(state, spec, compute), (rows, cols))

    steps = f",sinkhorn={sinkhorn}" if sinkhorn else ""
    spec = f"affinity:layer={layer.name},power={options.power:g}{steps}"
    return Refiner("affinity", spec, PassNeeds(copied_layers=(layer.name,)), refine)


def _choose_layer(model: Model, spec: str, map_layers: tuple[Layer, ...]) -> Layer:
    """The layer that the user named, or the one that suits the coarsest of the maps' layers."""
    if not model.layers:
        raise MethodError(f"--refine affinity: {model.name} has no layer that gives maps")
    if spec:
        found = parse_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))
        if len(found) > 1:
            raise LayerError(f"--refine affinity: layer={spec} are {len(found)} layers; name one")
        positions = found[0].grid[0] * found[0].grid[1]
        if positions > MAX_POSITIONS:
            raise LayerError(
                f"--refine affinity: {found[0].name} has {positions} positions, but the limit is "
                f"{MAX_POSITIONS}; choose a deeper layer"
            )
        return found[0]
    inner = (layer for layer in map_layers if layer.name != PIXELS)
    by_size = sorted(inner, key=lambda la: -la.grid[0] * la.grid[1])
    coarsest = by_size[-1] if by_size else find_model_default_layer(model)
    layer = find_affinity_layer(model.layers, coarsest)
    if layer is None:
        raise MethodError(
            f"--refine affinity: {model.name} has no layer of at most {MAX_POSITIONS} positions "
            "to compare; try --refine guided"
        )
    return layer


def _create_attention_refiner(reader: AttentionMatrixReader, options: RefineOptions) -> Refiner:
    sinkhorn = ATTENTION_SINKHORN_STEPS if options.sinkhorn is None else options.sinkhorn
    spec = f"affinity:source=attention,sinkhorn={sinkhorn}"
    layer = reader.last_layer

    def compute(state: PassState) -> Tensor:
        means = [state.recording.reduced_outputs[name] for name in reader.hook_names]
        return normalize_affinity(reader.average_patch_attention(means), sinkhorn)

    def refine(state: PassState, maps: Tensor) -> Tensor:
        return spread_maps(maps, _cache(state, spec, compute), layer.grid)

    needs = PassNeeds(reducers=reader.mean_reducers, fused_modules=reader.fused_modules)
    return Refiner("affinity", spec, needs, refine)


def _cache(state: PassState, key: str, compute: Callable[[PassState], Tensor]) -> Tensor:
    """The affinity of a pass, computed once for all maps and methods."""
    if ("refine", key) not in state.cache:
        state.cache["refine", key] = compute(state)
    found: Tensor = state.cache["refine", key]
    return found
